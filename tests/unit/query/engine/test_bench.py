"""The benchmark of the engine runs, and computes what it did when its figures were taken."""

from __future__ import annotations

from bench.bench_engine import bench


def test_the_benchmark_computes_what_it_always_did() -> None:
    assert bench(50, repeat=1) == "96cabeb53318aa91"
