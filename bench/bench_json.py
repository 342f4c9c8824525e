"""Large answers: what a matrix costs to compute, as JSON and as an Arrow stream.

    python -m bench.bench_json [--small] [--http]

10,000 series × 300 steps, of 300 samples each, in memory: integers, numbers of two decimals, any float64, and the
rates of the second. CPU seconds of the whole process, best of several, so that what others do on the machine
counts less. The last line is a checksum of the JSON. With --http it is `bench.bench_json_http` that runs.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from bench import bench_json_http
from bench.servers import SERVERS, available
from common.labels import LabelTable
from common.store import Matcher, Selection
from query.arrow_stream import encode_result as encode_arrow
from query.engine.engine import Engine, EngineConfig
from query.json_result import encode_result as encode_json

INTERVAL_MS, N_SAMPLES = 15_000, 300
START_MS = 1_790_000_000_123
QUERIES = ("integers", "decimals", "floats", "rate(decimals[5m])", "sum by (job) (rate(decimals[5m]))")

T = TypeVar("T")


class Columns:
    """A store with `n_series` series of each of three names."""

    def __init__(self, n_series: int) -> None:
        self._selections = {}
        random = np.random.default_rng(7)
        steps = random.integers(0, 5000, (n_series, N_SAMPLES))
        for name, values in (
            ("integers", np.cumsum(steps, axis=1).astype(np.float64)),
            ("decimals", np.cumsum(steps, axis=1) / 100),
            ("floats", random.random((n_series, N_SAMPLES))),
        ):
            label_sets = [
                {"__name__": name, "instance": f"10.0.0.{i}:9100", "job": f"job-{i % 10}"} for i in range(n_series)
            ]
            self._selections[name] = Selection(
                LabelTable.of(label_sets),
                np.arange(n_series + 1, dtype=np.int64) * N_SAMPLES,
                np.tile(START_MS + np.arange(N_SAMPLES, dtype=np.int64) * INTERVAL_MS, n_series),
                np.ascontiguousarray(values).ravel(),
            )

    def select(
        self, matchers: Sequence[Matcher], min_time_ms: int, max_time_ms: int, max_samples: int, max_series: int
    ) -> Selection:
        """All samples of the name that is asked for."""
        return self._selections[matchers[0].value]


def cpu_s(work: Callable[[], T], repeat: int) -> tuple[float, T]:
    times = []
    for _ in range(repeat):
        start = time.process_time()
        result = work()
        times.append(time.process_time() - start)
    return min(times), result


def _size(chunks: Iterable[bytes]) -> int:
    return sum(map(len, chunks))


def bench(n_series: int, repeat: int = 3) -> str:
    """Measure all queries; returns a checksum of their JSON."""
    engine = Engine(Columns(n_series), EngineConfig())  # type: ignore[arg-type]
    checksum = hashlib.blake2b(digest_size=8)
    end_ms = START_MS + (N_SAMPLES - 1) * INTERVAL_MS
    print(f"{'':<36}{'compute':>9}{'JSON':>9}{'':>8}{'Arrow':>9}")
    for query in QUERIES:
        computing, result = cpu_s(lambda query=query: engine.range(query, START_MS, end_ms, INTERVAL_MS), repeat)
        writing, n_bytes = cpu_s(lambda result=result: _size(encode_json(result)), repeat)
        arrow, _ = cpu_s(lambda result=result: _size(encode_arrow(result)), repeat)
        print(
            f"{query:<36}{computing:>7.3f} s{writing:>7.3f} s{n_bytes / 1e6:>5.0f} MB{arrow:>7.3f} s", flush=True
        )
        for chunk in encode_json(result):
            checksum.update(chunk)
    return checksum.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="100 series instead of 10,000")
    parser.add_argument("--http", action="store_true", help="over HTTP, from servers that are started for it")
    arguments = parser.parse_args()
    if arguments.http:
        servers = [name for name in SERVERS if available(name)]
        print(f"checksum {bench_json_http.bench(100 if arguments.small else 10_000, 9, servers)}")
        return
    print(f"checksum {bench(100 if arguments.small else 10_000)}")


if __name__ == "__main__":
    main()
