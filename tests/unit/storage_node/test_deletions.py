"""Tombstones at a storage node: what readers see, what the disk keeps, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.attachments import NO_REF, Attachments, Kind
from common.record import RecordBatch
from common.store import MAX_TIME_MS, MIN_TIME_MS, Extent, Matcher, MatchOp
from common.tombstones import Tombstone
from storage_node import keys
from storage_node.reading import PartitionRead, read_rows
from storage_node.service import StorageNode
from tests.memory_log import MemoryLog
from tests.unit.storage_node.batches import HOUR_MS, T0, fill, labels_of, make_batch, write
from tests.unit.storage_node.test_attachments import ONE, OTHER, record, selected, started

ALL = Matcher(MatchOp.NOT_EQUAL, "__name__", "")
FIRST = Matcher(MatchOp.EQUAL, "series", "000")


def deletion(*matchers: Matcher, low: int = MIN_TIME_MS, high: int = MAX_TIME_MS) -> RecordBatch:
    row = Kind.TOMBSTONE, NO_REF, 0, Tombstone(matchers, low, high).encode()
    return replace(make_batch([], [], producer_id=9), attached=Attachments.of([row]))


@pytest.fixture
def log() -> Iterator[MemoryLog]:
    log = MemoryLog(1)
    yield log
    log.close()


def caught_up(node: StorageNode) -> StorageNode:
    node.store.wait_caught_up(10)
    return node


def carried_out(node: StorageNode) -> None:
    """Save, and let the disk be rid of what is deleted."""
    node.views.checkpoint(node.views.shards[0], 0.0)
    while node._merge_one(0):
        pass


def blocks_of(node: StorageNode) -> int:
    kinds = (keys.SEGMENT_BLOCK, keys.ATTACHED_BLOCK, keys.DELETIONS)
    return sum(len(list(node.views.disk.scan(*keys.of_partition(kind, 0)))) for kind in kinds)


def test_what_is_deleted_is_gone_at_once_and_the_rest_stays(log: MemoryLog, tmp_path: Path) -> None:
    fill(log, n_series=3, n_samples=10)
    node = caught_up(started(log, tmp_path))
    before = selected(node)
    node.views.checkpoint(node.views.shards[0], 0.0)
    write(log, 0, deletion(FIRST, low=T0 + 15_000, high=T0 + 45_000))
    left = {time: value for time, value in before["000"].items() if not T0 + 15_000 <= time <= T0 + 45_000}
    assert len(left) == 7
    for _ in range(2):
        assert selected(caught_up(node)) == before | {"000": left}
        assert node.views.shards[0].state.n_samples == 27
        carried_out(node)
    node.close()
    node = started(log, tmp_path)
    assert selected(node) == before | {"000": left}
    node.close()


def test_a_series_of_which_all_is_deleted_is_no_longer_listed(log: MemoryLog, tmp_path: Path) -> None:
    fill(log, n_series=2)
    node = caught_up(started(log, tmp_path))
    write(log, 0, deletion(FIRST))
    caught_up(node)
    assert list(node.store.series([], MIN_TIME_MS, MAX_TIME_MS)) == [labels_of(1)]
    assert node.store.label_values("series", [], MIN_TIME_MS, MAX_TIME_MS) == ["001"]
    node.close()


def test_the_extent_follows_what_is_written_deleted_and_expired(log: MemoryLog, tmp_path: Path) -> None:
    node = caught_up(started(log, tmp_path, retention_ms=100 * HOUR_MS))
    assert node.store.extent() == Extent(0, MAX_TIME_MS, MIN_TIME_MS)
    fill(log, n_series=3, n_samples=10)
    assert caught_up(node).store.extent() == Extent(3, T0, T0 + 135_000)
    assert node.store.births([], T0, T0 + HOUR_MS) == {T0 // HOUR_MS: 3}
    assert node.store.births([], T0 + 1, T0 + HOUR_MS) == {}
    node.views.checkpoint(node.views.shards[0], 0.0)
    assert node.store.extent() == Extent(3, T0, T0 + 135_000)
    # One before the others, in the same window, and one in the next.
    early, late = T0 + 1, T0 + 5 * HOUR_MS
    write(log, 0, make_batch([], [(0, early, 7.0), (1, late, 7.0)]))
    assert caught_up(node).store.extent() == Extent(5, T0, late)
    node.views.checkpoint(node.views.shards[0], 0.0)
    assert node.store.extent() == Extent(5, T0, late)
    write(log, 0, deletion(ALL, high=T0))
    assert caught_up(node).store.extent() == Extent(5, early, late)
    write(log, 0, make_batch([], [], created_ms=late + 101 * HOUR_MS))
    assert caught_up(node).store.extent() == Extent(1, late // (4 * HOUR_MS) * 4 * HOUR_MS, late)
    node.close()


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("removed", [False, True])
def test_samples_written_after_a_deletion_stay_even_with_the_same_times(
    log: MemoryLog, tmp_path: Path, saved: bool, removed: bool
) -> None:
    times = [T0, T0 + 1000, T0 + 2000]
    write(log, 0, make_batch([(0, labels_of(0))], [(0, time, 1.0) for time in times]))
    node = caught_up(started(log, tmp_path))
    if saved:
        node.views.checkpoint(node.views.shards[0], 0.0)
    # The last sample and the first one are looked up by their times alone.
    write(log, 0, deletion(FIRST, low=T0 + 1000))
    write(log, 0, make_batch([], [(0, time, 2.0) for time in times[::-1]]))
    assert selected(caught_up(node)) == {"000": {T0: 1.0, T0 + 1000: 2.0, T0 + 2000: 2.0}}
    if removed:
        carried_out(node)
    write(log, 0, deletion(FIRST, high=T0))
    write(log, 0, make_batch([], [(0, time, 3.0) for time in times]))
    assert selected(caught_up(node)) == {"000": {T0: 3.0, T0 + 1000: 2.0, T0 + 2000: 2.0}}
    carried_out(node)
    assert selected(node) == {"000": {T0: 3.0, T0 + 1000: 2.0, T0 + 2000: 2.0}}
    node.close()


def test_the_disk_is_rid_of_everything_that_was_deleted(log: MemoryLog, tmp_path: Path) -> None:
    fill(log, n_series=4)
    write(log, 0, record([], [], (Kind.HISTOGRAM, 0, T0 + HOUR_MS, ONE), (Kind.EXEMPLAR, 1, T0, b"\0" * 8)))
    node = caught_up(started(log, tmp_path))
    carried_out(node)
    assert blocks_of(node) == 2
    write(log, 0, deletion(ALL))
    carried_out(caught_up(node))
    assert blocks_of(node) == 0
    assert node.views.shards[0].state.size_bytes == 0
    assert node.views.shards[0].state.outcomes.deleted == 81
    node.close()


def test_histograms_and_exemplars_go_with_their_series(log: MemoryLog, tmp_path: Path) -> None:
    exemplar = np.float64(2.5).tobytes()
    rows = [
        (Kind.HISTOGRAM, 0, T0, ONE),
        (Kind.HISTOGRAM, 1, T0, ONE),
        (Kind.EXEMPLAR, 0, T0, exemplar),
        (Kind.EXEMPLAR, 1, T0, exemplar),
    ]
    write(log, 0, record([0, 1], [], *rows))
    node = caught_up(started(log, tmp_path))
    node.views.checkpoint(node.views.shards[0], 0.0)
    write(log, 0, record([], [], *((kind, ref, T0 + 1, data) for kind, ref, _, data in rows)))
    write(log, 0, deletion(FIRST))
    write(log, 0, record([], [], (Kind.HISTOGRAM, 0, T0, OTHER)))
    for _ in range(2):
        assert selected(caught_up(node)) == {"000": {T0: OTHER}, "001": {T0: ONE, T0 + 1: ONE}}
        found = node.store.exemplars([], MIN_TIME_MS, MAX_TIME_MS)
        assert [(one.labels["series"], len(one.exemplars)) for one in found] == [("001", 2)]
        carried_out(node)
    node.close()


def test_a_reader_under_way_sees_what_there_was(log: MemoryLog, tmp_path: Path) -> None:
    fill(log, n_series=2)
    node = caught_up(started(log, tmp_path))
    state = node.views.shards[0].state
    plan = state.plan(np.arange(2, dtype=np.uint32), MIN_TIME_MS, MAX_TIME_MS)
    write(log, 0, deletion(ALL))
    caught_up(node)
    _, times, _ = read_rows([PartitionRead(plan, node.views.segments)], 2)
    assert len(times) == 40
    assert selected(node) == {}
    node.close()


@pytest.mark.parametrize(
    "bad",
    [
        replace(deletion(ALL), attached=Attachments.of([(Kind.TOMBSTONE, NO_REF, 0, b"{}")])),
        deletion(Matcher(MatchOp.REGEX, "series", "(")),
        replace(make_batch([(0, labels_of(0))], [(0, T0 + 1, 1.0)]), attached=deletion(ALL).attached),
        replace(
            deletion(ALL),
            attached=Attachments.joined(
                [deletion(ALL).attached, Attachments.of([(Kind.METADATA, NO_REF, 0, b"{}")])]
            ),
        ),
        replace(
            deletion(ALL),
            attached=Attachments.joined(
                [deletion(ALL).attached, deletion(Matcher(MatchOp.REGEX, "series", "(")).attached]
            ),
        ),
    ],
    ids=["not a tombstone", "no regular expression", "with samples", "with metadata", "the second is bad"],
)
def test_a_record_whose_tombstones_cannot_be_read_is_passed_over_whole(
    log: MemoryLog, tmp_path: Path, bad: RecordBatch
) -> None:
    fill(log, n_series=1, n_samples=3)
    node = caught_up(started(log, tmp_path))
    before = selected(node)
    write(log, 0, bad)
    assert selected(caught_up(node)) == before
    assert node.views.shards[0].state.outcomes.quarantined_records == 1
    node.close()


def test_samples_without_a_declaration_yet_match_nothing(log: MemoryLog, tmp_path: Path) -> None:
    write(log, 0, make_batch([], [(0, T0, 1.0)]))
    write(log, 0, deletion(ALL))
    write(log, 0, make_batch([(0, labels_of(0))], [(0, T0 + 1, 2.0)]))
    node = started(log, tmp_path)
    assert selected(node) == {"000": {T0: 1.0, T0 + 1: 2.0}}
    node.close()


def test_what_is_written_at_a_deleted_last_time_is_new_also_after_a_restart(
    log: MemoryLog, tmp_path: Path
) -> None:
    write(log, 0, make_batch([(0, labels_of(0))], [(0, T0, 1.0), (0, T0 + 1000, 1.0)]))
    node = caught_up(started(log, tmp_path))
    node.views.save(0.0)
    # No sample of the series comes before the checkpoint that has the deletion.
    write(log, 0, deletion(FIRST, low=T0 + 1000))
    caught_up(node).close()
    node = started(log, tmp_path)
    write(log, 0, make_batch([], [(0, T0 + 1000, 2.0)]))
    assert selected(caught_up(node)) == {"000": {T0: 1.0, T0 + 1000: 2.0}}
    node.close()


def test_a_window_that_expires_takes_its_deletions_along(log: MemoryLog, tmp_path: Path) -> None:
    fill(log, n_series=2)
    node = caught_up(started(log, tmp_path, retention_ms=24 * HOUR_MS))
    node.views.checkpoint(node.views.shards[0], 0.0)
    write(log, 0, deletion(FIRST))
    caught_up(node)
    window = T0 // (4 * HOUR_MS)
    state = node.views.shards[0].state
    assert window in state.deletions
    write(log, 0, make_batch([], [(1, T0 + 72 * HOUR_MS, 1.0)], created_ms=T0 + 72 * HOUR_MS))
    caught_up(node)
    assert window not in state.deletions
    node.views.checkpoint(node.views.shards[0], 0.0)
    assert list(node.views.disk.scan(*keys.of_partition(keys.DELETIONS, 0))) == []
    node.close()
