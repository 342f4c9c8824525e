"""Watches processes under test as Prometheus does, on a clock of its own, and evaluates alerts over what it saw.

It scrapes real /metrics, and writes what they show into a Tabor as of pretended times, a sample each half minute,
so that an hour of `increase(…[1h])` and every `for` goes by at once. Expressions are those of docs/alerts.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from bench.requests import compress, encode_labels, encode_sample
from tests.processes import Process

ALERTS = Path(__file__).parents[1] / "docs" / "alerts" / "tabor.yml"
CLOCK = "tabor_server_clock_seconds"
MOMENT = "_timestamp_seconds"
"""What names of metrics end with that are moments; 0 is none."""
STEP_S = 30
_CASE_S = 86_400
_UNIT_S = {"s": 1, "m": 60, "h": 3600}

Sample = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule. for_s: how long its expression has to hold."""

    name: str
    expr: str
    for_s: int
    runbook: str


def alerts() -> dict[str, Alert]:
    """Those of docs/alerts/tabor.yml, by name."""
    found = {}
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            for_s = _seconds(rule.get("for", "0s"))
            runbook = rule["annotations"]["runbook_url"]
            found[rule["alert"]] = Alert(rule["alert"], rule["expr"], for_s, runbook)
    return found


def _seconds(text: str) -> int:
    return int(text[:-1]) * _UNIT_S[text[-1]]


class Watcher:
    """One day of pretended time for each case. tabor: where samples go and alerts are evaluated."""

    def __init__(self, tabor: Process, start_s: int) -> None:
        self._tabor = tabor
        self._next_s = start_s

    def case(self, names: Iterable[str], targets: Iterable[Process]) -> Case:
        self._next_s += _CASE_S
        return Case(self._tabor, self._next_s, [alerts()[name] for name in names], list(targets))


class Case:
    """What some targets showed from one time on, as far as some alerts look at it."""

    def __init__(self, tabor: Process, start_s: int, watched: list[Alert], targets: list[Process]) -> None:
        self._tabor = tabor
        self._alerts = watched
        self._targets = targets
        self._names = {name for alert in watched for name in re.findall(r"[a-z_]+", alert.expr)}
        self._now_s = start_s
        self._before: dict[Sample, float] = {}

    def see(self, minutes: int, what: Callable[[str], str] = lambda text: text) -> dict[str, bool]:
        """Scrape now, pretend that it has been so for so long, and say which alerts fire at the end.

        Counters grow evenly from what they were when they were seen last.
        """
        shown: dict[Sample, float] = {}
        counters: set[Sample] = set()
        for target in self._targets:
            self._scrape(target, shown, counters)
        times = [self._now_s + STEP_S * (i + 1) for i in range(minutes * 60 // STEP_S)]
        series = []
        for (name, labels), value in shown.items():
            start = self._before.get((name, labels), 0.0 if self._before else value)
            start = start if (name, labels) in counters and start <= value else value
            moves = int(name == CLOCK or (name.endswith(MOMENT) and value != 0))
            points = (
                encode_sample(start + (value - start) * (i + 1) / len(times) + moves * time_s, 1000 * time_s)
                for i, time_s in enumerate(times)
            )
            series.append(encode_labels({"__name__": name, **dict(labels)}) + b"".join(points))
        status, said = self._tabor.write(compress(series))
        assert status == 204, said
        self._before, self._now_s = shown, times[-1]
        return {alert.name: self._fires(alert) for alert in self._alerts}

    def _scrape(self, target: Process, shown: dict[Sample, float], counters: set[Sample]) -> None:
        about = {"job": "tabor", "instance": target.name}
        up: Sample = ("up", tuple(sorted(about.items())))
        try:
            status, body = target.get("/metrics")
        except OSError:
            status, body = 0, b""
        shown[up] = float(status == 200)
        for family in text_string_to_metric_families(body.decode()):
            for sample in family.samples:
                if sample.name in self._names:
                    key = sample.name, tuple(sorted({**about, **sample.labels}.items()))
                    shown[key] = sample.value
                    if sample.name == CLOCK or (sample.name.endswith(MOMENT) and sample.value):
                        # As far off, all the time, as it is from the clock of who scrapes.
                        shown[key] -= time.time()
                    if family.type in ("counter", "histogram"):
                        counters.add(key)

    def _fires(self, alert: Alert) -> bool:
        """Whether it fires now: it has held at each step for as long as it has to."""
        held = self._query(alert.expr, self._now_s - alert.for_s, self._now_s)
        n_steps = alert.for_s // STEP_S + 1
        return any(len(row["values"]) == n_steps for row in held)

    def _query(self, expr: str, start_s: int, end_s: int) -> list[Any]:
        answer = self._tabor.data("/api/v1/query_range", query=expr, start=start_s, end=end_s, step=STEP_S)
        found: list[Any] = answer["result"]
        return found
