"""An application that computes nothing: nothing for count(), otherwise 70 MB of the same bytes, as a stream.

The floor of `bench.bench_json_http`: what is left to a server of large answers after HTTP has had its part.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

_CHUNK = b"0" * 730_000
_N_CHUNKS = 96


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application."""
    query = Request(scope).query_params.get("query", "count()")
    few = query.startswith("count(")
    response = Response() if few else StreamingResponse(iter([_CHUNK] * _N_CHUNKS))
    await response(scope, receive, send)
