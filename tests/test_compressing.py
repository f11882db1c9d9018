"""Compressed records: smaller where they can be, and never larger than a bound when they are read."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given, strategies as st

from elasticache_sessions.compressing import LARGEST, METHODS, grown, shrunk
from elasticache_sessions.exceptions import DecodeError
from elasticache_sessions.record import Header, Kind, Record, head, is_compressed, pack, unpack
from elasticache_sessions.sealing import Box, Seal
from elasticache_sessions.session import handle_of
from tests.test_record import records

ID = "A" * 40
each_method = pytest.mark.parametrize("method", METHODS)


def seal(method: str, compress_from: int = 1, *keys: bytes) -> Seal:
    return Box.of(keys, "refuse", compress_from, method).of_session(ID, handle_of(ID))


def live(content: bytes) -> Record:
    return Record(Header(Kind.LIVE, 1, (b"revise",) * 4, 5), {"a": content})


@each_method
@given(record=records)
def test_a_record_comes_back_from_what_was_compressed_and_encrypted(method: str, record: Record) -> None:
    for opener in (seal(method), seal(method, 1, b"k" * 32)):
        assert unpack(pack(record, opener), opener).fields == record.fields


@each_method
def test_what_becomes_smaller_is_compressed_and_is_read_by_whoever_does_not_compress(method: str) -> None:
    record = live(b"tea " * 1_000)
    data = pack(record, seal(method))
    assert is_compressed(data) and len(data) < 300
    assert unpack(data) == record
    assert head(data) == record.header
    sealed = pack(record, seal(method, 1, b"k" * 32))
    assert len(sealed) == len(data) + 28


@each_method
def test_what_is_too_small_or_becomes_no_smaller_is_stored_as_it_is(method: str) -> None:
    for record, compress_from in ((live(b"tea" * 100), 1_000), (live(bytes(range(256))), 1)):
        assert pack(record, seal(method, compress_from)) == pack(record)


@each_method
def test_what_could_not_be_read_back_is_stored_as_it_is(method: str) -> None:
    record = live(bytes(LARGEST))
    assert pack(record, seal(method)) == pack(record)
    just_so = bytes(LARGEST)
    assert grown(*shrunk(just_so, method)) == just_so


def zeros(method: str, size: int) -> bytes:
    return (
        zlib.compress(bytes(size)) if method == "zlib" else zstandard.ZstdCompressor().compress(bytes(size))
    )


def lying(size: int) -> bytes:
    """What zstd made of that many zeros, and says that they are a thousand."""
    data = bytearray(zeros("zstd", size))
    assert int.from_bytes(data[5:9], "little") == size or int.from_bytes(data[6:10], "little") == size
    at = 5 if int.from_bytes(data[5:9], "little") == size else 6
    data[at : at + 4] = (1_000).to_bytes(4, "little")
    return bytes(data)


def silent(size: int) -> bytes:
    """What zstd made of that many zeros, without a word of how many they are."""
    return zstandard.ZstdCompressor(write_content_size=False).compress(bytes(size))


@pytest.mark.parametrize(
    ("method", "make"),
    [
        ("zlib", lambda: zeros("zlib", 4 * LARGEST)),
        ("zlib", lambda: zeros("zlib", LARGEST + 1)),
        ("zstd", lambda: zeros("zstd", 4 * LARGEST)),
        ("zstd", lambda: lying(4 * LARGEST)),
        ("zstd", lambda: silent(4 * LARGEST)),
    ],
    ids=["zlib", "zlib, by one byte", "zstd", "zstd that says it is small", "zstd that does not say"],
)
def test_what_would_become_too_large_is_noticed_before_it_is(method: str, make: Callable[[], bytes]) -> None:
    data = make()
    assert len(data) < LARGEST // 100
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            grown(data, METHODS[method])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * LARGEST


@each_method
def test_what_is_cut_short_or_followed_by_something_is_noticed(method: str) -> None:
    small, flag = shrunk(b"tea " * 100, method)
    with pytest.raises(DecodeError):
        grown(small[:-1], flag)
    if method == "zlib":  # what follows is not looked at by zstd; the record's checksum has it
        with pytest.raises(DecodeError):
            grown(small + b"x", flag)


@given(st.binary(max_size=100), st.sampled_from([*METHODS.values(), sum(METHODS.values())]))
def test_any_bytes_are_refused(data: bytes, flags: int) -> None:
    with pytest.raises(DecodeError):
        grown(data, flags)
