"""The comparison of placements in small."""

from __future__ import annotations

from bench.bench_placement import bench


def test_quotas_are_more_even_than_probes_and_move_no_more() -> None:
    found = bench(128)
    for slack in (5, 2, 1):
        probes, quotas = found["probes", slack], found["quotas", slack]
        assert quotas.spread_fresh < probes.spread_fresh
        assert quotas.joins <= 1 <= probes.joins
        assert quotas.worst_single < probes.worst_single
        assert quotas.unplaced == 0
