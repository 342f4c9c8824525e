"""What every door has in front: request ids, and how many requests there are, how they end and how long they take.

Only routes that are declared, and methods that are known, become labels; all else is 'other'.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from prometheus_client import Counter, Gauge, Histogram

from common import request_ids, tracing
from common.asgi import App, Message, Receive, Scope, Send
from common.events import EventLog

REQUESTS = Counter(
    "tabor_http_requests_total",
    "Requests by route, method and class of the status; 'gone' if the client left before the answer began.",
    ["route", "method", "status"],
)
REQUEST_SECONDS = Histogram(
    "tabor_http_request_seconds",
    "Time from a request's headers to the end of its answer.",
    ["route", "method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0),
)
REQUESTS_RUNNING = Gauge("tabor_http_running_requests", "Requests that are being answered now.")

_log = EventLog("http")
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"))
_STATUSES = {0: "gone", 1: "1xx", 2: "2xx", 3: "3xx", 4: "4xx", 5: "5xx"}
_ID = request_ids.HEADER.lower().encode()


class _Counted(NamedTuple):
    """The metrics of one route and method."""

    route: str
    seconds: Histogram
    statuses: dict[int, Counter]


def observed(app: App) -> App:
    """The application with a request id for each request, taken over if the client sent one, and counted."""
    known: dict[tuple[str, str], _Counted] = {}

    def counted(scope: Scope) -> _Counted:
        route = scope.get("route")
        key = "other" if route is None else route.path, scope["method"]
        found = known.get(key)
        if found is None:
            labels = key[0], key[1] if key[1] in _METHODS else "other"
            statuses = {first: REQUESTS.labels(*labels, text) for first, text in _STATUSES.items() if first != 1}
            found = _Counted(labels[0], REQUEST_SECONDS.labels(*labels), statuses)
            if labels == key:
                known[key] = found
        return found

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        started_s = time.perf_counter()
        sent = next((value for name, value in scope["headers"] if name == _ID), None)
        scope[request_ids.SCOPE_KEY] = request_id = request_ids.accepted(sent)
        # Each request has a task, and so a context, of its own.
        request_ids.current.set(request_id)
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (_ID, request_id.encode())]
            await send(message)

        REQUESTS_RUNNING.inc()
        try:
            if tracing.tracer is None:
                await app(scope, receive, sending)
            else:
                with tracing.tracer.served(scope["headers"]) as span:
                    try:
                        await app(scope, receive, sending)
                    finally:
                        about = {"http.request.method": scope["method"], "http.response.status_code": status}
                        route = counted(scope).route
                        span.update_name(f"{scope['method']} {route}")
                        span.set_attributes({**about, "http.route": route, "tabor.request_id": request_id})
        finally:
            REQUESTS_RUNNING.dec()
            metrics, seconds = counted(scope), time.perf_counter() - started_s
            metrics.seconds.observe(seconds)
            metrics.statuses[status // 100].inc()
            _log.debug("request_answered", route=metrics.route, status=status, seconds=round(seconds, 6))

    return answer
