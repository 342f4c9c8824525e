"""`POST /api/v1/import/prometheus`: back-filling from text, through the same door as remote write."""

from __future__ import annotations

import asyncio
import io

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from common.errors import RetryableError
from common.tenants import DEFAULT_TENANT, TenantRefused, tenant_of
from ingest.body import Body, read_body
from ingest.errors import BadRequest, RequestRefused, retry_after
from ingest.ingestor import Ingestor, unix_ms
from ingest.openmetrics import OPEN_METRICS, pieces

PATH = "/api/v1/import/prometheus"
MAX_READ = 2
"""Texts that are being read at a time; others wait as they were sent. More would take memory and gain no time."""


def router(ingestor: Ingestor) -> APIRouter:
    """The route of the import."""
    routes = APIRouter()
    turns = asyncio.Semaphore(MAX_READ)

    async def endpoint(request: Request) -> Response:
        response = await _answer(ingestor, request, turns)
        ingestor.metrics.requests.labels(str(response.status_code)).inc()
        return response

    routes.add_api_route(PATH, endpoint, methods=["POST"], response_class=Response, name="import")
    return routes


async def _answer(ingestor: Ingestor, request: Request, turns: asyncio.Semaphore) -> Response:
    storing = _Storing(ingestor)
    try:
        ingestor.check_open()
        storing.tenant = tenant_of(request.scope, ingestor.config.tenancy)
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        body = await read_body(request, ingestor.config.max_body_bytes)
        async with turns:
            return await storing.store(body, open_metrics=media_type == OPEN_METRICS)
    except ClientDisconnect:
        return _refused(400, "the body ended early", storing.n_stored)
    except (RequestRefused, TenantRefused) as error:
        return _refused(error.status, str(error), storing.n_stored, error)
    except RetryableError as error:
        return _refused(503, str(error), storing.n_stored, error)


class _Storing:
    """One text, a piece after the other."""

    def __init__(self, ingestor: Ingestor) -> None:
        self._ingestor = ingestor
        self.tenant = DEFAULT_TENANT
        self.n_stored = 0

    async def store(self, body: Body, *, open_metrics: bool) -> Response:
        """Raises RequestRefused, RetryableError."""
        text = await asyncio.to_thread(_text, body)
        # A line at a time: as a list, lines that are empty would take eight times their size.
        found = pieces(io.StringIO(text, newline="\n"), open_metrics=open_metrics, now_ms=unix_ms())
        while (piece := await asyncio.to_thread(next, found, None)) is not None:
            outcome = await asyncio.wrap_future(self._ingestor.submit_message(piece.message, self.tenant))
            self.n_stored += outcome.n_samples
            refusal = outcome.refusal
            if refusal is not None:
                reason = f"up to line {piece.line}: {refusal.message}"
                return _refused(refusal.status, reason, self.n_stored, refusal)
        return Response(status_code=204)


def _refused(status: int, reason: str, n_stored: int, error: object = None) -> Response:
    """Sending the whole text again does no harm: what is stored already stays as it is."""
    text = f"{reason}; {n_stored} samples are stored\n"
    return Response(text, status_code=status, media_type="text/plain", headers=retry_after(error))


def _text(body: Body) -> str:
    """The text, decompressed.

    Raises:
        BodyTooLarge, BadRequest: it cannot be read.
    """
    decoded = body.decoded()
    try:
        return decoded.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8: byte {error.start} of {len(decoded)}") from None
