"""The benchmark of large answers runs, and writes what it did when its figures were taken."""

from __future__ import annotations

from bench.bench_json import bench


def test_the_benchmark_writes_what_it_always_did() -> None:
    assert bench(20, repeat=1) == "04273f74f594fba1"
