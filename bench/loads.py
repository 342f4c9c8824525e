"""The loads: what is sent, in which order, and what the queries may ask about it.

All times end in 0 ms, all queries in 7 ms, so that no sample lies on the edge of a window: Prometheus took ranges
as closed up to 2.x and as open on the left since.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.requests import Request, Template, encode_labels, recorded

START_MS = 1_790_000_000_000
STEP_MS = 15_000
PER_REQUEST = 10_000
"""Samples of a request, as vmagent cuts them; Prometheus sends 500 to 2,000, see the recorded load."""
METRICS = 100
EDGE_MS = 7
HOUR_MS = 3_600_000

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Load:
    """A load. n_series counts all series that there ever were; queries_of names the set in `bench.queries`.

    start_ms and end_ms are what queries take as the range of times. newest_ms: no sample is later.
    """

    name: str
    requests: list[Request]
    n_series: int
    start_ms: int
    end_ms: int
    probe: str
    probe_ms: int
    queries_of: str
    newest_ms: int

    @property
    def n_samples(self) -> int:
        return sum(request.n_samples for request in self.requests)


def build(name: str, scale: float, recordings: Sequence[Path]) -> Load | None:
    """A load by its name; None if it needs a recording and there is none."""
    if name == "recorded":
        return _recorded(recordings) if recordings else None
    return LOADS[name](scale)


def _recorded(paths: Sequence[Path]) -> Load:
    load = recorded(paths)
    end_ms = load.end_ms // 1000 * 1000 - 1000 + load.free_ms
    start_ms = load.start_ms // 1000 * 1000 + 1000 + load.free_ms
    return Load(
        "recorded", load.requests, load.n_series, start_ms, end_ms, "count(up)", end_ms, "recorded", load.end_ms
    )


def app_labels(i: int) -> bytes:
    """Series i of a fleet, a hundred on each instance: two histograms, 40 of one metric, 40 metrics."""
    instance, metric = divmod(i, METRICS)
    labels = {
        "instance": f"host-{instance:05d}.example.net:9100",
        "job": f"job-{instance % 20}",
        "dc": f"dc-{instance % 3}",
        "env": "production",
    }
    if metric < 20:
        bound = metric % 10
        labels["__name__"] = "app_request_seconds_bucket"
        labels["path"] = "/read" if metric < 10 else "/write"
        labels["le"] = "+Inf" if bound == 9 else f"{0.001 * 2**bound:g}"
    elif metric < 60:
        labels["__name__"] = "app_requests_total"
        labels["route"] = f"/v1/{('users', 'orders', 'items', 'carts')[metric % 4]}"
        labels["code"] = str(200 + (metric - 20) // 4)
    else:
        labels["__name__"] = f"app_metric_{metric:03d}_total"
    return encode_labels(labels)


class Fleet:
    """Counters with two decimals: step after step, all series; each instance at its own phase of the step."""

    def __init__(self, n_series: int, seed: int = 1) -> None:
        self._random = np.random.default_rng(seed)
        ids = np.arange(n_series)
        # Two decimals exist as numbers of hundredths: sums of them stay exact.
        self.hundredths = self._random.integers(20_000_000, 100_000_000, n_series)
        self._bucket = np.where(ids % METRICS < 20, ids % 10, 0)
        self._is_bucket = ids % METRICS < 20
        # Far from zero, where releases of Prometheus extrapolate differently.
        first = self._random.integers(50_000_000, 100_000_000, int(self._is_bucket.sum()))
        self.hundredths[self._is_bucket] = np.cumsum(first.reshape(-1, 10), axis=1).reshape(-1)
        self.phases = ids // METRICS * 970 % STEP_MS
        self.labels = [app_labels(i) for i in range(n_series)]

    def advance(self) -> NDArray[np.float64]:
        """Values of the next step."""
        grown = self._random.integers(0, 10_000, len(self.hundredths))
        # Cumulative buckets: each has what the one below has, and more.
        bucket = self._is_bucket
        grown[bucket] = np.cumsum(grown[bucket].reshape(-1, 10), axis=1).reshape(-1)
        self.hundredths += grown
        return self.hundredths / 100.0


def _whole(n: float, unit: int = METRICS) -> int:
    """A scaled number of series, in whole instances."""
    return max(1, round(n / unit)) * unit


def _templates(
    labels: Sequence[bytes], n: int = 1, per_request: int = PER_REQUEST
) -> list[tuple[slice, Template]]:
    size = max(1, per_request // n)
    return [
        (slice(at, min(at + size, len(labels))), Template(labels[at : at + size], n))
        for at in range(0, len(labels), size)
    ]


def requests_of(fleet: Fleet, first_step: int, n_steps: int) -> list[Request]:
    """The next steps of all series, of which the first one has this number."""
    templates = _templates(fleet.labels)
    requests = []
    for step in range(first_step, first_step + n_steps):
        values, times = fleet.advance(), START_MS + step * STEP_MS + fleet.phases
        requests += [template.fill(values[rows], times[rows]) for rows, template in templates]
    return requests


def _fleet_load(name: str, n_series: int, n_steps: int, queries_of: str) -> Load:
    return _finish(name, requests_of(Fleet(n_series), 0, n_steps), n_series, n_steps, queries_of)


def _finish(name: str, requests: list[Request], n_series: int, n_steps: int, queries_of: str = "fleet") -> Load:
    end_ms = START_MS + n_steps * STEP_MS + EDGE_MS
    probe = "count(app_metric_060_total)"
    return Load(name, requests, n_series, START_MS + EDGE_MS, end_ms, probe, end_ms, queries_of, end_ms)


def counters(scale: float) -> Load:
    """10,000 counters × 1,440 steps: six hours."""
    return _fleet_load("counters", _whole(10_000 * scale), max(40, round(1_440 * min(1.0, scale * 4))), "engine")


def active(scale: float) -> Load:
    """500,000 series × 20 steps: five minutes."""
    return _fleet_load("active", _whole(500_000 * scale), 20, "high-cardinality")


def few(scale: float) -> Load:
    """10,000 series × 500 steps, to compare with `many`."""
    return _fleet_load("few", _whole(10_000 * scale), max(20, round(500 * scale)), "growth")


def many(scale: float) -> Load:
    """1,000,000 series × 5 steps; as many samples as `few`."""
    return _fleet_load("many", _whole(1_000_000 * scale), 5, "growth")


def churn(scale: float) -> Load:
    """20,000 active series × 200 steps; every 10 steps a tenth of the instances give way to new ones."""
    n_active, n_steps = _whole(20_000 * scale), max(40, round(200 * min(1.0, 4 * scale)))
    n_instances = n_active // METRICS
    gone = max(1, n_instances // 10)
    waves = (n_steps - 1) // 10
    fleet = Fleet((n_instances + waves * gone) * METRICS)
    requests = []
    for step in range(n_steps):
        first = step // 10 * gone * METRICS
        rows = slice(first, first + n_active)
        if step % 10 == 0:
            templates = _templates(fleet.labels[rows])
        values, times = fleet.advance()[rows], (START_MS + step * STEP_MS + fleet.phases)[rows]
        requests += [template.fill(values[part], times[part]) for part, template in templates]
    return _finish("churn", requests, len(fleet.labels), n_steps, "high-cardinality")


def out_of_order(scale: float) -> Load:
    """10,000 series × 400 steps; 5 % of the samples come up to an hour late."""
    n_series, n_steps = _whole(10_000 * scale), max(40, round(400 * min(1.0, 4 * scale)))
    fleet = Fleet(n_series)
    random = np.random.default_rng(2)
    labels = fleet.labels
    late: dict[int, list[tuple[Rows, NDArray[np.float64], Rows]]] = {}
    requests = []
    for step in range(n_steps):
        values, times = fleet.advance(), START_MS + step * STEP_MS + fleet.phases
        delays = np.where(random.random(n_series) < 0.05, random.integers(1, HOUR_MS // STEP_MS, n_series), 0)
        delays = np.minimum(delays, n_steps - step)
        for delay in np.unique(delays[delays > 0]).tolist():
            rows = np.flatnonzero(delays == delay)
            late.setdefault(step + delay, []).append((rows, values[rows], times[rows]))
        now = np.flatnonzero(delays == 0)
        for rows, row_values, row_times in [(now, values[now], times[now]), *_together(late.pop(step, []))]:
            requests += _ragged(labels, rows, row_values, row_times)
    for rows, row_values, row_times in _together(late.pop(n_steps, [])):
        requests += _ragged(labels, rows, row_values, row_times)
    assert not late
    return _finish("out-of-order", requests, n_series, n_steps)


def _together(
    parts: list[tuple[Rows, NDArray[np.float64], Rows]],
) -> list[tuple[Rows, NDArray[np.float64], Rows]]:
    if not parts:
        return []
    rows, values, times = (np.concatenate(column) for column in zip(*parts, strict=True))
    return [(rows, values, times)]


def _ragged(labels: Sequence[bytes], rows: Rows, values: NDArray[np.float64], times: Rows) -> list[Request]:
    """Requests of one sample each of some series."""
    return [
        template.fill(values[part], times[part])
        for part, template in _templates([labels[row] for row in rows.tolist()])
    ]


def backfill(scale: float) -> Load:
    """5,000 live series × 20 steps, then six hours of each from thirty days before, 100 at a time."""
    n_series, n_steps, n_each = _whole(5_000 * scale), max(100, round(1_440 * min(1.0, 4 * scale))), 100
    fleet = Fleet(n_series)
    templates = _templates(fleet.labels)
    requests = []
    for step in range(20):
        values, times = fleet.advance(), START_MS + step * STEP_MS + fleet.phases
        requests += [template.fill(values[rows], times[rows]) for rows, template in templates]
    past = Fleet(n_series, seed=3)
    past_ms = START_MS - 30 * 24 * HOUR_MS
    templates = _templates(fleet.labels, n_each)
    for first in range(0, n_steps, n_each):
        steps = np.arange(first, min(first + n_each, n_steps))
        if len(steps) < n_each:
            templates = _templates(fleet.labels, len(steps))
        values = np.stack([past.advance() for _ in steps], axis=1)
        times = past_ms + steps * STEP_MS + fleet.phases[:, None]
        requests += [template.fill(values[rows], times[rows]) for rows, template in templates]
    end_ms = past_ms + n_steps * STEP_MS + EDGE_MS
    probe = "count(app_metric_060_total)"
    newest_ms = START_MS + 20 * STEP_MS
    return Load("back-fill", requests, n_series, past_ms + EDGE_MS, end_ms, probe, end_ms, "fleet", newest_ms)


CPU_FIELDS = ("user", "system", "idle", "nice", "iowait", "irq", "softirq", "steal", "guest", "guest_nice")
_REGIONS = ("us-east-1", "us-west-1", "us-west-2", "eu-west-1", "eu-central-1", "sa-east-1")


def devops(scale: float) -> Load:
    """TSBS' devops cpu measurement: 400 hosts × 10 fields, every 10 s for three hours; whole percents."""
    n_hosts, n_steps = max(8, round(400 * scale)), max(120, round(1_080 * min(1.0, 4 * scale)))
    labels = [
        encode_labels(
            {
                "__name__": "cpu_usage",
                "field": name,
                "hostname": f"host_{host}",
                "region": _REGIONS[host % len(_REGIONS)],
                "rack": str(host * 7 % 100),
                "os": "Ubuntu16.10" if host % 2 else "Ubuntu15.10",
                "arch": "x64" if host % 3 else "x86",
                "team": "NYC",
                "service": str(host % 20),
            }
        )
        for host in range(n_hosts)
        for name in CPU_FIELDS
    ]
    random = np.random.default_rng(4)
    walk = random.random(len(labels)) * 100.0
    templates = _templates(labels)
    requests = []
    for step in range(n_steps):
        walk = np.clip(walk + random.normal(0.0, 1.0, len(walk)), 0.0, 100.0)
        times = np.full(len(labels), START_MS + step * 10_000)
        requests += [template.fill(np.trunc(walk)[rows], times[rows]) for rows, template in templates]
    end_ms = START_MS + (n_steps - 1) * 10_000 + EDGE_MS
    probe = 'count(cpu_usage{field="user"})'
    return Load("devops", requests, len(labels), START_MS + EDGE_MS, end_ms, probe, end_ms, "devops", end_ms)


LOADS: dict[str, Callable[[float], Load]] = {
    "counters": counters,
    "active": active,
    "churn": churn,
    "out-of-order": out_of_order,
    "back-fill": backfill,
    "devops": devops,
    "few": few,
    "many": many,
}
NAMES = ("recorded", *LOADS)
