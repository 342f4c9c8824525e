"""Remote write over HTTP: POST /api/v1/write and /write.

204   every sample is durable in the log, or there was none
400   the body cannot be read, or some series are not valid (the message says whether the others are stored)
413   too many bytes, series or samples        415   not snappy, or not prometheus.WriteRequest
422   series break a limit of labels           429   too many active series
503   the log does not take more; Retry-After says when to come again
"""

from __future__ import annotations

import asyncio
import math

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from common.errors import RetryableError
from ingest.errors import BodyTooLarge, RequestRefused, UnsupportedType
from ingest.ingestor import Ingestor

PATHS = ("/api/v1/write", "/write")
_MEDIA_TYPE = "application/x-protobuf"
_MESSAGE = "prometheus.writerequest"


def router(ingestor: Ingestor) -> APIRouter:
    """The routes of remote write for this ingestor."""

    async def write(request: Request) -> Response:
        response = await _answer(ingestor, request)
        ingestor.metrics.requests.labels(str(response.status_code)).inc()
        return response

    routes = APIRouter()
    for path in PATHS:
        routes.add_route(path, write, methods=["POST"], include_in_schema=False)
    return routes


async def _answer(ingestor: Ingestor, request: Request) -> Response:
    try:
        ingestor.check_open()
        check_type(request.headers.get("content-type", ""), request.headers.get("content-encoding", ""))
        body = await _read_body(request, ingestor.config.max_compressed_bytes)
        outcome = await asyncio.wrap_future(ingestor.submit(body))
    except RequestRefused as error:
        return _text(error.status, str(error))
    except RetryableError as error:
        retry_after = str(max(1, math.ceil(error.retry_after_s)))
        return _text(503, str(error), {"Retry-After": retry_after})
    except ClientDisconnect:
        return _text(400, "the body ended early")
    if outcome.refusal is not None:
        return _text(outcome.refusal.status, outcome.refusal.message)
    return Response(status_code=204)


def _text(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return Response(message + "\n", status_code=status, headers=headers, media_type="text/plain; charset=utf-8")


def check_type(content_type: str, content_encoding: str) -> None:
    """Accept remote write 1.0 only; a missing header stands for the right one, as in Prometheus.

    Raises:
        UnsupportedType: it is something else; says what.
    """
    media_type, *parameters = (part.strip() for part in content_type.split(";"))
    if media_type and media_type.lower() != _MEDIA_TYPE:
        raise UnsupportedType(f"Content-Type is {media_type}; {_MEDIA_TYPE} is expected")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        message = value.strip().strip('"')
        if name.strip().lower() == "proto" and message.lower() != _MESSAGE:
            raise UnsupportedType(
                f"protobuf message {message} is not supported; send prometheus.WriteRequest (remote write 1.0)"
            )
    if content_encoding.strip().lower() not in ("", "snappy"):
        raise UnsupportedType(f"Content-Encoding is {content_encoding}; snappy is expected")


async def _read_body(request: Request, max_bytes: int) -> bytes:
    """Read the body, as long as it keeps to the limit.

    Raises:
        BodyTooLarge: the header or what has arrived exceeds it.
    """
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    chunks = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body has more than {max_bytes} bytes compressed (--max-body-bytes)")
