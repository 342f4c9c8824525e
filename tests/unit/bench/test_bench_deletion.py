"""The bench of deletions, in small."""

from __future__ import annotations

from bench.bench_deletion import bench


def test_what_is_left_is_what_the_deletions_say() -> None:
    # 100 series × 60 samples, less one series, ten others, and the first ten samples of the rest.
    assert bench(100, 60) == (100 - 1 - 10) * 50
