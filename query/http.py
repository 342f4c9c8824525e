"""Prometheus' HTTP API for queries, on top of `query.service`."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from prometheus_client import Counter

from common import asgi
from common.asgi import App, Receive, Scope, Send
from common.errors import CallerError, RetryableError
from common.events import EventLog
from common.store import SeriesStore, TooManySamples, TooManySeries
from common.tenants import TenantRefused
from query import remote_chunks, remote_read
from query.clients import run, run_whole, unless_gone
from query.compression import LEAST_BYTES, compressed, negotiated
from query.engine.budget import Budget, QueryCancelled, QueryTimeout
from query.engine.engine import QueryResult
from query.engine.values import EvalError, RangeVector, Vector
from query.http_about import NOTHING, About
from query.json_result import encode_data, encode_result, encode_series, labels_bytes, upper_bound
from query.metrics import QUERIES, READS
from query.negotiation import preferred
from query.params import BadParameter, Parameters, unescape_label_name
from query.promql.errors import ParseError
from query.responses import (
    ARROW,
    JSON,
    Answer,
    TooLargeResponse,
    encoding_headers,
    error_response,
    respond,
    tenant_refused,
)
from query.service import QueryService
from query.statistics import statistics

MAX_FORM_BYTES = 4 << 20
TRUNCATED = "results truncated due to limit"
_log = EventLog("query")

Handler = Callable[[Parameters, Request], Awaitable[Response]]


def router(service: QueryService, version: str) -> APIRouter:
    """Routes of Prometheus' query API; every GET may also be a POST with a form."""
    api = _Api(service)
    routes = APIRouter()

    def add(path: str, handler: Handler, *, post: bool = True) -> None:
        routes.add_api_route(
            path,
            _endpoint(path, handler, service),
            methods=["GET", "POST"] if post else ["GET"],
            response_class=Response,
            name=_name_of(path),
        )

    for path, handler in api.asked_often().items():
        add(path, handler)
    add("/api/v1/series", api.series)
    add("/api/v1/labels", api.label_names)
    add("/api/v1/label/{name:path}/values", api.label_values, post=False)
    about = About(service, version)
    add("/api/v1/cardinality", about.cardinality)
    add("/api/v1/query_exemplars", about.exemplars)
    add("/api/v1/format_query", about.format_query)
    add("/api/v1/parse_query", about.parse_query)
    add("/api/v1/metadata", about.metadata, post=False)
    for name in ("buildinfo", "runtimeinfo", "flags", "config", "walreplay", "tsdb"):
        add(f"/api/v1/status/{name}", getattr(about, name), post=False)
    add("/federate", about.federate, post=False)
    add("/api/v1/export", about.export)
    for path, nothing in NOTHING.items():
        add(path, _constant(nothing), post=False)

    async def read(request: Request) -> Response:
        response = await _read(api, request)
        QUERIES.labels("read", response.status_code).inc()
        if response.status_code == 200:
            streamed = response.media_type == remote_chunks.MEDIA_TYPE
            READS.labels("streamed_xor_chunks" if streamed else "samples").inc()
        return response

    for path in remote_read.PATHS:
        routes.add_api_route(path, read, methods=["POST"], response_class=Response, name="read")
    return routes


def in_front_of(
    app: App, service: QueryService, require_started: Callable[[], Awaitable[None]] | None = None
) -> App:
    """An application that answers queries itself and leaves all else to `app`, which has their routes too.

    require_started: raises RetryableError as long as there is nothing to be read yet.
    """

    def answering(path: str, handler: Handler) -> App:
        endpoint = _endpoint(path, handler, service, require_started)

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            response = await endpoint(Request(scope, receive))
            await response(scope, receive, send)

        return answer

    endpoints = {path: answering(path, handler) for path, handler in _Api(service).asked_often().items()}
    return asgi.in_front_of(app, endpoints, ("GET", "POST"))


def _endpoint(
    path: str,
    handler: Handler,
    service: QueryService,
    require_started: Callable[[], Awaitable[None]] | None = None,
) -> Callable[[Request], Awaitable[Response]]:
    """What answers the requests of a route, and counts them."""
    name = _name_of(path)
    counted: dict[int, Counter] = {}

    async def started(p: Parameters, request: Request) -> Response:
        if require_started is not None:
            await require_started()
        return await handler(p, request)

    async def endpoint(request: Request) -> Response:
        response = await answered(started, request, service.config.max_response_bytes)
        counter = counted.get(response.status_code)
        if counter is None:
            counter = counted[response.status_code] = QUERIES.labels(name, response.status_code)
        counter.inc()
        return response

    return endpoint


def _name_of(path: str) -> str:
    return path.removeprefix("/api/v1").split("/")[1]


class _Api:
    def __init__(self, service: QueryService) -> None:
        self._service = service

    def asked_often(self) -> dict[str, Handler]:
        """By path: what dashboards and alerts ask every few seconds."""
        return {"/api/v1/query": self.instant, "/api/v1/query_range": self.range}

    async def instant(self, p: Parameters, request: Request) -> Response:
        limit, form = p.limit(), _form_of(request)
        wanted = self._service.wanted_of(p, request)
        return await unless_gone(
            request,
            lambda cancelled: self._service.instant(
                p.get("query"),
                p.time_ms("time", _now_ms()),
                lookback_ms=_lookback_ms(p),
                timeout_s=_timeout_s(p),
                wanted=wanted,
                finish=lambda result, budget: self._result(result, budget, limit, form, wanted.asked.stats),
                cancelled=cancelled,
            ),
        )

    async def range(self, p: Parameters, request: Request) -> Response:
        limit, form = p.limit(), _form_of(request)
        wanted = self._service.wanted_of(p, request)
        start_ms, end_ms = p.time_ms("start"), p.time_ms("end")
        if end_ms < start_ms:
            raise BadParameter("end", "end timestamp must not be before start time")
        step_ms = p.duration_ms("step")
        if step_ms <= 0:
            raise BadParameter(
                "step",
                "zero or negative query resolution step widths are not accepted. Try a positive integer",
            )
        if (end_ms - start_ms) // step_ms > self._service.config.max_points:
            raise CallerError(
                f"exceeded maximum resolution of {self._service.config.max_points:,} points per timeseries. "
                "Try decreasing the query resolution (?step=XX), or raise --query-max-points"
            )
        return await unless_gone(
            request,
            lambda cancelled: self._service.range(
                p.get("query"),
                start_ms,
                end_ms,
                step_ms,
                lookback_ms=_lookback_ms(p),
                timeout_s=_timeout_s(p),
                wanted=wanted,
                finish=lambda result, budget: self._result(result, budget, limit, form, wanted.asked.stats),
                cancelled=cancelled,
            ),
        )

    async def series(self, p: Parameters, request: Request) -> Response:
        if not p.all("match[]"):
            raise CallerError("no match[] parameter provided")
        limit = p.limit()
        sets, times, encoding = p.matcher_sets(), p.time_range(), _encoding(request)
        config = self._service.config

        def work(store: SeriesStore, budget: Budget) -> Response:
            table = store.series(sets, *times, config.max_series)
            rows = len(table) if limit == 0 else min(limit, len(table))
            warnings = [*([TRUNCATED] if rows < len(table) else []), *budget.warnings()]
            answer = Answer(
                lambda: encode_series(table, rows, warnings), lambda: labels_bytes(table) + 3 * len(table) + 1000
            )
            return respond(answer, config.max_response_bytes, encoding, budget.check)

        return await run(self._service, work, p, request)

    async def label_names(self, p: Parameters, request: Request) -> Response:
        sets, times, limit = p.matcher_sets(), p.time_range(), p.limit()
        return await run(
            self._service,
            lambda store, budget: _limited(store.label_names(sets, *times), limit, budget),
            p,
            request,
        )

    async def label_values(self, p: Parameters, request: Request) -> Response:
        name = unescape_label_name(request.path_params["name"])
        if not name:
            raise CallerError('invalid label name: ""')
        sets, times, limit = p.matcher_sets(), p.time_range(), p.limit()
        return await run(
            self._service,
            lambda store, budget: _limited(store.label_values(name, sets, *times), limit, budget),
            p,
            request,
        )

    async def read(self, p: Parameters, body: bytes, request: Request) -> Response:
        asked = await asyncio.to_thread(remote_read.parse_request, body)
        max_bytes = self._service.config.max_response_bytes
        return await run_whole(
            self._service, lambda store, budget: remote_read.answer(store, asked, budget, max_bytes), p, request
        )

    def _result(self, result: QueryResult, budget: Budget, limit: int, form: _Form, stats: str) -> Response:
        told = statistics(result, budget, stats)
        warnings = budget.warnings()
        if limit and isinstance(result.value, Vector | RangeVector) and len(result.value.labels) > limit:
            result = replace(result, value=_first(result.value, limit))
            warnings.append(TRUNCATED)
        if form.media_type == ARROW:
            from query import arrow_stream

            # No bound is known, so that a large one is counted first.
            answer = Answer(
                lambda: arrow_stream.encode_result(result, extra_warnings=warnings), lambda: sys.maxsize, ARROW
            )
        else:
            answer = Answer(
                lambda: encode_result(result, extra_warnings=warnings, stats=told),
                lambda: (
                    upper_bound(result)
                    + len(told)
                    + len(encode_data(None, [*warnings, *result.warnings, *result.infos]))
                ),
            )
        response = respond(answer, self._service.config.max_response_bytes, form.encoding, budget.check)
        budget.stages.end("encode")
        return response


async def answered(handler: Handler, request: Request, max_bytes: int) -> Response:
    """Run a handler with the parameters of the request."""

    async def work() -> Response:
        form = b""
        if request.method in ("POST", "PUT"):
            form = await _form(request)
        response = await handler(Parameters.of(request.scope["query_string"], form), request)
        if not isinstance(response, StreamingResponse) and len(response.body) > max_bytes:
            raise TooLargeResponse(max_bytes)
        return await _compressed(response, request)

    return await _guarded(work, request)


async def _read(api: _Api, request: Request) -> Response:
    async def work() -> Response:
        body = await _body(request, remote_read.MAX_REQUEST_BYTES, "request")
        return await api.read(Parameters.of(request.scope["query_string"], b""), body, request)

    return await _guarded(work, request)


async def _guarded(work: Callable[[], Awaitable[Response]], request: Request) -> Response:
    """Turn what the work raises into Prometheus' error answers."""
    try:
        return await work()
    except ParseError as error:
        return error_response(400, "bad_data", f'invalid parameter "query": {error}')
    except QueryTimeout as error:
        return error_response(503, "timeout", str(error))
    except QueryCancelled as error:
        return error_response(499, "canceled", str(error))
    except (EvalError, TooManySamples, TooManySeries, TooLargeResponse) as error:
        return error_response(422, "execution", str(error))
    except TenantRefused as error:
        return tenant_refused(error)
    except CallerError as error:
        return error_response(400, "bad_data", str(error))
    except RetryableError as error:
        status = getattr(error, "status", 503)
        response = error_response(status, "too_many_requests" if status == 429 else "unavailable", str(error))
        response.headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
        return response
    except asyncio.CancelledError:
        # The server stops, and has waited for the query for as long as it may.
        return error_response(503, "unavailable", "the server is stopping")
    except Exception:
        _log.exception("query_failed", path=request.url.path)
        return error_response(500, "internal", "internal error; the server's log has the details")


class _Form(NamedTuple):
    """How the answer is to be written."""

    media_type: str
    encoding: str


def _form_of(request: Request) -> _Form:
    return _Form(preferred(request.headers.get("accept", ""), ARROW, JSON), _encoding(request))


def _encoding(request: Request) -> str:
    return negotiated(request.headers.get("accept-encoding", ""))


async def _compressed(response: Response, request: Request) -> Response:
    """The same answer, smaller, if the client can take it and it is not compressed already."""
    if isinstance(response, StreamingResponse) or len(response.body) < LEAST_BYTES:
        return response
    encoding = _encoding(request)
    if not encoding:
        return response
    body = await asyncio.to_thread(lambda: b"".join(compressed([bytes(response.body)], encoding)))
    kept = {
        name: text for name, text in response.headers.items() if name not in ("content-length", "content-type")
    }
    return Response(body, headers=encoding_headers(encoding, kept), media_type=response.media_type)


async def _form(request: Request) -> bytes:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("", "application/x-www-form-urlencoded"):
        return b""
    return await _body(request, MAX_FORM_BYTES, "form")


async def _body(request: Request, max_bytes: int, what: str) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise CallerError(f"the {what} is larger than {max_bytes} bytes")
    return bytes(body)


def _constant(data: object) -> Handler:
    async def answer(p: Parameters, request: Request) -> Response:
        return _data(data)

    return answer


def _first(value: Vector | RangeVector, n_series: int) -> Vector | RangeVector:
    labels, drop_name = value.labels.take(np.arange(n_series)), value.drop_name[:n_series]
    if isinstance(value, RangeVector):
        return replace(value, labels=labels, drop_name=drop_name, offsets=value.offsets[: n_series + 1])
    histograms = value.histograms
    if histograms is not None:
        histograms = replace(histograms, index=histograms.index[:n_series])
    values, present = value.values[:n_series], value.present[:n_series]
    return Vector(labels, values, present, drop_name, histograms)


def _data(data: object, warnings: Sequence[str] = ()) -> Response:
    return Response(encode_data(data, warnings), media_type="application/json")


def _limited(texts: list[str], limit: int, budget: Budget) -> Response:
    kept = texts if limit == 0 else texts[:limit]
    truncated = [TRUNCATED] if len(kept) < len(texts) else []
    return _data(kept, [*truncated, *budget.warnings()])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _timeout_s(p: Parameters) -> float | None:
    timeout_ms = p.duration_ms("timeout", 0)
    if timeout_ms < 0:
        raise BadParameter("timeout", "must not be negative")
    return timeout_ms / 1000 or None


def _lookback_ms(p: Parameters) -> int | None:
    lookback_ms = p.duration_ms("lookback_delta", 0)
    if lookback_ms < 0:
        raise BadParameter("lookback_delta", "must not be negative")
    return lookback_ms or None
