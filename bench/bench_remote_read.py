"""Remote read: what an answer costs as plain samples (snappy) and as streamed XOR chunks.

    python -m bench.bench_remote_read [--small]

10,000 series × 300 samples, 15 s apart, in memory: a constant, whole numbers, two decimals, any float64. Bytes of
the body, CPU seconds of the process, best of several, and the most memory that the encoding alone takes, as
tracemalloc has it. The last line is a checksum of both kinds of bodies.
"""

from __future__ import annotations

import argparse
import hashlib
import tracemalloc
from collections.abc import Callable

import numpy as np

from bench.bench_json import Columns, cpu_s
from common.store import MAX_TIME_MS, MIN_TIME_MS, Matcher, MatchOp, Selection
from query.engine.budget import Budget
from query.remote_chunks import frames
from query.remote_read import SAMPLES, ReadQuery, ReadRequest, answer

NAMES = ("constant", "integers", "decimals", "floats")
NO_LIMIT = 1 << 60


class Store(Columns):
    """Also with a constant."""

    def __init__(self, n_series: int) -> None:
        super().__init__(n_series)
        found = self._selections["integers"]
        constant = np.full_like(found.values, 42.0)
        self._selections["constant"] = Selection(found.labels, found.offsets, found.timestamps, constant)


def bodies(store: Store, name: str) -> dict[str, Callable[[], list[bytes]]]:
    """What makes the body of each kind, in parts."""
    matchers = (Matcher(MatchOp.EQUAL, "__name__", name),)
    request = ReadRequest((ReadQuery(matchers, MIN_TIME_MS, MAX_TIME_MS),), SAMPLES)
    selection = store.select(matchers, MIN_TIME_MS, MAX_TIME_MS, NO_LIMIT, NO_LIMIT)

    def samples() -> list[bytes]:
        budget = Budget(NO_LIMIT, NO_LIMIT, 3600.0)
        return [bytes(answer(store, request, budget, NO_LIMIT).body)]  # type: ignore[arg-type]

    return {"samples": samples, "chunks": lambda: list(frames(selection, 0))}


def _peak_bytes(name: str, store: Store, kind: str) -> int:
    tracemalloc.start()
    if kind == "samples":
        bodies(store, name)[kind]()
    else:
        # As a stream, of which nothing is kept.
        matchers = (Matcher(MatchOp.EQUAL, "__name__", name),)
        for _ in frames(store.select(matchers, MIN_TIME_MS, MAX_TIME_MS, NO_LIMIT, NO_LIMIT), 0):
            pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def bench(n_series: int, repeat: int = 5) -> str:
    """Measure all; returns a checksum of all bodies."""
    store = Store(n_series)
    checksum = hashlib.blake2b(digest_size=8)
    print(f"{'':<10}{'':<9}{'bytes':>12}{'B/sample':>10}{'CPU':>9}{'memory':>10}")
    for name in NAMES:
        for kind, make in bodies(store, name).items():
            seconds, parts = cpu_s(make, repeat)
            size = sum(map(len, parts))
            n_samples = len(store.select((Matcher(MatchOp.EQUAL, "__name__", name),), 0, 0, 0, 0).timestamps)
            print(
                f"{name:<10}{kind:<9}{size:>12,}{size / n_samples:>10.2f}{seconds:>7.3f} s"
                f"{_peak_bytes(name, store, kind) / 1e6:>7.0f} MB",
                flush=True,
            )
            for part in parts:
                checksum.update(part)
    return checksum.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="100 series instead of 10,000")
    arguments = parser.parse_args()
    print(f"checksum {bench(100 if arguments.small else 10_000)}")


if __name__ == "__main__":
    main()
