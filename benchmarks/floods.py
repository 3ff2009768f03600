"""Floods: what a crowd of peers may do to one door, in a process of its own, until it is ended.

Each crowd works as fast as it can. What comes back is thrown away, and who is refused comes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import zmq
import zmq.asyncio

from pysplash.framed import split_address

#: bytes of a large request: a little below what a door takes
LARGE = 2**20 - 4096
#: peers of a crowd; of one whose requests are large and whole; of one over ZeroMQ
PEERS, GIANTS, DEALERS = 400, 64, 8
#: seconds between two bytes of a slow sender, and before a refused peer comes again
DRIP, AGAIN = 0.05, 0.01
#: requests a ZeroMQ peer has sent ahead of their answers
AHEAD = 8
#: how much less than others a crowd gets of this machine: a real one would be elsewhere
NICE = 19
#: what one peer does with the bytes of a request, again and again
Peer = Callable[[str, bytes], Awaitable[None]]


def frame(size: int) -> bytes:
    """Return a framed request of so many bytes."""
    return struct.pack("!I", size) + b"x" * size


def post(size: int) -> bytes:
    """Return a call of the echo, with so many bytes, over HTTP."""
    body = call(size)
    head = "POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def call(size: int) -> bytes:
    """Return a call of the echo, with so many bytes."""
    return json.dumps(
        {"jsonrpc": "2.0", "method": "echo", "params": ["x" * size], "id": 1}
    ).encode()


REQUESTS = {"framed": frame, "HTTP": post, "ZeroMQ": call}


@contextlib.asynccontextmanager
async def _dialled(
    address: str,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*split_address(address))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def ask(address: str, request: bytes) -> None:
    """Send a request and read its answer."""
    async with _dialled(address) as (reader, writer):
        writer.write(request)
        while await reader.read(65536):
            pass


async def hold(address: str, request: bytes) -> None:
    """Send a request but for its last byte, and wait for what comes of that."""
    async with _dialled(address) as (reader, writer):
        writer.write(request[:-1])
        await reader.read()


async def knock(address: str, _: bytes) -> None:
    """Connect, and go."""
    async with _dialled(address):
        pass


async def drip(address: str, request: bytes) -> None:
    """Send a request byte by byte."""
    async with _dialled(address) as (_, writer):
        for number in range(len(request)):
            writer.write(request[number : number + 1])
            await writer.drain()
            await asyncio.sleep(DRIP)


async def push(address: str, request: bytes) -> None:
    """Send requests over ZeroMQ, some ahead of their answers."""
    with zmq.asyncio.Context.instance().socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(address)
        for _ in range(AHEAD):
            await dealer.send(request)
        while True:
            await dealer.recv()
            await dealer.send(request)


#: by what it is called: what a peer does, the bytes of its request, and how many peers there are
STREAM: dict[str, tuple[Peer, int, int]] = {
    "small calls": (ask, 64, PEERS),
    "large calls": (ask, LARGE, GIANTS),
    "large and never whole": (hold, LARGE, PEERS),
    "slow senders": (drip, LARGE, PEERS),
    "connections": (knock, 0, PEERS),
}
MESSAGES: dict[str, tuple[Peer, int, int]] = {
    "small calls": (push, 64, DEALERS),
    "large calls": (push, LARGE, DEALERS),
}
#: the floods there are, by the kind of door
FLOODS = {"framed": STREAM, "HTTP": STREAM, "ZeroMQ": MESSAGES}


def flood(kind: str, name: str, address: str) -> None:
    """Be the flood *name* at a door of this *kind*, for ever."""
    os.nice(NICE)
    peer, size, peers = FLOODS[kind][name]
    request = REQUESTS[kind](size)

    async def again() -> None:
        while True:
            with contextlib.suppress(OSError, EOFError):
                await peer(address, request)
            await asyncio.sleep(AGAIN)

    async def crowd() -> None:
        await asyncio.gather(*(again() for _ in range(peers)))

    asyncio.run(crowd())
