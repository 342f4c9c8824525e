"""Backups at regular times: slots, restarts, failures, pruning, and what several nodes share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from storage_node.backup import turns
from storage_node.backup.manifest import run_at, runs_of
from storage_node.backup.schedule import BackupPlan, Schedule
from storage_node.backup.turns import writing
from storage_node.metrics import register_backups
from tests.memory_log import MemoryLog
from tests.memory_target import MemoryTarget
from tests.processes import wait_for
from tests.unit.storage_node.backup.givers import FIRST_S, Giver
from tests.unit.storage_node.batches import fill

HOUR_S = 3600.0


class Scheduled:
    """Schedules of one giver under names of their own, with a clock that is turned by hand."""

    def __init__(self, giver: Giver, target: MemoryTarget) -> None:
        self.giver, self.target = giver, target
        self.now_s = FIRST_S + 60.0
        self.open: list[Schedule] = []

    def start(
        self,
        partitions: Callable[[], Iterable[int]] = lambda: range(3),
        *,
        keep: int = 2,
        prunes: Callable[[], bool] = lambda: True,
    ) -> Schedule:
        schedule = Schedule(
            BackupPlan(self.target, HOUR_S, keep),
            self.giver.copies,
            f"node-{len(self.open)}",
            3,
            partitions,
            prunes=prunes,
            clock=lambda: self.now_s,
            look_s=0.005,
            retry_s=0.005,
        )
        self.open.append(schedule)
        schedule.start()
        return schedule

    def runs(self) -> dict[str, set[int]]:
        return runs_of(self.target)

    def manifests_put(self) -> list[str]:
        return [name for name in self.target.puts if name.startswith("backups/")]


@pytest.fixture
def scheduled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scheduled]:
    monkeypatch.setattr(turns, "PAUSE_S", 0.005)
    log = MemoryLog(3)
    fill(log, n_samples=10)
    target = MemoryTarget()
    giver = Giver(tmp_path / "giver", log, target)
    giver.status()
    found = Scheduled(giver, target)
    yield found
    for schedule in found.open:
        schedule.close()
    giver.node.close()


ALL = {0, 1, 2}
FIRST, SECOND, THIRD = (run_at(FIRST_S + i * HOUR_S) for i in range(3))


def test_each_slot_has_one_backup_that_is_named_by_its_start(scheduled: Scheduled) -> None:
    schedule = scheduled.start()
    wait_for(lambda: scheduled.runs() == {FIRST: ALL}, "the backup of the slot that has begun")
    scheduled.now_s = FIRST_S + HOUR_S - 1
    wait_for(lambda: schedule.last_success_s == FIRST_S, "it is done")
    scheduled.now_s = FIRST_S + HOUR_S
    wait_for(lambda: scheduled.runs() == {FIRST: ALL, SECOND: ALL}, "the next one")
    wait_for(lambda: schedule.last_success_s == FIRST_S + HOUR_S, "it is done")
    assert len(scheduled.manifests_put()) == 6
    assert schedule.sent_bytes > 0
    assert schedule.kept_bytes > 0


def test_who_starts_within_a_slot_does_what_is_missing(scheduled: Scheduled) -> None:
    first = scheduled.start(lambda: [0, 2])
    wait_for(lambda: first.last_success_s == FIRST_S, "its part is done")
    first.close()
    second = scheduled.start()
    wait_for(lambda: second.last_success_s == FIRST_S, "the rest is done")
    assert scheduled.runs() == {FIRST: ALL}
    assert len(scheduled.manifests_put()) == 3


def test_what_becomes_a_nodes_part_within_a_slot_is_backed_up_in_it(scheduled: Scheduled) -> None:
    mine = [0]
    schedule = scheduled.start(lambda: list(mine))
    wait_for(lambda: schedule.last_success_s == FIRST_S, "its part is done")
    mine.extend([1, 2])
    wait_for(lambda: scheduled.runs() == {FIRST: ALL}, "another node has left it its part")
    assert len(scheduled.manifests_put()) == 3


def test_a_failing_target_is_counted_and_tried_again(scheduled: Scheduled) -> None:
    scheduled.target.failure = "no such bucket"
    schedule = scheduled.start()
    wait_for(lambda: schedule.failures["TargetError"] >= 3, "it fails again and again")
    assert schedule.last_success_s == 0
    registry = CollectorRegistry()
    register_backups(schedule, registry)
    text = generate_latest(registry).decode()
    assert 'tabor_backup_failures_total{reason="TargetError"}' in text
    assert "tabor_backup_last_success_timestamp_seconds 0.0" in text
    scheduled.target.failure = None
    wait_for(lambda: scheduled.runs() == {FIRST: ALL}, "it succeeds once the target does")


def test_old_backups_go_when_nobody_writes(scheduled: Scheduled) -> None:
    schedule = scheduled.start()
    for i in range(3):
        scheduled.now_s = FIRST_S + i * HOUR_S
        wait_for(lambda i=i: schedule.last_success_s == FIRST_S + i * HOUR_S, f"backup {i}")
    wait_for(lambda: scheduled.runs() == {SECOND: ALL, THIRD: ALL}, "the oldest is pruned")


def test_pruning_that_others_prevent_is_done_later_in_the_same_slot(scheduled: Scheduled) -> None:
    garbage = "objects/ab/" + "ab" * 32
    scheduled.target.put(garbage, b"of a backup that was never finished")
    with writing(scheduled.target, threading.Event()):
        schedule = scheduled.start()
        wait_for(lambda: schedule.last_success_s == FIRST_S, "the backup is done")
        wait_for(lambda: sum(name.startswith("pruning/") for name in scheduled.target.puts) >= 3, "it tries")
        assert garbage in scheduled.target.objects
    wait_for(lambda: garbage not in scheduled.target.objects, "it is deleted once the other is done")


def test_only_who_is_to_prune_prunes(scheduled: Scheduled) -> None:
    schedule = scheduled.start(keep=1, prunes=lambda: False)
    wait_for(lambda: schedule.last_success_s == FIRST_S, "the first")
    scheduled.now_s = FIRST_S + HOUR_S
    wait_for(lambda: schedule.last_success_s == FIRST_S + HOUR_S, "the second")
    assert scheduled.runs() == {FIRST: ALL, SECOND: ALL}
    assert not [name for name in scheduled.target.puts if name.startswith("pruning/")]


def test_closing_ends_what_is_under_way(scheduled: Scheduled) -> None:
    schedule = scheduled.start()
    scheduled.target.before = lambda what, name: (
        what == "put" and name.startswith("objects/") and schedule._stop.set()
    )
    wait_for(lambda: not schedule._thread.is_alive(), "the thread has ended")
    schedule.close()
    assert not schedule.failures
    assert not [name for name in scheduled.target.objects if name.startswith("running/")]


def test_a_partition_that_has_gone_is_not_a_failure(scheduled: Scheduled) -> None:
    schedule = scheduled.start(lambda: [0, 1, 2, 7])
    wait_for(lambda: schedule.last_success_s == FIRST_S, "the others are backed up")
    assert scheduled.runs() == {FIRST: ALL}
    assert not schedule.failures


def test_a_target_that_hangs_does_not_keep_a_node_from_ending(
    scheduled: Scheduled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage_node.backup.schedule.CLOSE_S", 0.05)
    hangs, goes_on = threading.Event(), threading.Event()
    frozen: list[int] = []
    begin = scheduled.giver.copies.begin

    def look(partition: int) -> str:
        frozen.append(partition)
        return begin(partition)

    def wait(what: str, name: str) -> None:
        if what == "put" and name.startswith("objects/"):
            hangs.set()
            goes_on.wait(60)

    monkeypatch.setattr(scheduled.giver.copies, "begin", look)
    scheduled.target.before = wait
    schedule = scheduled.start()
    wait_for(hangs.is_set, "the target hangs")
    schedule.close()
    assert not goes_on.is_set()
    # What the node had is closed by now: nothing of it is read any more.
    goes_on.set()
    wait_for(lambda: all(one.name != "node-0-backup" for one in threading.enumerate()), "the thread has ended")
    assert frozen == [0]
