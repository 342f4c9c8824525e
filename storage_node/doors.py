"""What the routes between nodes do alike: take a request of limited size, and refuse one with a reason."""

from __future__ import annotations

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from common.wire import answers


async def body_of(request: Request, max_bytes: int) -> bytes | None:
    """The body, or None if it is too large."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            return None
    return bytes(body)


def refusal(status: int, error: Exception) -> Response:
    """An error before any work was begun."""
    return JSONResponse(answers.error_content(error), status_code=status)
