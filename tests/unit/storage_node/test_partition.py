"""The state machine of one partition: cases that the property test does not reach."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from common.kernels.digest import digest_rows
from common.labels import StringPool
from common.log.base import LogRecord
from common.record import encode_record
from common.store import MAX_TIME_MS, MIN_TIME_MS
from storage_node import keys
from storage_node.checkpoint import checkpoint, commit_merge, load
from storage_node.config import NodeConfig
from storage_node.disk import Batch
from storage_node.errors import DiskError, ViewsDamaged
from storage_node.merging import choose, merge, plan_merge
from storage_node.partition import PartitionState
from storage_node.reading import PartitionRead, read_rows
from storage_node.segments import Segments
from storage_node.store import NodeStore
from storage_node.views import Views
from storage_node.windows import Segment, windows_of
from tests.memory_disk import MemoryDisk
from tests.unit.storage_node.batches import HOUR_MS, T0, labels_of, make_batch


def open_state(disk: MemoryDisk, **settings: int) -> PartitionState:
    state = PartitionState(0, StringPool(), disk, Segments(disk), **settings)
    load(state)
    return state


class FailingDisk(MemoryDisk):
    """A disk whose reads fail while `broken` is set."""

    broken = False

    def get_many(self, keys):  # type: ignore[no-untyped-def]
        if self.broken:
            raise DiskError("cannot read")
        return super().get_many(keys)


def test_a_record_during_which_the_disk_fails_can_be_applied_again() -> None:
    disk = FailingDisk()
    state = open_state(disk, late_limit=1)
    samples = [(0, T0, 1.0), (0, T0 + 10, 1.0)]
    state.apply(0, make_batch([(0, labels_of(0))], samples))
    checkpoint(state)
    state.segments = Segments(disk)
    disk.broken = True
    late = make_batch([], [(0, T0 + 5, 1.0), (0, T0 + 10, 2.0)])
    with pytest.raises(DiskError):
        state.apply(1, late)
    # The record was applied; its late sample waits.
    assert state.next_offset == 2
    assert state.late.size == 1
    disk.broken = False
    assert state.n_samples == 3
    assert (state.outcomes.late, state.outcomes.duplicate) == (1, 1)


def test_a_horizon_that_cannot_move_because_of_the_disk_moves_the_next_time() -> None:
    disk = FailingDisk()
    state = open_state(disk, retention_ms=HOUR_MS)
    state.apply(0, make_batch([(0, labels_of(0))], [(0, T0, 1.0), (0, T0 + 10, 1.0)]))
    checkpoint(state)
    state.segments = Segments(disk)
    state.apply(1, make_batch([], [(0, T0 + 5, 1.0)]))
    disk.broken = True
    later = make_batch([], [(0, T0 + 20 * HOUR_MS, 1.0)], created_ms=T0 + 20 * HOUR_MS)
    with pytest.raises(DiskError):
        state.apply(2, later)
    assert state.next_offset == 2
    disk.broken = False
    state.apply(2, later)
    assert state.n_samples == 1
    assert state.outcomes.expired == 3


def test_a_checkpoint_that_fails_changes_nothing_and_is_done_again() -> None:
    disk = MemoryDisk()
    state = open_state(disk)
    state.apply(0, make_batch([(0, labels_of(0))], [(0, T0, 1.0)]))
    digest = state.digest()
    disk.full = True
    with pytest.raises(DiskError):
        checkpoint(state)
    assert (state.n_head, state.saved_offset, state.digest()) == (1, 0, digest)
    disk.full = False
    checkpoint(state)
    assert open_state(disk).digest() == digest


def test_a_damaged_block_is_not_taken_for_a_damaged_record(tmp_path: Path) -> None:
    disk = MemoryDisk()
    views = Views(tmp_path, 1, NodeConfig("test", tmp_path), disk=disk)
    shard = views.shards[0]
    shard.state.apply(0, make_batch([(0, labels_of(0))], [(0, T0, 1.0), (0, T0 + 10, 1.0)]))
    views.checkpoint(shard, 0.0)
    damage = Batch()
    for key, _ in disk.scan(keys.SEGMENT_BLOCK, keys.SEGMENT_BLOCK + b"\xff"):
        damage.put(key, bytes(40))
    disk.write(damage)
    store = NodeStore(lambda: views, list)
    with pytest.raises(ViewsDamaged, match="tabor replay"):
        store.select([], MIN_TIME_MS, MAX_TIME_MS, 100)
    # Taking the samples of an orphan to its series needs the block.
    shard.state.apply(1, make_batch([], [(1, T0 + 10, 2.0)]))
    record = LogRecord(0, 2, encode_record(make_batch([(1, labels_of(0))], [])))
    with pytest.raises(ViewsDamaged):
        shard.apply(record)
    assert shard.state.next_offset == 2
    assert shard.state.outcomes.quarantined_records == 0


def test_an_ingestor_that_was_silent_for_a_day_has_to_declare_again() -> None:
    disk = MemoryDisk()
    state = open_state(disk)
    state.apply(0, make_batch([(0, labels_of(0))], [(0, T0, 1.0)]))
    day = 24 * HOUR_MS
    state.apply(1, make_batch([], [(0, T0 + 1, 1.0)], created_ms=T0 + day))
    assert state.outcomes.orphaned == 0
    state.apply(2, make_batch([], [], producer_id=2, created_ms=T0 + 2 * day + 1))
    checkpoint(state)
    state = open_state(disk)
    assert len(state.producers) == 1
    state.apply(3, make_batch([], [(0, T0 + 2, 1.0)], created_ms=T0 + 2 * day + 2))
    assert state.outcomes.orphaned == 1


def test_an_orphan_that_was_checkpointed_is_found_under_its_name_after_a_reopen() -> None:
    disk = MemoryDisk()
    state = open_state(disk)
    state.apply(0, make_batch([(9, labels_of(9))], [(0, T0, 1.0), (9, T0, 2.0)]))
    checkpoint(state)
    state = open_state(disk)
    state.apply(1, make_batch([(0, labels_of(0))], [(0, T0 + 1, 1.0)]))
    checkpoint(state)
    state = open_state(disk)
    snos = state.index.select([])
    assert len(snos) == 2
    assert [row["series"] for row in state.index.table(state.present(snos, T0 + 1, MAX_TIME_MS))] == ["000"]
    assert sorted(times_of(state)) == [T0, T0, T0 + 1]
    assert state.n_samples == 3
    direct = open_state(MemoryDisk())
    samples = [(0, T0, 1.0), (9, T0, 2.0), (0, T0 + 1, 1.0)]
    direct.apply(0, make_batch([(9, labels_of(9)), (0, labels_of(0))], samples))
    assert state.digest() == direct.digest()


def test_a_read_overtaken_by_a_merge_plans_again(tmp_path: Path) -> None:
    disk = MemoryDisk()
    views = Views(tmp_path, 1, NodeConfig("test", tmp_path), disk=disk)
    state = views.shards[0].state
    for i in range(8):
        state.apply(i, make_batch([(0, labels_of(0))], [(0, T0 + i, float(i))]))
        checkpoint(state)
    store = NodeStore(lambda: views, list)
    plan = plan_merge(state)
    assert plan is not None
    read = views.segments.read
    merges = 0

    def merge_first(*arguments):  # type: ignore[no-untyped-def]
        nonlocal merges
        if merges == 0:
            merges = 1
            batch, merged = merge(plan, views.segments, disk)
            assert commit_merge(state, plan.window, plan.old, merged, batch)
        return read(*arguments)

    views.segments.read = merge_first  # type: ignore[method-assign]
    found = store.select([], MIN_TIME_MS, MAX_TIME_MS, 100)
    assert merges == 1
    assert found.values.tolist() == list(range(8))
    # What was merged away is not committed again.
    assert not commit_merge(state, plan.window, plan.old, Segment(1, 8, 0, 0, 1), Batch())


def test_segments_are_merged_when_none_dominates() -> None:
    def sizes(*n_samples: int, least: int = 2) -> list[int]:
        segments = [Segment(i << 16, n, 0, 0, 0) for i, n in enumerate(n_samples)]
        return sorted(segment.n_samples for segment in choose(segments, least))

    assert sizes(100, 1) == []
    assert sizes(100, 1, 1) == [1, 1]
    assert sizes(100, 60, 40) == [40, 60, 100]
    assert sizes(*[5] * 7, least=8) == []
    assert sizes(*[5] * 8, 1000, least=8) == [5] * 8


def test_a_merge_of_many_chunks_keeps_every_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage_node.merging.CHUNK_SAMPLES", 50)
    disk = MemoryDisk()
    state = open_state(disk)
    random = np.random.default_rng(1)
    series = [(ref, labels_of(ref)) for ref in range(2000)]
    for i in range(8):
        samples = [(ref, T0 + i * 10, float(random.random())) for ref in range(2000)]
        state.apply(i, make_batch(series if i == 0 else [], samples))
        checkpoint(state)
    digest = state.digest()
    plan = plan_merge(state)
    assert plan is not None
    batch, merged = merge(plan, state.segments, disk)
    assert commit_merge(state, plan.window, plan.old, merged, batch)
    assert (merged.n_samples, merged.n_rows) == (16_000, 2000)
    assert len(times_of(state)) == 16_000
    assert state.digest() == digest == recomputed(state)


def samples_of(
    state: PartitionState,
) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
    snos = state.index.select([])
    plan = state.plan(snos, MIN_TIME_MS, MAX_TIME_MS)
    return snos, *read_rows([PartitionRead(plan, state.segments)], len(snos))


def times_of(state: PartitionState) -> list[int]:
    times: list[int] = samples_of(state)[2].tolist()
    return times


def recomputed(state: PartitionState) -> str:
    """The digest, from the samples that a read gives."""
    snos, offsets, times, bits = samples_of(state)
    _, ends = windows_of(times)
    lanes, counts = np.zeros((len(ends), 2), dtype=np.uint64), np.zeros(len(ends), dtype=np.int64)
    digest_rows(state.series.ids.data[snos], offsets, times, bits, ends, lanes, counts)
    state.windows.clear()
    state.count_in(ends, lanes, counts)
    return state.digest()


@pytest.mark.parametrize("hours", [[], [5], [5, 6, 7], [3, -9, 3, 60, 3], [-(10**9), 10**9, 0]])
def test_windows_are_listed_once_each_and_in_order(hours: list[int]) -> None:
    times = np.array(hours, dtype=np.int64) * 3_600_000
    starts, ends = windows_of(times)
    expected = sorted({hour // 4 for hour in hours})
    assert starts.tolist() == [number * 4 * 3_600_000 for number in expected]
    assert ends.tolist() == [(number + 1) * 4 * 3_600_000 - 1 for number in expected]
