"""A node whose log is cut off and that has no peers takes a partition from its newest backup."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage_node.acquiring import Acquirer
from storage_node.backup.manifest import manifest_name
from storage_node.config import NodeConfig
from storage_node.copies import CopyWriter
from storage_node.service import StorageNode
from tests.memory_log import MemoryLog
from tests.memory_target import MemoryTarget
from tests.processes import wait_for
from tests.unit.storage_node.backup.givers import Giver
from tests.unit.storage_node.batches import T0, fill, make_batch, write


@pytest.fixture
def giver(tmp_path: Path) -> Iterator[Giver]:
    log = MemoryLog(2)
    fill(log, n_samples=50)
    giver = Giver(tmp_path / "giver", log, MemoryTarget())
    giver.back_up()
    for i in range(5):
        write(log, 1, make_batch([], [(0, T0 + 10_000_000 + i, 1.0)]))
    yield giver
    giver.node.close()


class Taker:
    """A node that lacks everything."""

    def __init__(self, folder: Path, giver: Giver, **settings: int) -> None:
        self.log = giver.log
        self.node = StorageNode(giver.log, NodeConfig("taker", folder, retry_s=0.05, **settings))  # type: ignore[arg-type]
        self.node.start(())
        self.acquirer = Acquirer(giver.log, lambda: self.node.views, peer_wait_s=0.05, backups=giver.target)
        self.acquirer.start()

    def acquire(self, partition: int) -> int:
        """Come by a partition; returns how many records of the log that took."""
        wait_for(lambda: self.acquirer.want({partition: []}) == {partition}, "it may be opened")
        self.node.assign([partition])
        wait_for(lambda: self.node.ready_partitions() == {partition}, "it is caught up")
        return self.node.views.shards[partition].records

    def digest(self) -> object:
        return self.node.partitions_status(digest=True)[0]["digest"]

    def close(self) -> None:
        self.acquirer.close()
        self.node.close()


@pytest.fixture
def taker(tmp_path: Path, giver: Giver) -> Iterator[Taker]:
    taker = Taker(tmp_path / "taker", giver)
    yield taker
    taker.close()


def test_the_backup_and_then_the_log_are_all_there_was(giver: Giver, taker: Taker) -> None:
    giver.log.cut(1, 50)
    assert taker.acquire(1) == 5
    assert taker.digest() == giver.status()[1]["digest"]


def test_a_log_that_is_whole_is_read_instead(giver: Giver, taker: Taker) -> None:
    assert taker.acquire(1) == 55


def test_a_backup_that_ends_before_the_log_begins_is_better_than_nothing(
    giver: Giver, taker: Taker, capsys: pytest.CaptureFixture[str]
) -> None:
    giver.log.cut(1, 53)
    assert taker.acquire(1) == 2
    assert "backup_ends_before_log" in capsys.readouterr().out + capsys.readouterr().err


def test_a_backup_that_is_damaged_is_passed_over(giver: Giver, taker: Taker) -> None:
    giver.log.cut(1, 50)
    (run,) = giver.digests
    giver.target.put(manifest_name(run, 1), b"{}")
    assert taker.acquire(1) == 5


def test_a_backup_of_another_retention_is_not_taken(giver: Giver, tmp_path: Path) -> None:
    giver.log.cut(1, 50)
    taker = Taker(tmp_path / "taker", giver, retention_ms=10**15)
    assert taker.acquire(1) == 5
    assert taker.digest() != giver.status()[1]["digest"]
    taker.close()


def test_a_target_that_fails_is_asked_again(giver: Giver, taker: Taker) -> None:
    giver.log.cut(1, 50)
    target = giver.target
    assert isinstance(target, MemoryTarget)
    failed = []

    def fail_three_times(what: str, name: str) -> None:
        failed.append(name)
        target.failure = "not now" if len(failed) <= 3 else None

    target.before = fail_three_times
    assert taker.acquire(1) == 5
    assert taker.digest() == giver.status()[1]["digest"]


def test_how_far_a_restore_has_come_is_known_while_it_lasts(
    giver: Giver, taker: Taker, monkeypatch: pytest.MonkeyPatch
) -> None:
    giver.log.cut(1, 50)
    seen = []
    add = CopyWriter.add

    def look(writer: CopyWriter, payload: memoryview) -> None:
        # As of the object before.
        seen.extend(taker.acquirer.copying.values())
        add(writer, payload)

    finish = CopyWriter.finish

    def look_last(writer: CopyWriter, *, is_empty: bool) -> None:
        seen.extend(taker.acquirer.copying.values())
        finish(writer, is_empty=is_empty)

    monkeypatch.setattr(CopyWriter, "add", look)
    monkeypatch.setattr(CopyWriter, "finish", look_last)
    taker.acquire(1)
    last = seen[-1]
    assert last.source.startswith("backup 20")
    assert 0 < last.size_bytes == last.total_bytes
    assert taker.acquirer.copying == {}
