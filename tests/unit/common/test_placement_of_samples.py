"""How 100,000 samples spread over nodes, and what moves when nodes come and go; `pytest -s` shows the figures."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
from numpy.typing import NDArray

from common.placement import arrivals, assign, capacity
from tabor.placement import (
    Cluster,
    Step,
    displacement_lines,
    distribution_lines,
    fresh_cluster,
    samples_by_n_nodes,
    samples_moved,
    samples_of_members,
    samples_of_partitions,
    step_of,
)

N_SAMPLES = 100_000
# The figures of Timbala's placement, for as many samples, 3 replicas and 19 nodes.
TIMBALA_STANDARD_DEVIATION = 321
TIMBALA_MOVED_19_TO_20 = 15_825
TIMBALA_MOVED_19_TO_18 = 16_497


@pytest.fixture(scope="module", params=[1024, 4096, 16_384])
def samples(request: pytest.FixtureRequest) -> NDArray[np.int64]:
    """Samples of each partition."""
    return samples_of_partitions(N_SAMPLES, request.param)


def show(lines: object) -> None:
    print(*lines, sep="\n")  # type: ignore[misc]


@pytest.mark.parametrize("n_replicas", [1, 3])
@pytest.mark.parametrize("n_nodes", [1, 3, 5, 19])
def test_samples_spread_evenly_and_each_is_on_as_many_nodes_as_there_are_replicas(
    samples: NDArray[np.int64], n_nodes: int, n_replicas: int
) -> None:
    cluster = fresh_cluster(len(samples), n_replicas, n_nodes)
    show(distribution_lines(cluster, samples))
    held = samples_of_members(cluster, samples)
    by_n_nodes = samples_by_n_nodes(cluster, samples)
    n = min(n_replicas, n_nodes)
    assert held.sum() == n * N_SAMPLES
    assert by_n_nodes[n] == by_n_nodes.sum() == N_SAMPLES
    # One replica of 1024 partitions on 19 nodes is the least even: 54 partitions a node, 98 samples each.
    assert held.std() < 0.025 * held.mean()
    if (n_nodes, n_replicas) == (19, 3):
        assert held.std() < TIMBALA_STANDARD_DEVIATION


def test_a_twentieth_node_and_the_leave_of_the_nineteenth_move_less_than_timbala_did(
    samples: NDArray[np.int64],
) -> None:
    cluster = fresh_cluster(len(samples), 3, 19)
    joins = step_of("node 19 joins", cluster, cluster.joined(), samples)
    leaves = step_of("node 18 leaves", cluster, cluster.left(18), samples)
    show(displacement_lines([joins, leaves]))
    assert joins.moved < TIMBALA_MOVED_19_TO_20 < joins.bound == pytest.approx(20_000)
    assert leaves.moved < TIMBALA_MOVED_19_TO_18 < leaves.bound == pytest.approx(22_222, abs=1)


@pytest.mark.parametrize("n_replicas", [1, 3])
def test_any_one_of_nineteen_nodes_leaves_and_only_its_share_moves(
    samples: NDArray[np.int64], n_replicas: int
) -> None:
    cluster = fresh_cluster(len(samples), n_replicas, 19)
    steps = [step_of(f"node {node} leaves", cluster, cluster.left(node), samples) for node in range(19)]
    show(displacement_lines(steps))
    assert all(step.moved == step.ideal for step in steps)


@pytest.mark.parametrize("gone", range(19))
def test_a_node_is_replaced_and_little_more_than_the_shares_of_the_two_moves(gone: int) -> None:
    samples = samples_of_partitions(N_SAMPLES, 1024)
    before = fresh_cluster(1024, 3, 19)
    without = before.left(gone)
    after = without.joined()
    steps = [
        step_of(f"node {gone} leaves", before, without, samples),
        step_of("node 19 joins", without, after, samples),
        Step("both at once", samples_moved(before, after, samples), 2 * 3 * N_SAMPLES / 19, 0),
    ]
    show(displacement_lines(steps))
    assert steps[2].moved < 1.05 * steps[2].ideal
    # Of partitions that neither of the two holds, next to nothing moves.
    others = (before.placed != gone).all(axis=1) & (after.placed != 19).all(axis=1)
    assert arrivals(before.placed, after.placed)[others].sum() <= 0.01 * 3 * 1024 / 19


@pytest.mark.parametrize("seed", range(5))
def test_many_leave_in_any_order_and_as_many_join_again_and_no_step_moves_much_more_than_its_share(
    seed: int,
) -> None:
    samples = samples_of_partitions(N_SAMPLES, 1024)
    cluster = fresh_cluster(1024, 3, 19)
    steps = []
    for node in random.Random(seed).sample(range(19), 14):
        before, cluster = cluster, cluster.left(node)
        steps.append(checked_step(f"node {node} leaves", before, cluster, samples))
    for _ in range(14):
        before, cluster = cluster, cluster.joined()
        steps.append(checked_step(f"node {before.n_ordinals} joins", before, cluster, samples))
    show(displacement_lines(steps))
    assert all(step.moved < 1.2 * step.ideal for step in steps)
    assert sum(step.moved for step in steps) < 1.08 * sum(step.ideal for step in steps)


def test_all_nodes_are_replaced_one_after_the_other_twice_and_steps_stay_near_their_shares() -> None:
    samples = samples_of_partitions(N_SAMPLES, 1024)
    cluster = fresh_cluster(1024, 3, 19)
    steps = []
    for node in range(38):
        for change in (f"node {node} leaves", f"node {node + 19} joins"):
            before = cluster
            cluster = cluster.left(node) if "leaves" in change else cluster.joined()
            steps.append(checked_step(change, before, cluster, samples))
    show(displacement_lines(steps))
    assert all(step.moved < 1.3 * step.ideal for step in steps)
    assert sum(step.moved for step in steps) < 1.15 * sum(step.ideal for step in steps)


def checked_step(change: str, before: Cluster, after: Cluster, samples: NDArray[np.int64]) -> Step:
    """The step, if all samples are on three nodes afterwards and no node holds more than it may."""
    assert samples_by_n_nodes(after, samples)[3] == N_SAMPLES
    slots = np.bincount(after.placed.ravel())[list(after.members)]
    assert slots.max() <= capacity(len(samples), 3, len(after.members))
    return step_of(change, before, after, samples)


def test_the_nodes_of_a_partition_are_first_choice_about_equally_often() -> None:
    firsts = np.bincount(assign(1024, 3, range(19), 19)[:, 0])
    assert firsts.min() > 0.7 * 1024 / 19
    assert firsts.max() < 1.3 * 1024 / 19


def test_what_is_shown_says_what_was_measured() -> None:
    samples = np.array([5, 0, 2, 3], dtype=np.int64)
    cluster = Cluster((0, 2), 3, np.array([[0, 2], [2, 0], [0, -1], [2, -1]], dtype=np.int32))
    lines = list(distribution_lines(cluster, samples))
    assert lines[0] == "Samples on each node: 10 samples, 2 replicas, 4 partitions, 2 nodes"
    assert re.match(r" +0 +7 █+$", lines[1])
    assert re.match(r" +2 +8 █+$", lines[2])
    assert lines[1].count("█") == round(lines[2].count("█") * 7 / 8)
    assert "min 7  max 8  mean 7.5  median 7.5  standard deviation 0.5 (6.67 % of the mean)" in lines[3]
    assert "3 to 3" in lines[4]
    assert [line.split() for line in lines[6:]] == [
        ["0", "0", "0.00", "%"],
        ["1", "5", "50.00", "%"],
        ["2", "5", "50.00", "%"],
    ]
