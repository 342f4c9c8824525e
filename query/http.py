"""Prometheus' HTTP API for queries, on top of `query.service`."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response

from common.errors import CallerError, RetryableError
from common.events import EventLog
from common.store import MAX_TIME_MS, MIN_TIME_MS, TooManySamples
from query import remote_read
from query.answers import ARROW, JSON, smaller, streamed
from query.compression import negotiated
from query.engine.budget import QueryCancelled, QueryTimeout
from query.engine.engine import QueryResult
from query.engine.values import EvalError, RangeVector, Vector
from query.http_about import NOTHING, About
from query.json_result import encode_data, encode_result
from query.metrics import QUERIES
from query.negotiation import preferred
from query.params import BadParameter, Parameters, unescape_label_name
from query.promql.errors import ParseError
from query.service import QueryService

MAX_FORM_BYTES = 10 << 20
TRUNCATED = "results truncated due to limit"
_log = EventLog("query")

Handler = Callable[[Parameters, Request], Awaitable[Response]]


def router(service: QueryService, version: str) -> APIRouter:
    """Routes of Prometheus' query API; every GET may also be a POST with a form."""
    api = _Api(service)
    routes = APIRouter()

    def add(path: str, handler: Handler, *, post: bool = True) -> None:
        name = path.removeprefix("/api/v1").split("/")[1]

        async def endpoint(request: Request) -> Response:
            response = await _answer(handler, request)
            QUERIES.labels(name, response.status_code).inc()
            return response

        routes.add_api_route(
            path, endpoint, methods=["GET", "POST"] if post else ["GET"], response_class=Response, name=name
        )

    add("/api/v1/query", api.instant)
    add("/api/v1/query_range", api.range)
    add("/api/v1/series", api.series)
    add("/api/v1/labels", api.label_names)
    add("/api/v1/label/{name:path}/values", api.label_values, post=False)
    about = About(service, version)
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
        response = await _read(about, service, request)
        QUERIES.labels("read", response.status_code).inc()
        return response

    for path in remote_read.PATHS:
        routes.add_api_route(path, read, methods=["POST"], response_class=Response, name="read")
    return routes


class _Api:
    def __init__(self, service: QueryService) -> None:
        self._service = service

    async def instant(self, p: Parameters, request: Request) -> Response:
        limit, cancelled, form = p.limit(), threading.Event(), _form_of(request)
        future = self._service.instant(
            p.get("query"),
            p.time_ms("time", _now_ms()),
            lookback_ms=_lookback_ms(p),
            timeout_s=_timeout_s(p),
            consistency=self._service.consistency_of(p, request),
            finish=lambda result: _result(result, limit, form),
            cancelled=cancelled,
        )
        return await _unless_gone(request, future, cancelled)

    async def range(self, p: Parameters, request: Request) -> Response:
        limit, cancelled, form = p.limit(), threading.Event(), _form_of(request)
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
        future = self._service.range(
            p.get("query"),
            start_ms,
            end_ms,
            step_ms,
            lookback_ms=_lookback_ms(p),
            timeout_s=_timeout_s(p),
            consistency=self._service.consistency_of(p, request),
            finish=lambda result: _result(result, limit, form),
            cancelled=cancelled,
        )
        return await _unless_gone(request, future, cancelled)

    async def series(self, p: Parameters, request: Request) -> Response:
        if not p.all("match[]"):
            raise CallerError("no match[] parameter provided")
        limit = p.limit()
        future = self._service.series(p.matcher_sets(), *_time_range(p), self._service.consistency_of(p, request))
        table = await asyncio.wrap_future(future)
        rows = len(table) if limit == 0 else min(limit, len(table))
        return _data([table.labels(row) for row in range(rows)], truncated=rows < len(table))

    async def label_names(self, p: Parameters, request: Request) -> Response:
        future = self._service.label_names(
            p.matcher_sets(), *_time_range(p), self._service.consistency_of(p, request)
        )
        return _limited(await asyncio.wrap_future(future), p.limit())

    async def label_values(self, p: Parameters, request: Request) -> Response:
        name = unescape_label_name(request.path_params["name"])
        if not name:
            raise CallerError('invalid label name: ""')
        future = self._service.label_values(
            name, p.matcher_sets(), *_time_range(p), self._service.consistency_of(p, request)
        )
        return _limited(await asyncio.wrap_future(future), p.limit())


async def _answer(handler: Handler, request: Request) -> Response:
    """Run a handler with the parameters of the request."""

    async def work() -> Response:
        form = b""
        if request.method == "POST":
            form = await _form(request)
        response = await handler(Parameters.of(request.scope["query_string"], form), request)
        return await smaller(response, _encoding(request))

    return await _guarded(work, request)


async def _read(about: About, service: QueryService, request: Request) -> Response:
    async def work() -> Response:
        body = await _body(request, remote_read.MAX_REQUEST_BYTES, "request")
        parameters = Parameters.of(request.scope["query_string"], b"")
        return await about.read(body, service.consistency_of(parameters, request))

    return await _guarded(work, request)


async def _guarded(work: Callable[[], Awaitable[Response]], request: Request) -> Response:
    """Turn what the work raises into Prometheus' error answers."""
    try:
        return await work()
    except ParseError as error:
        return _error(400, "bad_data", f'invalid parameter "query": {error}')
    except QueryTimeout as error:
        return _error(503, "timeout", str(error))
    except QueryCancelled as error:
        return _error(499, "canceled", str(error))
    except (EvalError, TooManySamples) as error:
        return _error(422, "execution", str(error))
    except CallerError as error:
        return _error(400, "bad_data", str(error))
    except RetryableError as error:
        response = _error(503, "unavailable", str(error))
        response.headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
        return response
    except asyncio.CancelledError:
        # The server stops, and has waited for the query for as long as it may.
        return _error(503, "unavailable", "the server is stopping")
    except Exception:
        _log.exception("query_failed", path=request.url.path)
        return _error(500, "internal", "internal error; the server's log has the details")


class _Form(NamedTuple):
    """How the answer is to be written."""

    media_type: str
    encoding: str


def _form_of(request: Request) -> _Form:
    return _Form(preferred(request.headers.get("accept", ""), ARROW, JSON), _encoding(request))


def _encoding(request: Request) -> str:
    return negotiated(request.headers.get("accept-encoding", ""))


async def _unless_gone(request: Request, future: Future[Response], cancelled: threading.Event) -> Response:
    """The answer of a query, which is ended if the client goes away before."""
    answer = asyncio.wrap_future(future)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            cancelled.set()
        return await answer
    finally:
        # Either may be left over, the answer when the server stops.
        gone.cancel()
        answer.cancel()


async def _gone(request: Request) -> None:
    """Return when the client has closed the connection. The body has been read by now."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


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


def _result(result: QueryResult, limit: int, form: _Form) -> Response:
    warnings = []
    if limit and isinstance(result.value, Vector | RangeVector) and len(result.value.labels) > limit:
        result = replace(result, value=_first(result.value, limit))
        warnings.append(TRUNCATED)
    if form.media_type == JSON:
        return streamed(encode_result(result, extra_warnings=warnings), *form)
    from query import arrow_stream

    return streamed(arrow_stream.encode_result(result, extra_warnings=warnings), *form)


def _first(value: Vector | RangeVector, n_series: int) -> Vector | RangeVector:
    labels, drop_name = value.labels.take(np.arange(n_series)), value.drop_name[:n_series]
    if isinstance(value, RangeVector):
        return replace(value, labels=labels, drop_name=drop_name, offsets=value.offsets[: n_series + 1])
    histograms = value.histograms
    if histograms is not None:
        histograms = replace(histograms, index=histograms.index[:n_series])
    values, present = value.values[:n_series], value.present[:n_series]
    return Vector(labels, values, present, drop_name, histograms)


def _data(data: object, *, truncated: bool = False) -> Response:
    return Response(encode_data(data, [TRUNCATED] if truncated else ()), media_type="application/json")


def _limited(texts: list[str], limit: int) -> Response:
    kept = texts if limit == 0 else texts[:limit]
    return _data(kept, truncated=len(kept) < len(texts))


def _error(status: int, kind: str, message: str) -> Response:
    body = {"status": "error", "errorType": kind, "error": message}
    return Response(orjson.dumps(body), status_code=status, media_type="application/json")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _time_range(p: Parameters) -> tuple[int, int]:
    start_ms, end_ms = p.time_ms("start", MIN_TIME_MS), p.time_ms("end", MAX_TIME_MS)
    if end_ms < start_ms:
        raise BadParameter("end", "end timestamp must not be before start time")
    return start_ms, end_ms


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
