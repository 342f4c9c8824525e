"""Simulation: whatever happens to Tabor's machines, what was acknowledged is there, once, on every replica."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.world import World

FRESH_RUNS = 20
_SEEDS = Path(__file__).with_name("seeds.txt")
_ROOT = Path(__file__).parents[2]

CRASH_POINTS = [
    "start:log.bounds",
    "start:disk.open",
    "start:disk.read",
    "start:disk.write",
    "start:disk.written",
    "start:disk.flush",
    "start:disk.flushed",
    "apply:log.poll",
    "apply:log.polled",
    "apply:disk.read",
    "apply:disk.write",
    "apply:disk.written",
    "apply:disk.flush",
    "apply:disk.flushed",
    "apply:disk.compact",
    "merge:disk.read",
    "merge:disk.write",
    "merge:disk.written",
    "read:disk.read",
    "stop:disk.write",
    "stop:disk.written",
    "stop:disk.flush",
    "stop:disk.flushed",
    "replay:log.polled",
    "replay:disk.write",
    "replay:disk.flushed",
    "replay:rename.views.rebuild.views.ready",
    "replay:renamed.views.rebuild.views.ready",
    "replay:rename.views.views.old",
    "replay:renamed.views.views.old",
    "replay:rename.views.ready.views",
    "replay:renamed.views.ready.views",
    "replay:remove.views.old",
    "replay:removing.views.old",
    "replay:removed.views.old",
]


def kept_seeds() -> list[int]:
    lines = (line.split("#")[0].strip() for line in _SEEDS.read_text().splitlines())
    return [int(line) for line in lines if line]


def test_nothing_that_was_acknowledged_is_lost_or_doubled_in_fresh_runs() -> None:
    first = random.SystemRandom().randrange(1 << 32)
    print(f"seeds {first} to {first + FRESH_RUNS - 1}")
    for seed in range(first, first + FRESH_RUNS):
        World(seed).run()


@pytest.mark.parametrize("seed", kept_seeds())
def test_a_seed_that_once_failed_does_so_no_more(seed: int) -> None:
    World(seed).run()


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_node_recovers_from_a_crash_at(point: str) -> None:
    generator = random.Random(point)
    for _ in range(200):
        world = World(generator.randrange(1 << 32), crash_at=(point, generator.randint(1, 3)))
        if "compact" in point and world.retention_ms is None:
            continue
        world.run(40)
        if world.nodes[0].crashes[point]:
            return
    pytest.fail(f"no run came to {point}")


def test_a_node_goes_on_when_the_log_was_cut_off_up_to_its_end() -> None:
    world = World(1)
    with world.open():
        node = world.nodes[0]
        assert node.start()
        end = world.log.store(0, b"torn") + 1
        world.log.cut(0, end)
        world.now_ms += 60_000
        node.apply(3)
        assert node.node is not None
        node.node.store.wait_caught_up(0.0)
        assert node.node.cut_off_records == end


def test_a_seed_always_gives_the_same_run() -> None:
    notes: list[str] = []
    World(5, note=notes.append).run(60)
    elsewhere = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--seed", "5", "--steps", "60", "-v"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(notes) > 60
    assert elsewhere.stdout.splitlines()[:-1] == notes
