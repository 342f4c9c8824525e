"""Answers compressed as the client can take them; to be called off the event loop."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import zstandard

from query.negotiation import weights

LEAST_BYTES = 4096
"""Smaller answers are sent as they are: it would cost more than it saves."""
_GZIP_LEVEL = 1
_ZSTD_LEVEL = 1
_GZIP_WBITS = 31


def negotiated(accept_encoding: str) -> str:
    """'zstd', 'gzip' or '' for a header of this value (RFC 9110, 12.5.3); zstd if both are as welcome."""
    weighed = weights(accept_encoding)
    rest = weighed.get("*", 0.0)
    best = max(("zstd", "gzip"), key=lambda name: weighed.get(name, rest))
    return best if weighed.get(best, rest) > 0.0 else ""


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
