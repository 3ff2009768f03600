"""A database as its readers see it: flat, decoded, and free of what differs from run to run.

A snapshot maps paths such as ``rq:job:a[status]`` to text, or to a number that is compared within a
tolerance. Times are counted from the moment of the snapshot. Random ids become ``<id 1>``,
``<id 2>`` in the order in which they are met, so that two which must be equal stay equal.
"""

from __future__ import annotations

import base64
import pickle
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from redis import Redis

#: seconds by which two times, or two sums of times, may differ
TOLERANCE = 5.0

RANDOM_ID = re.compile(
    r"(?<![0-9a-f])(?:[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?![0-9a-f])"
)
MEMORY = re.compile(r"\b0x[0-9a-f]+\b")
ISO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
UNIX_TIME = re.compile(r"\d{10}(?:\.\d{1,7})?")
TIME_IN_TEXT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}\+00:00")
FRAME = re.compile(r'  File "(.*)", line \d+, in (.*)')
#: entries that RQ keeps in a stream, and more than the server leaves when it trims to as many
KEPT, UNTRIMMED = 10, 120
#: what lies further back, in seconds, no worker has written
LONG_AGO = -86400.0
#: a score above this is a time
FIRST_TIME = 1e9


@dataclass(frozen=True, slots=True)
class About:
    """Seconds that may differ a little; *kind* says what they are and how they are written."""

    kind: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.kind} {self.seconds:+.1f} s"


Leaf = str | About
Snapshot = dict[str, Leaf]


def take(client: Redis) -> Snapshot:
    """Read every key of *client*'s database: type, time to live and value."""
    seconds, microseconds = client.time()
    return _Reader(client, seconds + microseconds / 1e6).read()


def differences(theirs: Mapping[str, Leaf], ours: Mapping[str, Leaf]) -> list[str]:
    """Say, a line each, where *ours* is not as *theirs*."""
    return [
        f"{path}: RQ has {_show(theirs.get(path))}, we have {_show(ours.get(path))}"
        for path in sorted(theirs.keys() | ours.keys())
        if not _alike(theirs.get(path), ours.get(path))
    ]


def _alike(their: Leaf | None, our: Leaf | None) -> bool:
    if isinstance(their, About) and isinstance(our, About):
        return their.kind == our.kind and abs(their.seconds - our.seconds) <= TOLERANCE
    return their == our


def _show(leaf: Leaf | None) -> str:
    if leaf is None:
        return "nothing"
    text = str(leaf) if isinstance(leaf, About) else repr(leaf)
    return text if len(text) <= 400 else f"{text[:300]}... ({len(text)} characters)"


class _Reader:
    """Reads one database once."""

    def __init__(self, client: Redis, now: float) -> None:
        self._client: Any = client  # its types do not know that replies are bytes
        self._now = now
        self._ids: dict[str, str] = {}
        self._found: Snapshot = {}

    def read(self) -> Snapshot:
        by_type: dict[str, Callable[[bytes, str], None]] = {
            "string": self._string,
            "list": self._list,
            "set": self._set,
            "zset": self._zset,
            "hash": self._hash,
            "stream": self._stream,
        }
        for key in sorted(self._client.keys(), key=_nameless):
            kind = self._client.type(key).decode()
            if kind == "none":  # a worker at work has removed it meanwhile
                continue
            ttl = self._client.pttl(key)
            path = self._text(key)
            self._found[f"{path} type"] = kind
            self._found[f"{path} ttl"] = "none" if ttl < 0 else About("to live", ttl / 1000)
            by_type[kind](key, path)
        return self._found

    def _string(self, key: bytes, path: str) -> None:
        self._found[path] = self._leaf("", self._client.get(key))

    def _list(self, key: bytes, path: str) -> None:
        for number, item in enumerate(self._client.lrange(key, 0, -1)):
            self._found[f"{path}[{number}]"] = self._text(item)

    def _set(self, key: bytes, path: str) -> None:
        for member in sorted(self._client.smembers(key), key=_nameless):
            self._found[f"{path}[{self._text(member)}]"] = "member"

    def _zset(self, key: bytes, path: str) -> None:
        scored = self._client.zrange(key, 0, -1, withscores=True)
        for member, score in sorted(scored, key=lambda pair: _nameless(pair[0])):
            self._found[f"{path}[{self._text(member)}]"] = self._score(score)

    def _hash(self, key: bytes, path: str) -> None:
        for field, value in sorted(self._client.hgetall(key).items()):
            self._found[f"{path}[{field.decode()}]"] = self._leaf(field.decode(), value)

    def _stream(self, key: bytes, path: str) -> None:
        entries = self._client.xrange(key)
        self._found[f"{path} length"] = _roughly(len(entries))
        for number, (entry, fields) in enumerate(entries[-KEPT:]):
            seconds = int(entry.split(b"-")[0]) / 1e3
            self._found[f"{path}[{number}] id"] = About("stream time", seconds - self._now)
            for name, value in sorted(fields.items()):
                field = name.decode()
                self._found[f"{path}[{number}][{field}]"] = self._leaf(field, value)

    def _score(self, score: float) -> Leaf:
        if not FIRST_TIME < score < float("inf"):
            return repr(score)
        kind = "whole time" if score.is_integer() else "time with a fraction"
        return About(kind, score - self._now)

    def _leaf(self, field: str, value: bytes) -> Leaf:
        if field in DECODERS:
            try:
                return self._text(DECODERS[field](value))
            except Exception:  # whatever it is, it is not what RQ writes
                return "undecodable " + self._text(value)
        text = self._text(value)
        if field == "total_working_time":
            return About("worked", float(text))
        if ISO_TIME.fullmatch(text):
            ago = datetime.fromisoformat(text).timestamp() - self._now
            return About("ISO time", ago) if ago > LONG_AGO else text
        if UNIX_TIME.fullmatch(text):
            kind = "Unix time" if "." in text else "whole Unix time"
            return About(kind, float(text) - self._now)
        return text

    def _text(self, value: bytes | str) -> str:
        text = value if isinstance(value, str) else value.decode(errors="backslashreplace")
        return RANDOM_ID.sub(self._label, MEMORY.sub("<address>", text))

    def _label(self, match: re.Match[str]) -> str:
        return self._ids.setdefault(match[0], f"<id {len(self._ids) + 1}>")


def _roughly(length: int) -> str:
    """Return a stream's length, which the server trims by the block where a block is full."""
    if length < KEPT:
        return str(length)
    return "trimmed" if length < UNTRIMMED else "not trimmed"


def _nameless(value: bytes) -> str:
    return RANDOM_ID.sub("<id>", value.decode(errors="backslashreplace"))


def _payload(value: bytes) -> str:
    """Return what a serializer has written: the object in a pickle, anything else as it is."""
    if value[:1] != b"\x80":
        return value.decode(errors="backslashreplace")
    try:
        thing: Any = pickle.loads(value)
    except Exception:  # a pickle made to fail
        return value.decode(errors="backslashreplace")
    return f"pickle {value[1]} of {thing!r}"


def _traceback(text: str) -> str:
    """Return the exceptions and, of the frames, the functions that are the tests' own."""
    kept = []
    for line in text.splitlines():
        frame = FRAME.fullmatch(line)
        if frame is None and not line.startswith("    "):
            kept.append(TIME_IN_TEXT.sub("<time>", line))
        elif frame is not None and Path(frame[1]).parent == Path(__file__).parent:
            kept.append(f"  in {frame[2]}")
    return "\n".join(kept)


#: fields of job hashes and result streams, and how to read them
DECODERS: dict[str, Callable[[bytes], str]] = {
    "data": lambda value: _payload(zlib.decompress(value)),
    "meta": _payload,
    "result": _payload,
    "return_value": lambda value: _payload(base64.b64decode(value, validate=True)),
    "exc_info": lambda value: _traceback(zlib.decompress(value).decode()),
    "exc_string": lambda value: _traceback(zlib.decompress(base64.b64decode(value)).decode()),
}
