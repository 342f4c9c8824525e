"""Many nodes that come, go, crash, lose their disks and hear of each other late; more: `--runs` of this file."""

from __future__ import annotations

import sys

import pytest

from tests.simulation.cluster import ClusterSim

STEPS = 300


def run(seed: int) -> ClusterSim:
    """A run, which ends at rest."""
    sim = ClusterSim(seed, n_nodes=3 + seed % 5, n_partitions=4 + seed % 13)
    for _ in range(STEPS):
        sim.step()
    sim.settle()
    return sim


@pytest.mark.parametrize("seed", range(12))
def test_no_read_is_wrong_no_copy_is_given_up_too_early_and_everything_comes_to_rest(seed: int) -> None:
    sim = run(seed)
    assert sim.answered > 0, "queries were answered too"


if __name__ == "__main__":
    first, count = (int(argument) for argument in sys.argv[1:3])
    answered = failed = 0
    for seed in range(first, first + count):
        try:
            sim = run(seed)
        except AssertionError:
            print(f"seed {seed} fails: python -m tests.simulation.test_cluster {seed} 1")
            raise
        answered, failed = answered + sim.answered, failed + sim.failed
    print(f"{count} runs, {answered} queries answered, {failed} not")
