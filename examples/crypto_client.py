"""Signatures for a web server: the handler awaits, the pool's workers do the arithmetic.

    python examples/crypto_client.py  with the embedded server
    python examples/crypto_client.py --url redis://localhost:6379/0 --requests 1000

Each worker derives its key once, when it starts, from a parameter; each signature costs some
milliseconds of CPU. The web server has one thread and stays free meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import threading
from collections.abc import Mapping

import pysplash

#: what the setup hook has derived; one in every worker
KEYS: dict[str, bytes] = {}
ROUNDS = 2000


@pysplash.setup
def derive_key(parameters: Mapping[str, str]) -> None:
    """Derive the key: once per worker, before it takes a job."""
    phrase = parameters["phrase"].encode()
    KEYS["signing"] = hashlib.pbkdf2_hmac("sha256", phrase, b"pysplash example", 50_000)


@pysplash.task(name="crypto.sign", timeout=10)
def sign(text: str) -> str:
    """Return the signature of a text."""
    seal = hmac.new(KEYS["signing"], text.encode(), "sha256").digest()
    return hashlib.pbkdf2_hmac("sha256", seal, b"stretched", ROUNDS).hex()


async def handle(
    client: pysplash.AsyncClient, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer one request: the signature of its path."""
    request = await reader.readuntil(b"\r\n\r\n")
    path = request.split(b" ", 2)[1].decode()
    body = str(await client.crypto.sign(path)).encode()
    writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    await writer.drain()
    writer.close()


async def fetch(port: int, path: str) -> str:
    """Ask the web server for one signature."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    reply = await reader.read()
    writer.close()
    return reply.partition(b"\r\n\r\n")[2].decode()


async def serve_and_ask(url: str, requests: int) -> None:
    """Run the web server, and many who ask it at once."""
    async with pysplash.AsyncClient(url, timeout=60, patience=30) as client:
        server = await asyncio.start_server(lambda r, w: handle(client, r, w), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            paths = [f"/document/{number}" for number in range(requests)]
            signatures = await asyncio.gather(*(fetch(port, path) for path in paths))
    print(f"{len(set(signatures))} signatures, each of {len(signatures[0])} digits")
    print(f"{paths[0]}: {signatures[0][:16]}")
    print(f"{paths[-1]}: {signatures[-1][:16]}")


def main() -> None:
    """Run a pool, a web server that uses it and its visitors; stop when all are served."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", help="use this Redis, not an embedded server")
    parser.add_argument("--requests", type=int, default=100, help="how many (default: 100)")
    arguments = parser.parse_args()

    with pysplash.open_server(arguments.url) as url:
        pool = pysplash.Pool(
            ["crypto"], url=url, preload=["crypto_client"], params={"phrase": "open sesame"}
        )

        def ask() -> None:
            try:
                asyncio.run(serve_and_ask(url, arguments.requests))
            finally:
                pool.stop()

        threading.Thread(target=ask).start()
        pool.start()


if __name__ == "__main__":
    main()
