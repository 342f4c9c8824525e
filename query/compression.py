"""Answers compressed as the client can take them; to be called off the event loop."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import zstandard

LEAST_BYTES = 4096
"""Smaller answers are sent as they are: it would cost more than it saves."""
_GZIP_LEVEL = 1
_ZSTD_LEVEL = 1
_GZIP_WBITS = 31


def negotiated(accept_encoding: str) -> str:
    """'zstd', 'gzip' or '' for a header of this value (RFC 9110, 12.5.3); zstd if both are as welcome."""
    weights: dict[str, float] = {}
    for part in accept_encoding.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        weights[name] = weight
    rest = weights.get("*", 0.0)
    best = max(("zstd", "gzip"), key=lambda name: weights.get(name, rest))
    return best if weights.get(best, rest) > 0.0 else ""


def compressed(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """The bytes of these chunks in one of the encodings of `negotiated`."""
    compressor: Any
    if encoding == "zstd":
        compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
    else:
        compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WBITS)
    for chunk in chunks:
        part = compressor.compress(chunk)
        if part:
            yield part
    yield compressor.flush()
