"""Which queries run, wait and were slow: what `/api/v1/status/queries` shows.

service ─► begin() ─► Running ─► turn(), end() ─► if it was slow: the ring of slow queries and the log
                          ▲ cancel(id)
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common import request_ids
from common.events import EventLog
from query.engine.budget import Budget
from query.metrics import SLOW_QUERIES, STAGE_SECONDS

MAX_TEXT = 2000
"""Characters of a query that are shown and logged."""
MAX_SLOW = 100
"""Slow queries that are remembered."""

_log = EventLog("query")


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks what. text: the expression or the selectors. route: the path as declared. tenant: '' without any.

    stats: what the answer is to say of its costs: '' nothing, 'all' also of each step, else the totals.
    """

    route: str = ""
    text: str = ""
    client: str = ""
    principal: str = ""
    tenant: str = ""
    request_id: str = ""
    stats: str = ""


NOBODY = Asked()
"""Whoever calls within the process."""


@dataclass(slots=True, eq=False)
class Running:
    """One query. stop: ends it when set. started_s: Unix time. runs: whether its turn has come."""

    id: str
    asked: Asked
    budget: Budget
    stop: threading.Event
    started_s: float
    runs: bool = False
    cancelled: bool = False

    def running_s(self) -> float:
        """Since it arrived."""
        return time.monotonic() - self.budget.stages.started_s

    def shown(self) -> dict[str, Any]:
        """As JSON."""
        asked = self.asked
        return {
            "id": self.id,
            "route": asked.route,
            "query": shortened(asked.text),
            "state": "cancelled" if self.cancelled else "running" if self.runs else "waiting",
            "start": round(self.started_s, 3),
            "running_seconds": round(self.running_s(), 6),
            "samples": self.budget.samples,
            "series": self.budget.series,
            "client": asked.client,
            "principal": asked.principal,
            "tenant": asked.tenant,
            "request_id": asked.request_id,
        }


class Queries:
    """All of one server. Any thread may call. slow_s: from when on a query is slow."""

    def __init__(self, slow_s: float) -> None:
        self._slow_s = slow_s
        self._lock = threading.Lock()
        self._running: dict[str, Running] = {}
        self._slow: deque[dict[str, Any]] = deque(maxlen=MAX_SLOW)

    def begin(self, asked: Asked, budget: Budget, stop: threading.Event) -> Running:
        """A query has arrived and waits. stop: ends it when set, one of the ends of its budget."""
        running = Running(request_ids.new(), asked, budget, stop, time.time())
        with self._lock:
            self._running[running.id] = running
        return running

    def cancel(self, id_: str, by: str, tenants: Sequence[str] | None = None) -> bool:
        """End a query; False if there is none of this id and these tenants. It stops at its next step."""
        with self._lock:
            running = self._running.get(id_)
        if running is None or not _is_of(running.asked.tenant, tenants):
            return False
        running.cancelled = True
        running.budget.stop_reason = "the query was cancelled by an operator (DELETE /api/v1/status/queries/<id>)"
        running.stop.set()
        fields = {"query_id": id_, "query": shortened(running.asked.text), "by": by}
        _log.warning("query_cancelled", **fields, request_id=running.asked.request_id)
        return True

    def end(self, running: Running, error: BaseException | None) -> None:
        """A query has ended, in whatever way."""
        with self._lock:
            self._running.pop(running.id, None)
        stages = running.budget.stages
        for stage, seconds in stages.seconds.items():
            STAGE_SECONDS[stage].observe(seconds)
        if running.running_s() < self._slow_s:
            return
        SLOW_QUERIES.inc()
        slow = running.shown()
        del slow["state"]
        slow["outcome"] = "answered" if error is None else type(error).__name__
        slow["stages"] = rounded(stages.seconds)
        with self._lock:
            self._slow.appendleft(slow)
        _log.warning("slow_query", **{("query_id" if key == "id" else key): value for key, value in slow.items()})

    def shown(self, tenants: Sequence[str] | None = None) -> dict[str, Any]:
        """All of these tenants that run and wait, the oldest first, and that were slow, the latest first."""
        with self._lock:
            running, slow = list(self._running.values()), list(self._slow)
        running = sorted(
            (one for one in running if _is_of(one.asked.tenant, tenants)), key=lambda one: one.started_s
        )
        return {
            "queries": [one.shown() for one in running],
            "slow": [one for one in slow if _is_of(one["tenant"], tenants)],
            "slow_threshold_seconds": self._slow_s,
        }


def _is_of(tenant: str, tenants: Sequence[str] | None) -> bool:
    """Whether a query reads nothing but of these tenants; None stands for all."""
    return tenants is None or set(tenant.split("|")) <= set(tenants)


def shortened(text: str) -> str:
    """A query's text as far as it is shown and logged."""
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    """Microseconds are enough."""
    return {name: round(value, 6) for name, value in seconds.items()}
