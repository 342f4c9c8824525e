"""An application that computes nothing: a few bytes for count(), otherwise 70 MB of the same bytes, as a stream.

The floor of `bench.bench_json_http`: what is left to a server of large answers after HTTP has had its part.
"""

from __future__ import annotations

from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

_CHUNK = b"0" * 730_000
_N_CHUNKS = 96


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application."""
    if scope["type"] != "http":
        return
    query = parse_qs(Request(scope).url.query).get("query", [""])[0]
    whole = query and not query.startswith("count(")
    response = StreamingResponse(iter([_CHUNK] * _N_CHUNKS)) if whole else Response()
    await response(scope, receive, send)
