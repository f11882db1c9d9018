"""A record's fields made smaller, and large again: never larger than a bound, whatever was stored. Pure: no I/O."""

from __future__ import annotations

import importlib
import zlib
from types import ModuleType
from typing import Final

from .exceptions import DecodeError, MissingExtra

LARGEST: Final = 16 * 2**20
"""How many bytes come out of what was stored, at most. What is larger is stored as it is; MAX_BYTES bounds that."""
METHODS: Final = {"zlib": 4, "zstd": 8}
"""By name: the flag in a record's header."""
FLAGS: Final = sum(METHODS.values())
INSTALL_ZSTD: Final = "pip install 'elasticache-sessions[zstd]'"


def check_method(name: str) -> None:
    """Raises MissingExtra where it is not installed."""
    if name == "zstd":
        try:
            _zstd()
        except ImportError as error:
            raise MissingExtra(
                f"Compressing with zstd needs the package zstandard: {INSTALL_ZSTD}"
            ) from error


def shrunk(body: bytes, method: str) -> tuple[bytes, int]:
    """`body` compressed, and the flag that says how; `body` and 0 where it would not become smaller, or may not be made so
    large again.
    """
    if len(body) > LARGEST:
        return body, 0
    small = zlib.compress(body) if method == "zlib" else _zstd().ZstdCompressor().compress(body)
    return (small, METHODS[method]) if len(small) < len(body) else (body, 0)


def grown(data: bytes | memoryview, flags: int) -> bytes | memoryview:
    """What was compressed as `flags` say.

    Raises:
        DecodeError: it is none of that, or would become larger than `LARGEST`, which is noticed before it is.
    """
    if not flags:
        return data
    if flags == METHODS["zlib"]:
        return _inflated(data)
    if flags == METHODS["zstd"]:
        return _unzstd(bytes(data))
    raise DecodeError("compressed in two ways at once")


def _inflated(data: bytes | memoryview) -> bytes:
    inflating = zlib.decompressobj()
    try:
        body = inflating.decompress(data, LARGEST + 1)
    except zlib.error as error:
        raise DecodeError(f"not what zlib made: {error}") from error
    if len(body) > LARGEST:
        raise DecodeError(_TOO_LARGE)
    if not inflating.eof or inflating.unused_data:
        raise DecodeError("not what zlib made: it is cut short, or something follows")
    return body


def _unzstd(data: bytes) -> bytes:
    try:
        zstd = _zstd()
    except ImportError as error:
        raise DecodeError(f"compressed with zstd, which is not installed here: {INSTALL_ZSTD}") from error
    try:
        size = zstd.frame_content_size(data)
        if size > LARGEST:
            raise DecodeError(_TOO_LARGE)
        if size < 0:
            raise DecodeError("compressed with zstd by somebody else, as it does not say how large it was")
        # There is no room for more than it says.
        return bytes(zstd.ZstdDecompressor(max_window_size=LARGEST).decompress(data))
    except zstd.ZstdError as error:
        raise DecodeError(f"not what zstd made: {error}") from error


_TOO_LARGE: Final = f"compressed from more than {LARGEST:,} bytes"


def _zstd() -> ModuleType:
    return importlib.import_module("zstandard")
