"""The bench of remote read, in small."""

from __future__ import annotations

from bench.bench_remote_read import bench


def test_the_bodies_are_those_of_which_the_figures_speak() -> None:
    assert bench(100, repeat=1) == "2137af5e57227d51"
