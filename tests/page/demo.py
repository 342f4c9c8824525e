"""Made-up metrics of a few services, for the page's tests and screenshots: six hours, the same every time but for
their end."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

STEP_S = 30
HOURS = 6
BOUNDS = ("0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "+Inf")


def openmetrics(end_s: int) -> bytes:
    """OpenMetrics text, its last samples at `end_s`."""
    return "".join([*_requests(end_s), *_durations(end_s), *_gauges(end_s), "# EOF\n"]).encode()


def many(n_series: int, end_s: int) -> bytes:
    """As many series of `busy`, 60 samples each over an hour."""
    rng = random.Random(7)
    lines = ["# TYPE busy gauge\n"]
    for i in range(n_series):
        level = rng.uniform(0, 100)
        for at in range(end_s - 3600, end_s + 1, 60):
            level += rng.gauss(0, 1)
            lines.append(f'busy{{core="{i}"}} {level:.2f} {at}\n')
    return "".join([*lines, "# EOF\n"]).encode()


def _times(end_s: int) -> range:
    return range(end_s - HOURS * 3600, end_s + 1, STEP_S)


def _day(at: int, shift: float) -> float:
    """Between 0 and 1, over some hours."""
    return 0.5 + 0.5 * math.sin(at / 3600 * 1.1 + shift)


def _requests(end_s: int) -> Iterator[str]:
    rng = random.Random(1)
    yield "# TYPE http_requests counter\n# HELP http_requests Requests answered, by status.\n"
    for i, (job, code, rate) in enumerate(
        (job, code, rate * size)
        for job, size in (("shop", 1.0), ("search", 0.7), ("login", 0.3), ("mail", 0.15))
        for code, rate in (("200", 90.0), ("404", 6.0), ("500", 1.2))
    ):
        for instance in ("a:8080", "b:8080"):
            total = 0.0
            for at in _times(end_s):
                total += max(0.0, rate * (0.4 + _day(at, i / 3)) * rng.uniform(0.85, 1.15)) * STEP_S
                yield f'http_requests_total{{job="{job}",instance="{instance}",code="{code}"}} {total:.0f} {at}\n'


def _durations(end_s: int) -> Iterator[str]:
    rng = random.Random(2)
    yield "# TYPE http_request_duration_seconds histogram\n# UNIT http_request_duration_seconds seconds\n"
    yield "# HELP http_request_duration_seconds How long requests took.\n"
    for job in ("shop", "search"):
        counts = [0] * len(BOUNDS)
        total = 0.0
        for at in _times(end_s):
            middle = math.log(0.03 + 0.15 * _day(at, 2.0 if job == "shop" else 0.3) ** 3)
            for _ in range(60):
                took = math.exp(rng.gauss(middle, 0.7))
                total += took
                counts[next(i for i, bound in enumerate(BOUNDS) if took <= float(bound))] += 1
            below = 0
            for bound, count in zip(BOUNDS, counts, strict=True):
                below += count
                yield f'http_request_duration_seconds_bucket{{job="{job}",le="{bound}"}} {below} {at}\n'
            yield f'http_request_duration_seconds_count{{job="{job}"}} {below} {at}\n'
            yield f'http_request_duration_seconds_sum{{job="{job}"}} {total:.3f} {at}\n'


def _gauges(end_s: int) -> Iterator[str]:
    rng = random.Random(3)
    yield "# TYPE node_memory_used_bytes gauge\n# HELP node_memory_used_bytes Memory in use.\n"
    for i in range(6):
        used = rng.uniform(2e9, 9e9)
        for at in _times(end_s):
            used = min(1.5e10, max(1e9, used + rng.gauss(0, 4e7)))
            yield f'node_memory_used_bytes{{node="rack-{i}"}} {used:.0f} {at}\n'
    yield "# TYPE up gauge\n# HELP up Whether the target could be scraped.\n"
    for job in ("shop", "search", "login", "mail"):
        for at in _times(end_s):
            yield f'up{{job="{job}"}} 1 {at}\n'
