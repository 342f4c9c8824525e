"""Bodies of requests that are read whole, gzip or not."""

from __future__ import annotations

import zlib
from typing import NamedTuple

from starlette.requests import Request

from ingest.errors import BadRequest, BodyTooLarge, UnsupportedType

_GZIP_WBITS = 31


class Body(NamedTuple):
    """A body as it was sent. Decompressing it takes time and memory: off the event loop, and not many at once."""

    sent: bytes
    is_gzip: bool
    max_bytes: int

    def decoded(self) -> bytes:
        """The body, decompressed; at most `max_bytes`.

        Raises:
            BodyTooLarge, BadRequest: it cannot be decompressed.
        """
        if not self.is_gzip:
            return self.sent
        unzip = zlib.decompressobj(_GZIP_WBITS)
        try:
            body = unzip.decompress(self.sent, self.max_bytes + 1)
        except zlib.error as error:
            raise BadRequest(f"the body is not valid gzip: {error}") from None
        if len(body) > self.max_bytes or unzip.unconsumed_tail:
            raise BodyTooLarge(f"the body has more than {self.max_bytes} bytes decompressed (--max-body-bytes)")
        if unzip.unused_data:
            raise BadRequest("the body is not valid gzip: something follows its end")
        if not unzip.eof:
            raise BadRequest("the body is not valid gzip: it ends early")
        return body


async def read_body(request: Request, max_bytes: int) -> Body:
    """The body, as it was sent; at most `max_bytes`.

    Raises:
        BodyTooLarge, UnsupportedType: it cannot be read. ClientDisconnect: the sender went away.
    """
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip"):
        raise UnsupportedType(f"Content-Encoding is {encoding}; gzip or none is expected")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise BodyTooLarge(f"the body has more than {max_bytes} bytes (--max-body-bytes)")
    return Body(bytes(body), encoding == "gzip", max_bytes)
