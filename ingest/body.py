"""Bodies of requests that are read whole, gzip or not."""

from __future__ import annotations

import zlib

from starlette.requests import Request

from ingest.errors import BadRequest, BodyTooLarge, UnsupportedType

_GZIP_WBITS = 31


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The body, decompressed; at most `max_bytes`, as sent and decompressed.

    Raises:
        BodyTooLarge, UnsupportedType, BadRequest: it cannot be read. ClientDisconnect: the sender went away.
    """
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip"):
        raise UnsupportedType(f"Content-Encoding is {encoding}; gzip or none is expected")
    unzip = zlib.decompressobj(_GZIP_WBITS) if encoding == "gzip" else None
    body = bytearray()
    n_sent = 0
    async for chunk in request.stream():
        n_sent += len(chunk)
        if n_sent > max_bytes:
            raise BodyTooLarge(f"the body has more than {max_bytes} bytes (--max-body-bytes)")
        try:
            body += chunk if unzip is None else unzip.decompress(chunk, max_bytes + 1 - len(body))
        except zlib.error as error:
            raise BadRequest(f"the body is not valid gzip: {error}") from None
        if len(body) > max_bytes or (unzip is not None and unzip.unconsumed_tail):
            raise BodyTooLarge(f"the body has more than {max_bytes} bytes decompressed (--max-body-bytes)")
        if unzip is not None and unzip.unused_data:
            raise BadRequest("the body is not valid gzip: something follows its end")
    if unzip is not None and not unzip.eof:
        raise BadRequest("the body is not valid gzip: it ends early")
    return bytes(body)
