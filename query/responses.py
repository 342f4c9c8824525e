"""Answers as HTTP responses: whole, or as a stream that is made while it is sent; never larger than they may be.

Whether an answer is too large is known before its first byte is sent. One of up to WHOLE_BYTES is there as a
whole. A larger one is estimated from above by its numbers of samples and series; if that is too much, it is
encoded once without being kept, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType

import orjson
from fastapi import Response
from fastapi.responses import StreamingResponse

from common.errors import CallerError
from common.tenants import TenantRefused
from query.compression import compressed

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
WHOLE_BYTES = 4 << 20
"""An answer up to about this size is sent in one piece."""


_VARY = {"Vary": "Accept"}
"""Whoever asks for an answer may have it in more than one form."""


class TooLargeResponse(CallerError):
    """An answer has more bytes than answers may have."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(
            f"the answer has more than {max_bytes} bytes before compression; "
            "ask for fewer series or steps, or raise --query-max-response-bytes"
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """chunks: makes the bytes of the answer, the same each time. upper_bound: of their number, cheap to tell."""

    chunks: Callable[[], Iterator[bytes]]
    upper_bound: Callable[[], int]
    media_type: str = JSON


def respond(answer: Answer, max_bytes: int, encoding: str, check: Callable[[], None]) -> Response:
    """An answer as a response, compressed only if it is a stream; to be called off the event loop.

    encoding: of `query.compression.negotiated`. check: called now and then, raises if the work is to end.

    Raises:
        TooLargeResponse: it has more than `max_bytes`.
    """
    check()
    chunks, begin, size = answer.chunks(), [], 0
    for chunk in chunks:
        begin.append(chunk)
        size += len(chunk)
        if size > min(WHOLE_BYTES, max_bytes):
            break
    else:
        return Response(b"".join(begin), headers=_VARY, media_type=answer.media_type)
    if size > max_bytes:
        raise TooLargeResponse(max_bytes)
    if answer.upper_bound() > max_bytes:
        begin.clear()
        for chunk in chunks:
            check()
            size += len(chunk)
            if size > max_bytes:
                raise TooLargeResponse(max_bytes)
        chunks = answer.chunks()
    # The rest is encoded while this is sent, so that a large answer is never in memory as a whole.
    every = chain([b"".join(begin)], chunks) if begin else chunks
    if encoding:
        return StreamingResponse(
            compressed(every, encoding), headers=encoding_headers(encoding, _VARY), media_type=answer.media_type
        )
    return StreamingResponse(every, headers=_VARY, media_type=answer.media_type)


def error_response(status: int, kind: str, message: str) -> Response:
    """An error in the form of Prometheus' API."""
    body = {"status": "error", "errorType": kind, "error": message}
    return Response(orjson.dumps(body), status_code=status, media_type=JSON)


def tenant_refused(error: TenantRefused) -> Response:
    """A request that is for no tenant, or for one that it may not be for."""
    return error_response(
        error.status, {401: "unauthorized", 403: "forbidden"}.get(error.status, "bad_data"), str(error)
    )


def encoding_headers(encoding: str, headers: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """Headers of an answer that is compressed, from those that it has otherwise."""
    kept = {name.lower(): text for name, text in headers.items()}
    vary = [kept["vary"]] if "vary" in kept else []
    return {**kept, "content-encoding": encoding, "vary": ", ".join([*vary, "Accept-Encoding"])}
