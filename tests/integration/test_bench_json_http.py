"""The bench of large answers over HTTP, in small."""

from __future__ import annotations

from bench.bench_json_http import bench


def test_the_bench_runs_in_small_and_gets_what_it_should() -> None:
    assert bench(20, rounds=1) == "13dd99722fdb3c02"
