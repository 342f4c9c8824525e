"""The query engine on samples in memory: 10,000 series × 1,440 samples, 301 steps.

    python -m bench.bench_engine [--small]

Each figure is the best of several runs of a whole query, the sorted answer included, storage and JSON not.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Sequence

import numpy as np

from common.labels import LabelTable, StringPool
from common.store import Matcher, Selection
from query.engine.engine import Engine, EngineConfig, QueryResult
from query.engine.values import Vector

INTERVAL_MS, STEP_MS, N_STEPS, N_SAMPLES = 15_000, 60_000, 301, 1_440
QUERIES = (
    "m",
    "sum(m)",
    "sum by (job) (m)",
    "avg by (job) (m)",
    "stddev by (job) (m)",
    "max by (instance) (m)",
    "quantile by (job) (0.9, m)",
    "topk(10, m)",
    "topk by (job) (10, m)",
    'count_values("v", m > bool 0.5)',
    "m * 2",
    "m + m",
    "m > m offset 1m",
    "m / on (job) group_left sum by (job) (m)",
    "m and m offset 1m",
    "m or m offset 1m",
    "sum by (job) (rate(m[5m]))",
    "max_over_time(sum by (job) (m)[10m:1m])",
)


class Columns:
    """A store that answers every selector with the same series."""

    def __init__(self, n_series: int) -> None:
        label_sets = [
            {"__name__": "m", "instance": f"10.0.0.{i}:9100", "job": f"job-{i % 10}", "mode": f"mode-{i % 7}"}
            for i in range(n_series)
        ]
        self._selection = Selection(
            LabelTable.of(label_sets, StringPool()),
            np.arange(n_series + 1, dtype=np.int64) * N_SAMPLES,
            np.tile(np.arange(N_SAMPLES, dtype=np.int64) * INTERVAL_MS, n_series),
            np.random.default_rng(7).random(n_series * N_SAMPLES),
        )

    def select(
        self, matchers: Sequence[Matcher], min_time_ms: int, max_time_ms: int, max_samples: int, max_series: int
    ) -> Selection:
        return self._selection


def digest(result: QueryResult) -> bytes:
    """Of which cells there are, which does not depend on rounding."""
    assert isinstance(result.value, Vector)
    return repr((len(result.value.labels), int(result.value.present.sum()))).encode()


def bench(n_series: int, repeat: int = 5) -> str:
    """Run all queries; returns a checksum of the answers' shapes."""
    engine = Engine(Columns(n_series), EngineConfig())  # type: ignore[arg-type]
    checksum = hashlib.blake2b(digest_size=8)
    start_ms = 3_600_000
    for query in QUERIES:
        times = []
        for _ in range(repeat):
            start = time.perf_counter()
            result = engine.range(query, start_ms, start_ms + (N_STEPS - 1) * STEP_MS, STEP_MS)
            times.append(time.perf_counter() - start)
        checksum.update(digest(result))
        print(f"{query:<52}{1000 * min(times):>10.1f} ms", flush=True)
    return checksum.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="100 series instead of 10,000")
    arguments = parser.parse_args()
    print(f"checksum {bench(100 if arguments.small else 10_000)}")


if __name__ == "__main__":
    main()
