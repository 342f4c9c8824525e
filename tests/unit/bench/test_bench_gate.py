"""The cost of the gate, in small."""

from __future__ import annotations

from bench.bench_gate import bench


def test_the_gate_costs_far_less_than_a_request() -> None:
    cost_us = bench(200)
    assert cost_us["without a gate"] < cost_us["token"] < 500
    assert cost_us["password"] < 500
