"""OTLP over HTTP: POST /api/v1/otlp/v1/metrics.

200   all is durable in the log that could be stored; a partial_success says what was refused, and why
400   the body cannot be read, or nothing of it could be stored
413   too many bytes, samples or messages        415   neither protobuf nor gzip
422   nothing could be stored for a limit of labels   429   nothing could be stored for the limit of active series
503   the log does not take more; Retry-After says when to come again
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from common.errors import RetryableError
from common.protobuf import delimited
from common.tenants import DEFAULT_TENANT, TenantRefused, tenant_of
from ingest.body import Body, read_body
from ingest.errors import Refusal, RequestRefused, UnsupportedType, retry_after
from ingest.ingestor import Ingestor, WriteOutcome
from ingest.otlp import Translation, parse

PATH = "/api/v1/otlp/v1/metrics"
MAX_DECODED = 2
"""Requests that are objects at a time; others wait as bytes. More would take memory and gain no time."""
_MEDIA_TYPE = "application/x-protobuf"


def router(ingestor: Ingestor) -> APIRouter:
    """The route of OTLP."""
    routes = APIRouter()
    turns = asyncio.Semaphore(MAX_DECODED)

    async def endpoint(request: Request) -> Response:
        response = await _answer(ingestor, request, turns)
        ingestor.metrics.requests.labels(str(response.status_code)).inc()
        return response

    routes.add_api_route(PATH, endpoint, methods=["POST"], response_class=Response, name="otlp")
    return routes


async def _answer(ingestor: Ingestor, request: Request, turns: asyncio.Semaphore) -> Response:
    storing = _Storing(ingestor)
    try:
        ingestor.check_open()
        storing.tenant = tenant_of(request.scope, ingestor.config.tenancy)
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != _MEDIA_TYPE:
            raise UnsupportedType(f"Content-Type is {media_type or 'missing'}; {_MEDIA_TYPE} is expected")
        body = await read_body(request, ingestor.config.max_body_bytes)
        async with turns:
            await storing.translate(body)
        await storing.finish()
    except ClientDisconnect:
        return _failed(400, "the body ended early")
    except (RequestRefused, TenantRefused) as error:
        stored = f"; {storing.n_stored} samples are stored" if storing.n_stored else ""
        return _failed(error.status, f"{error}{stored}", error)
    except RetryableError as error:
        return _failed(503, str(error), error)
    return storing.response()


class _Storing:
    """One request, a piece after the other, and what became of them."""

    def __init__(self, ingestor: Ingestor) -> None:
        self._ingestor = ingestor
        self.tenant = DEFAULT_TENANT
        self._under_way: tuple[asyncio.Future[WriteOutcome], int] | None = None
        self._reasons: list[str] = []
        self._n_points = self._n_refused = 0
        self._status = 200
        self._refusal: Refusal | None = None
        self.n_stored = 0

    async def translate(self, body: Body) -> None:
        """Give all pieces of a request to the ingestor, which may still have the last one when this returns."""
        translation = await asyncio.to_thread(self._parse, body)
        pieces = translation.pieces()
        try:
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                await self.finish()
                self._under_way = (
                    asyncio.wrap_future(self._ingestor.submit_message(piece.message, self.tenant)),
                    piece.n_samples,
                )
        except RequestRefused:
            await self.finish()
            raise
        self._n_points = translation.n_points
        if translation.n_refused:
            self._refused(400, translation.n_refused)
        self._reasons += translation.reasons

    def _parse(self, body: Body) -> Translation:
        config = self._ingestor.config
        return Translation(parse(body.decoded(), config.max_body_bytes), config)

    async def finish(self) -> None:
        """Wait for the piece that is under way."""
        if self._under_way is None:
            return
        (future, n_samples), self._under_way = self._under_way, None
        outcome = await future
        self.n_stored += outcome.n_samples
        if outcome.refusal is not None:
            self._refusal = outcome.refusal
            self._refused(outcome.refusal.status, n_samples - outcome.n_samples)
            if outcome.refusal.message not in self._reasons:
                self._reasons.append(outcome.refusal.message)

    def _refused(self, status: int, n_refused: int) -> None:
        self._n_refused += n_refused
        # As with remote write, the status that says most surely that sending again will not help.
        self._status = status if self._status == 200 else min(status, self._status)

    def response(self) -> Response:
        """The answer, once all is finished."""
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

        answer = ExportMetricsServiceResponse()
        if self._reasons:
            # A histogram of refused labels is many samples, but one data point.
            n_refused = min(self._n_refused, self._n_points)
            stored = f"{n_refused} data points refused, the others stored"
            message = "; ".join([*self._reasons, stored if n_refused else "all data points stored"])
            if n_refused and not self.n_stored:
                again = self._refusal if self._status == 429 else None
                return _failed(self._status, "; ".join([*self._reasons, "nothing stored"]), again)
            answer.partial_success.rejected_data_points = n_refused
            answer.partial_success.error_message = message
        return Response(answer.SerializeToString(), media_type=_MEDIA_TYPE)


def _failed(status: int, reason: str, error: object = None) -> Response:
    """A `google.rpc.Status` with a message, as OTLP asks for; its code is not used over HTTP."""
    body = delimited(2, reason.encode(errors="replace"))
    return Response(body, status_code=status, media_type=_MEDIA_TYPE, headers=retry_after(error))
