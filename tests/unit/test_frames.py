"""Frames, however they are cut."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pysplash.errors import FrameError
from pysplash.framed import FrameReader, pack, unpack

LIMIT = 300


def read(parts: Iterable[bytes], limit: int = LIMIT) -> tuple[list[bytes], bool]:
    """Return what frames carry in *parts*, and whether they end in an error."""
    reader = FrameReader(limit)
    found: list[bytes] = []
    try:
        for part in parts:
            found += reader.feed(part)
    except FrameError:
        return found, True
    return found, False


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Return *data* in pieces."""
    ends = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(ends)]


def test_the_form_is_exact() -> None:
    """A frame is a length of four bytes, unsigned and in network order, then the bytes."""
    assert pack(b"abc") == struct.pack("!I", 3) + b"abc" == b"\x00\x00\x00\x03abc"
    assert pack(b"") == b"\x00\x00\x00\x00"
    assert unpack(pack(b"\x00\xff")) == b"\x00\xff"


@given(st.binary(max_size=2000), st.lists(st.integers(0, 5000), max_size=20))
def test_cuts_change_nothing(data: bytes, places: list[int]) -> None:
    """Any bytes, cut anywhere, give the same frames, or the same error."""
    whole, bad = read([data])
    pieces, worse = read(cut(data, places))

    assert (pieces, worse) == (read(data[i : i + 1] for i in range(len(data))))
    assert worse == bad
    assert pieces[: len(whole)] == whole


@given(st.lists(st.binary(max_size=LIMIT), max_size=8), st.lists(st.integers(0, 5000), max_size=20))
def test_what_is_packed_comes_out(payloads: list[bytes], places: list[int]) -> None:
    """Frames in a row come out as they went in."""
    assert read(cut(b"".join(map(pack, payloads)), places)) == (payloads, False)


@given(
    st.binary(max_size=LIMIT), st.binary(max_size=40), st.lists(st.integers(0, 5000), max_size=9)
)
def test_the_first_frame_is_all_that_counts(payload: bytes, more: bytes, places: list[int]) -> None:
    """It comes out however it is cut, whatever follows, and not before its last byte."""
    reader = FrameReader(LIMIT)
    whole = pack(payload)
    parts = cut(whole[:-1], places)
    assert [reader.first(part) for part in parts if part] == [None for part in parts if part]
    assert reader.first(whole[-1:] + more) == payload
    assert FrameReader(LIMIT).first(whole + more) == payload


@given(st.binary(max_size=2000))
def test_no_more_than_a_frame_is_held(data: bytes) -> None:
    """Who reads what is wanted never holds more than one frame."""
    reader = FrameReader(LIMIT)
    at = 0
    try:
        while at < len(data):
            assert 0 < reader.wanted <= LIMIT
            part = data[at : at + reader.wanted]
            at += len(part)
            reader.feed(part)
    except FrameError:
        assert data[:4] != b""


@pytest.mark.parametrize("length", [LIMIT + 1, 2**20 + 1, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_length_is_judged_first(length: int) -> None:
    """A length above the limit is refused as soon as it is known, with the limit in the message."""
    reader = FrameReader(LIMIT)
    assert reader.feed(struct.pack("!I", length)[:3]) == []
    with pytest.raises(FrameError, match=f"announces {length} bytes, {LIMIT} are allowed"):
        reader.feed(struct.pack("!I", length)[3:])


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00", pack(b"abc")[:-1], pack(b"a") + b"x", pack(b"a") * 2, b"GET / HTTP/1.1\r\n"],
)
def test_what_is_not_one_frame(data: bytes) -> None:
    """What is unpacked is exactly one whole frame."""
    with pytest.raises(FrameError):
        unpack(data)


@pytest.mark.parametrize("value", ["text", 5, None, [1]])
def test_only_bytes_are_packed(value: object) -> None:
    """What is not bytes is not guessed at."""
    with pytest.raises(FrameError, match="encode it first"):
        pack(value)  # type: ignore[arg-type]
