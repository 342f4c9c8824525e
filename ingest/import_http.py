"""`POST /api/v1/import/prometheus`: back-filling from text, through the same door as remote write."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from common.errors import RetryableError
from common.tenants import TenantRefused, tenant_of
from ingest.body import read_body
from ingest.errors import BadRequest, RequestRefused, retry_after
from ingest.ingestor import Ingestor, unix_ms
from ingest.openmetrics import OPEN_METRICS, pieces

PATH = "/api/v1/import/prometheus"


def router(ingestor: Ingestor) -> APIRouter:
    """The route of the import."""
    routes = APIRouter()

    async def endpoint(request: Request) -> Response:
        response = await _answer(ingestor, request)
        ingestor.metrics.requests.labels(str(response.status_code)).inc()
        return response

    routes.add_api_route(PATH, endpoint, methods=["POST"], response_class=Response, name="import")
    return routes


async def _answer(ingestor: Ingestor, request: Request) -> Response:
    n_stored = 0
    try:
        ingestor.check_open()
        tenant = tenant_of(request.scope, ingestor.config.tenancy)
        text = await _text(request, ingestor.config.max_body_bytes)
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        found = pieces(text.split("\n"), open_metrics=media_type == OPEN_METRICS, now_ms=unix_ms())
        while (piece := await asyncio.to_thread(next, found, None)) is not None:
            outcome = await asyncio.wrap_future(ingestor.submit_message(piece.message, tenant))
            n_stored += outcome.n_samples
            if outcome.refusal is not None:
                return _refused(
                    outcome.refusal.status,
                    f"up to line {piece.line}: {outcome.refusal.message}",
                    n_stored,
                    outcome.refusal,
                )
    except ClientDisconnect:
        return _refused(400, "the body ended early", n_stored)
    except (RequestRefused, TenantRefused) as error:
        return _refused(error.status, str(error), n_stored, error)
    except RetryableError as error:
        return _refused(503, str(error), n_stored, error)
    return Response(status_code=204)


def _refused(status: int, reason: str, n_stored: int, error: object = None) -> Response:
    """Sending the whole text again does no harm: what is stored already stays as it is."""
    text = f"{reason}; {n_stored} samples are stored\n"
    return Response(text, status_code=status, media_type="text/plain", headers=retry_after(error))


async def _text(request: Request, max_bytes: int) -> str:
    """The body, decompressed.

    Raises:
        BodyTooLarge, UnsupportedType, BadRequest: it cannot be read.
    """
    body = await read_body(request, max_bytes)
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8: byte {error.start} of {len(body)}") from None
