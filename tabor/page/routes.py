"""The page at `/`: files that are shipped compressed, and the headers that keep others' scripts out of it.

Files whose names carry a hash of their content may be kept by browsers for ever; the others are asked for again,
which an ETag makes cheap. Nothing is read before the first request.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import re
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter, Request, Response

from query.negotiation import weights

STATIC = Path(__file__).with_name("static")
PAGES = ("/", "/query", "/cardinality", "/cluster", "/status", "/graph")
"""Addresses of views; /graph is where links to Prometheus' own page lead."""
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
HEADERS = {
    # Styles of elements are set by scripts one property at a time, and the editor's are constructed style sheets:
    # neither needs 'unsafe-inline'.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_IMMUTABLE = "public, max-age=31536000, immutable"
_HASHED = re.compile(r"-[0-9a-f]{12}\.\w+")


class _File(NamedTuple):
    compressed: bytes
    etag: str
    media_type: str
    cache_control: str


@functools.cache
def _file(name: str) -> _File | None:
    """A file that is shipped; None if there is none of this name."""
    if name not in names():
        return None
    compressed = (STATIC / f"{name}.gz").read_bytes()
    digest = hashlib.sha256(compressed).hexdigest()[:24]
    cache_control = _IMMUTABLE if _HASHED.search(name) else "no-cache"
    return _File(compressed, f'"{digest}"', MEDIA_TYPES[Path(name).suffix], cache_control)


@functools.cache
def names() -> frozenset[str]:
    """Names of all files that are shipped."""
    return frozenset(path.name.removesuffix(".gz") for path in STATIC.glob("*.gz"))


def router() -> APIRouter:
    """The page under each of its addresses, and its files."""
    routes = APIRouter()

    def page(request: Request) -> Response:
        return _answer("index.html", request)

    def static(request: Request) -> Response:
        return _answer(request.path_params["name"], request)

    # Plain routes of Starlette: those of FastAPI take a while to make, when Tabor starts.
    for path in PAGES:
        routes.add_route(path, page, methods=["GET", "HEAD"], name="page")
    routes.add_route("/static/{name}", static, methods=["GET", "HEAD"], name="static")
    return routes


def _answer(name: str, request: Request) -> Response:
    file = _file(name) if name in names() else None
    if file is None:
        return Response(f"there is no {name!r} here\n", 404, HEADERS, "text/plain; charset=utf-8")
    headers = {**HEADERS, "ETag": file.etag, "Cache-Control": file.cache_control, "Vary": "Accept-Encoding"}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if file.etag in known or known == ["*"]:
        return Response(status_code=304, headers=headers)
    body = file.compressed
    if _takes_gzip(request.headers.get("accept-encoding", "")):
        headers["Content-Encoding"] = "gzip"
    else:
        body = gzip.decompress(body)
    return Response(body, headers=headers, media_type=file.media_type)


def _takes_gzip(accepted: str) -> bool:
    weighed = weights(accepted)
    return weighed.get("gzip", weighed.get("*", 0.0)) > 0.0
