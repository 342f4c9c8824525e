"""Answers of any size: compressed if the client can take it, and sent while the rest is still being encoded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import chain

from fastapi import Response
from fastapi.responses import StreamingResponse

from query.compression import LEAST_BYTES, compressed

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
WHOLE_BYTES = 4 << 20
"""An answer up to about this size is sent in one piece."""


def streamed(chunks: Iterator[bytes], media_type: str, encoding: str) -> Response:
    """An answer of these chunks, in a form that the client was asked about; to be called off the event loop."""
    headers = {"Vary": "Accept"}
    begin, size = [], 0
    for chunk in chunks:
        begin.append(chunk)
        size += len(chunk)
        if size > WHOLE_BYTES:
            # The rest is encoded while this is sent, so that a large answer is never in memory as a whole.
            every = chain([b"".join(begin)], chunks)
            if encoding:
                return StreamingResponse(
                    compressed(every, encoding), headers=_compressed(headers, encoding), media_type=media_type
                )
            return StreamingResponse(every, headers=headers, media_type=media_type)
    return Response(b"".join(begin), headers=headers, media_type=media_type)


async def smaller(response: Response, encoding: str) -> Response:
    """The same answer, smaller, if the client can take it and it is not compressed already."""
    if not encoding or isinstance(response, StreamingResponse) or len(response.body) < LEAST_BYTES:
        return response
    body = await asyncio.to_thread(lambda: b"".join(compressed([bytes(response.body)], encoding)))
    headers = {
        name: text for name, text in response.headers.items() if name not in ("content-length", "content-type")
    }
    return Response(body, headers=_compressed(headers, encoding), media_type=response.media_type)


def _compressed(headers: dict[str, str], encoding: str) -> dict[str, str]:
    vary = ", ".join(text for name, text in headers.items() if name.lower() == "vary")
    kept = {name: text for name, text in headers.items() if name.lower() != "vary"}
    vary = f"{vary}, Accept-Encoding" if vary else "Accept-Encoding"
    return {**kept, "Content-Encoding": encoding, "Vary": vary}
