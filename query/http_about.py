"""Prometheus' HTTP API, the part that tells about metrics, expressions and the server."""

from __future__ import annotations

import os
import platform
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from fastapi import Request, Response

from common.errors import CallerError
from common.labels import METRIC_NAME, LabelTable
from common.store import HOUR_MS, MAX_TIME_MS, MIN_TIME_MS, Extent, Metadata, SeriesExemplars, SeriesStore
from query.cardinality import cardinality, churn, label_counts, most
from query.clients import run, run_whole
from query.compression import negotiated
from query.engine.budget import Budget
from query.export import MAX_EXPORTED, exported
from query.federation import federated
from query.json_result import encode_data, sample_text
from query.params import Parameters
from query.promql.json_tree import json_tree
from query.promql.parser import parse
from query.promql.printer import format_expr
from query.responses import ARROW, Answer, respond
from query.selectors import selectors
from query.service import QueryService

T = TypeVar("T")

NOTHING: Mapping[str, object] = {
    "/api/v1/rules": {"groups": []},
    "/api/v1/alerts": {"alerts": []},
    "/api/v1/targets": {"activeTargets": [], "droppedTargets": [], "droppedTargetCounts": {}},
    "/api/v1/targets/metadata": [],
    "/api/v1/scrape_pools": {"scrapePools": []},
    "/api/v1/alertmanagers": {"activeAlertmanagers": [], "droppedAlertmanagers": []},
}
"""What Tabor does not have; Grafana asks for it and takes an empty answer better than none."""

_CONFIG = "# Tabor is configured by flags, and scrapes nothing: see /api/v1/status/flags.\n"
_TOP = 10
CHURN_HOURS = 24
MAX_TOP = 1000
"""Rows of each list that `/api/v1/cardinality` gives at most."""


class About:
    """Handlers. Each takes the parameters and the request."""

    def __init__(self, service: QueryService, version: str) -> None:
        self._service = service
        self._version = version
        self._started_s = time.time()

    async def metadata(self, p: Parameters, request: Request) -> Response:
        limit, per_metric = p.limit(-1), p.limit(-1, "limit_per_metric")
        metric = p.get("metric") or None
        found = await run_whole(self._service, lambda store, _: store.metadata(metric), p, request)
        families = sorted(found) if limit < 0 else sorted(found)[:limit]
        return data({family: _limited(found[family], per_metric) for family in families})

    async def exemplars(self, p: Parameters, request: Request) -> Response:
        start_ms, end_ms = p.time_range()
        sets = [selector.matchers for selector in selectors(parse(p.get("query")))]
        if not sets:
            return data([])
        found = await run_whole(
            self._service, lambda store, _: store.exemplars(sets, start_ms, end_ms), p, request
        )
        return data([_exemplars(one) for one in found])

    async def format_query(self, p: Parameters, request: Request) -> Response:
        return data(format_expr(parse(p.get("query"))))

    async def parse_query(self, p: Parameters, request: Request) -> Response:
        return data(json_tree(parse(p.get("query"))))

    async def federate(self, p: Parameters, request: Request) -> Response:
        sets = p.matcher_sets()
        if not sets:
            raise CallerError("no match[] parameter provided")
        now_ms = time.time_ns() // 1_000_000
        lookback_ms = self._service.config.lookback_ms
        text = await run_whole(
            self._service, lambda store, budget: federated(store, sets, now_ms, lookback_ms, budget), p, request
        )
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def export(self, p: Parameters, request: Request) -> Response:
        sets = p.matcher_sets()
        if len(sets) != 1:
            raise CallerError("one match[] parameter is expected")
        start_ms, end_ms = p.time_range()
        config = self._service.config
        max_samples = min(p.limit(name="max_samples") or MAX_EXPORTED, config.max_samples)
        encoding = negotiated(request.headers.get("accept-encoding", ""))

        def work(store: SeriesStore, budget: Budget) -> Response:
            found = store.select(sets[0], start_ms, end_ms, max_samples, config.max_series)
            answer = Answer(lambda: exported(found), lambda: sys.maxsize, ARROW)
            return respond(answer, config.max_response_bytes, encoding, budget.check)

        return await run_whole(self._service, work, p, request)

    async def buildinfo(self, p: Parameters, request: Request) -> Response:
        # Grafana and others read from the version what the API can do, so it names the Prometheus release
        # whose API this is, and Tabor's own behind the plus sign.
        empty = dict.fromkeys(("revision", "branch", "buildUser", "buildDate", "goVersion"), "")
        return data({"version": f"3.14.0+tabor.{self._version}", **empty})

    async def runtimeinfo(self, p: Parameters, request: Request) -> Response:
        return data(
            {
                "startTime": _moment(self._started_s),
                "CWD": os.getcwd(),  # noqa: PTH109
                "hostname": socket.gethostname(),
                "serverTime": _moment(time.time()),
                "reloadConfigSuccess": True,
                "lastConfigTime": _moment(self._started_s),
                "corruptionCount": 0,
                "goroutineCount": 0,
                "GOMAXPROCS": os.cpu_count() or 1,
                "GOMEMLIMIT": 0,
                "GOGC": "",
                "GODEBUG": "",
                "storageRetention": "",
                "pythonVersion": platform.python_version(),
            }
        )

    async def flags(self, p: Parameters, request: Request) -> Response:
        config = self._service.config
        return data(
            {
                "query-lookback": f"{config.lookback_ms}ms",
                "query-timeout": f"{config.timeout_s:g}s",
                "query-max-concurrency": str(config.max_concurrency),
                "query-max-samples": str(config.max_samples),
                "query-max-series": str(config.max_series),
                "query-max-points": str(config.max_points),
                "query-max-response-bytes": str(config.max_response_bytes),
                "read-consistency": config.consistency,
                "slow-query-threshold": f"{config.slow_query_s:g}s",
                "promql-strict": str(config.promql_strict).lower(),
            }
        )

    async def config(self, p: Parameters, request: Request) -> Response:
        return data({"yaml": _CONFIG})

    async def walreplay(self, p: Parameters, request: Request) -> Response:
        return data({"min": 0, "max": 0, "current": 0, "state": "done"})

    async def cardinality(self, p: Parameters, request: Request) -> Response:
        sets, times, max_series = p.matcher_sets(), p.time_range(), self._service.config.max_series
        limit = min(p.limit() or _TOP, MAX_TOP)

        def work(store: SeriesStore, budget: Budget) -> Response:
            found = cardinality(store.series(sets, *times, max_series), limit)
            last_hour = min(times[1], time.time_ns() // 1_000_000) // HOUR_MS
            since_ms, until_ms = (last_hour - CHURN_HOURS + 1) * HOUR_MS, (last_hour + 1) * HOUR_MS - 1
            found["newSeriesByHour"] = churn(store.births(sets, since_ms, until_ms), last_hour, CHURN_HOURS)
            return data(found, budget.warnings())

        return await run(self._service, work, p, request)

    async def tsdb(self, p: Parameters, request: Request) -> Response:
        limit = p.limit() or _TOP
        return data(
            await run_whole(
                self._service,
                lambda store, _: _statistics(store.series([], MIN_TIME_MS, MAX_TIME_MS), store.extent(), limit),
                p,
                request,
            )
        )


def data(content: object, warnings: Sequence[str] = ()) -> Response:
    """A successful answer."""
    return Response(encode_data(content, warnings), media_type="application/json")


def _limited(known: list[Metadata], limit: int) -> list[dict[str, str]]:
    kept = known if limit < 1 else known[:limit]
    return [{"type": one.type, "unit": one.unit, "help": one.help} for one in kept]


def _exemplars(found: SeriesExemplars) -> dict[str, object]:
    return {
        "seriesLabels": found.labels,
        "exemplars": [
            {"labels": one.labels, "value": sample_text(one.value), "timestamp": one.timestamp_ms / 1000}
            for one in found.exemplars
        ],
    }


def _moment(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _statistics(table: LabelTable, extent: Extent, limit: int) -> object:
    """What Prometheus tells of its head, of all series that are stored."""
    values: dict[str, int] = {}
    sizes: dict[str, int] = {}
    pairs: list[tuple[int, str]] = []
    metrics: list[tuple[int, str]] = []
    for found in label_counts(table):
        texts = [table.pool[code] for code in found.codes.tolist()]
        values[found.name], sizes[found.name] = len(texts), sum(len(text.encode()) for text in texts)
        top = most(found, table, limit)
        pairs += [(count, f"{found.name}={text}") for count, text in top]
        if found.name == METRIC_NAME:
            metrics = top
    return {
        "headStats": {
            "numSeries": len(table),
            "numLabelPairs": sum(values.values()),
            "chunkCount": extent.n_chunks,
            "minTime": extent.min_time_ms,
            "maxTime": extent.max_time_ms,
        },
        "seriesCountByMetricName": _top(metrics, limit),
        "labelValueCountByLabelName": _top([(count, name) for name, count in values.items()], limit),
        "memoryInBytesByLabelName": _top([(size, name) for name, size in sizes.items()], limit),
        "seriesCountByLabelValuePair": _top(pairs, limit),
    }


def _top(rows: list[tuple[int, str]], limit: int) -> list[dict[str, object]]:
    best = sorted(rows, key=lambda row: (-row[0], row[1]))[:limit]
    return [{"name": name, "value": count} for count, name in best]
