"""The bench of small queries, in small."""

from __future__ import annotations

from bench.bench_small import asked, run
from bench.loads import build


def test_the_bench_runs_in_small_and_every_query_is_answered() -> None:
    load = build("few", 0.08, [])
    assert load is not None
    costs = run(["tabor"], 0.08, 5, None)["tabor"]
    assert costs.keys() == asked(load).keys()
    assert all(cost.ms > 0 for cost in costs.values())
