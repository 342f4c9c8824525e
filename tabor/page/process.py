"""`GET /api/v1/status/process`: how this process was started, and how close it is to its limits."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from common.version import VERSION
from tabor.settings import Setting

if TYPE_CHECKING:
    from fastapi import APIRouter

    from query.service import QueryService


class Limit(NamedTuple):
    """Something of which there may be only so much. flag: that sets it. used: asked when somebody looks."""

    name: str
    flag: str
    used: Callable[[], float]
    limit: float


def query_limits(queries: QueryService) -> list[Limit]:
    """Of the queries that run and wait just now."""

    def most(member: str) -> float:
        return max((float(one[member]) for one in queries.queries.shown()["queries"]), default=0.0)

    def running() -> float:
        return float(sum(one["state"] != "waiting" for one in queries.queries.shown()["queries"]))

    config = queries.config
    return [
        Limit("queries that run", "query-max-concurrency", running, config.max_concurrency),
        Limit("samples of the largest query", "query-max-samples", lambda: most("samples"), config.max_samples),
        Limit("series of the largest query", "query-max-series", lambda: most("series"), config.max_series),
        Limit("seconds of the longest query", "query-timeout", lambda: most("running_seconds"), config.timeout_s),
    ]


def router(service: str, settings: Sequence[Setting], limits: Sequence[Limit]) -> APIRouter:
    """The route. service: the command that runs."""
    from fastapi import APIRouter

    routes = APIRouter()
    started_s = time.time()

    @routes.get("/api/v1/status/process")
    def process() -> Any:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        found = {
            "service": service,
            "version": VERSION,
            "python": platform.python_version(),
            "started": round(started_s, 3),
            "time": round(time.time(), 3),
            "cores": os.cpu_count() or 1,
            "cpuSeconds": round(usage.ru_utime + usage.ru_stime, 3),
            # Kilobytes on Linux, bytes on macOS.
            "peakMemoryBytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
            "settings": [asdict(one) for one in settings],
            "limits": [
                {"name": one.name, "flag": one.flag, "used": one.used(), "limit": one.limit} for one in limits
            ],
        }
        return {"status": "success", "data": found}

    return routes
