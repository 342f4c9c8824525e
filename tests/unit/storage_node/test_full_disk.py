"""Reads while the disk of the views takes nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from storage_node import service
from storage_node.config import NodeConfig
from storage_node.disk import RocksDisk
from storage_node.errors import DiskError
from storage_node.service import StorageNode
from tests.memory_log import MemoryLog
from tests.processes import wait_for
from tests.unit.storage_node.batches import T0, labels_of, make_batch, write
from tests.unit.storage_node.test_service import samples_of


def refuse(*_: object) -> None:
    raise DiskError("no room")


def test_what_was_acknowledged_before_writes_stopped_is_read_while_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "REOPEN_AFTER", 1 << 30)
    log = MemoryLog(1)
    node = StorageNode(log, NodeConfig("test", tmp_path, retry_s=0.05, head_samples=100))
    node.start()
    try:
        monkeypatch.setattr(RocksDisk, "write", refuse)
        write(log, 0, make_batch([(0, labels_of(0))], [(0, T0 + i, 1.0) for i in range(101)]))
        wait_for(lambda: node.healthy() is not None, "the disk error")
        write(log, 0, make_batch([], [(0, T0 + 1000 + i, 2.0) for i in range(50)]))
        node.store.wait_caught_up(10)
        assert sum(map(len, samples_of(node).values())) == 151
        assert node.healthy() is not None
        # But not without end: the head has a limit.
        write(log, 0, make_batch([], [(0, T0 + 2000 + i, 3.0) for i in range(50)]))
        node.store.wait_caught_up(10)
        write(log, 0, make_batch([], [(0, T0 + 3000, 4.0)]))
        deadline = time.monotonic() + 0.3
        while time.monotonic() < deadline:
            assert node.views.shards[0].state.n_head <= 201
        monkeypatch.undo()
        node.store.wait_caught_up(10)
        wait_for(lambda: node.healthy() is None, "recovery")
        assert sum(map(len, samples_of(node).values())) == 202
    finally:
        node.close()
