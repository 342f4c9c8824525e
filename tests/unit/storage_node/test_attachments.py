"""Histograms, exemplars and metadata from records to the reader, over restarts and merges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.attachments import NO_REF, Attachments, Kind
from common.labels import canonical_labels
from common.record import RecordBatch
from common.store import MAX_TIME_MS, MIN_TIME_MS, Exemplar, Matcher, MatchOp, Metadata, SeriesExemplars
from storage_node.attachments import BLOCK_BYTES
from storage_node.config import NodeConfig
from storage_node.service import StorageNode
from tests.memory_log import MemoryLog
from tests.oracles.histogram import NativeHistogram
from tests.unit.storage_node.batches import HOUR_MS, T0, labels_of, make_batch, write

ONE = NativeHistogram(1, 6, 2.5, 0.1, 2, ((-1, 1), (1, 1)), (1, 2), ((3, 1),), (1,)).encode()
OTHER = NativeHistogram(2, 1, 7.5).encode()


def record(
    declared: list[int], samples: list[tuple[int, int, float]], *rows: tuple[Kind, int, int, bytes]
) -> RecordBatch:
    batch = make_batch([(ref, labels_of(ref)) for ref in declared], samples)
    return replace(batch, attached=Attachments.of(rows))


@pytest.fixture
def log() -> Iterator[MemoryLog]:
    log = MemoryLog(2)
    yield log
    log.close()


def started(log: MemoryLog, folder: Path, **settings: object) -> StorageNode:
    node = StorageNode(log, NodeConfig("node", folder, **settings))  # type: ignore[arg-type]
    node.start()
    node.store.wait_caught_up(10)
    return node


def selected(node: StorageNode, first: int = MIN_TIME_MS, last: int = MAX_TIME_MS) -> dict[str, dict[int, object]]:
    """Samples of each series; a histogram as its bytes."""
    found = node.store.select([], first, last, 1_000_000)
    values: list[object] = found.values.tolist()
    if found.histograms is not None:
        offsets, data = found.histograms.offsets, found.histograms.data
        assert data.flags.writeable
        for i, position in enumerate(found.histograms.positions.tolist()):
            values[position] = data[offsets[i] : offsets[i + 1]].tobytes()
    out = {}
    for row, labels in enumerate(found.labels):
        part = slice(found.offsets[row], found.offsets[row + 1])
        out[labels["series"]] = dict(zip(found.timestamps[part].tolist(), values[part], strict=True))
    return out


def test_a_series_may_have_floats_and_histograms_and_the_first_wins(log: MemoryLog, tmp_path: Path) -> None:
    write(log, 0, record([0], [(0, T0, 1.5)], (Kind.HISTOGRAM, 0, T0, ONE), (Kind.HISTOGRAM, 0, T0 + 1, ONE)))
    write(log, 1, record([1], [], (Kind.HISTOGRAM, 1, T0, OTHER), (Kind.HISTOGRAM, 1, T0, ONE)))
    write(log, 0, record([], [(0, T0 + 1, 2.5), (0, T0 + 2, 3.5)]))
    want = {"000": {T0: 1.5, T0 + 1: ONE, T0 + 2: 3.5}, "001": {T0: OTHER}}
    node = started(log, tmp_path)
    assert selected(node) == want
    assert selected(node, T0 + 1, T0 + 1) == {"000": {T0 + 1: ONE}}
    node.close()
    node = started(log, tmp_path)
    assert selected(node) == want
    node.close()


def test_many_runs_of_a_window_become_one_with_the_same_rows(log: MemoryLog, tmp_path: Path) -> None:
    wide = [
        NativeHistogram(3, i, float(i), positive_spans=((0, 500),), positive=tuple(np.arange(500.0) + i)).encode()
        for i in range(40)
    ]
    assert sum(map(len, wide)) > 2 * BLOCK_BYTES
    want = {f"{ref:03d}": {T0 + i: data for i, data in enumerate(wide) if i % 3 == ref} for ref in range(3)}
    node = started(log, tmp_path)
    for i, data in enumerate(wide):
        write(log, 0, record([i % 3], [], (Kind.HISTOGRAM, i % 3, T0 + i, data)))
        if i % 4 == 3:
            node.store.wait_caught_up(10)
            node.views.checkpoint(node.views.shards[0], 0.0)
    shard = node.views.shards[0]
    while node._merge_one(0):
        pass
    assert len(next(iter(shard.state.attached.runs.values()))) < 8
    assert selected(node) == want
    node.close()
    node = started(log, tmp_path)
    assert selected(node) == want
    node.close()


def test_exemplars_are_found_by_series_and_time_each_once(log: MemoryLog, tmp_path: Path) -> None:
    row = np.float64(2.5).tobytes() + canonical_labels({"trace_id": "ü"})
    bare = np.float64(np.inf).tobytes()
    rows = [
        (Kind.EXEMPLAR, 0, T0 + 5, row),
        (Kind.EXEMPLAR, 0, T0 + 5, row),
        (Kind.EXEMPLAR, 1, T0 - HOUR_MS, bare),
    ]
    write(log, 0, record([0, 1], [(0, T0, 1.0)], *rows))
    trace = SeriesExemplars(labels_of(0), [Exemplar({"trace_id": "ü"}, 2.5, T0 + 5)])
    other = SeriesExemplars(labels_of(1), [Exemplar({}, np.inf, T0 - HOUR_MS)])
    for _ in range(2):
        node = started(log, tmp_path)
        assert node.store.exemplars([], MIN_TIME_MS, MAX_TIME_MS) == [trace, other]
        assert node.store.exemplars([], T0, T0 + 5) == [trace]
        assert node.store.exemplars([[Matcher(MatchOp.EQUAL, "series", "001")]], MIN_TIME_MS, MAX_TIME_MS) == [
            other
        ]
        assert node.store.exemplars([[Matcher(MatchOp.EQUAL, "series", "9")]], MIN_TIME_MS, MAX_TIME_MS) == []
        node.close()


def test_metadata_is_known_by_family_from_all_partitions_and_what_is_none_is_passed_over(
    log: MemoryLog, tmp_path: Path
) -> None:
    def row(text: str) -> tuple[Kind, int, int, bytes]:
        return Kind.METADATA, NO_REF, 0, text.encode()

    up = '{"family":"up","type":"gauge","help":"is it","unit":""}'
    write(log, 0, record([], [], row(up), row(up), row("no JSON"), row("[1]"), row('{"family":1}')))
    write(log, 1, record([], [], row(up.replace("gauge", "counter"))))
    want = {"up": [Metadata("counter", "is it", ""), Metadata("gauge", "is it", "")]}
    for _ in range(2):
        node = started(log, tmp_path)
        assert node.store.metadata(None) == want
        assert node.store.metadata("up") == want
        assert node.store.metadata("down") == {}
        node.close()


def test_retention_drops_histograms_and_exemplars_with_their_windows(log: MemoryLog, tmp_path: Path) -> None:
    row = np.float64(1.0).tobytes()
    for i in range(3):
        time = T0 + i * 8 * HOUR_MS
        batch = record([0], [], (Kind.HISTOGRAM, 0, time, ONE), (Kind.EXEMPLAR, 0, time, row))
        write(log, 0, replace(batch, created_ms=time))
    node = started(log, tmp_path, retention_ms=9 * HOUR_MS)
    last = T0 + 16 * HOUR_MS
    assert selected(node) == {"000": {last - 8 * HOUR_MS: ONE, last: ONE}}
    (found,) = node.store.exemplars([], MIN_TIME_MS, MAX_TIME_MS)
    assert [one.timestamp_ms for one in found.exemplars] == [last - 8 * HOUR_MS, last]
    node.close()
    # Nothing of it comes back from the disk.
    node = started(log, tmp_path, retention_ms=9 * HOUR_MS)
    assert len(node.views.shards[0].state.attached.runs) == 2
    node.close()


def test_a_histogram_of_an_undeclared_series_appears_with_its_declaration(log: MemoryLog, tmp_path: Path) -> None:
    write(log, 0, record([], [], (Kind.HISTOGRAM, 4, T0, ONE)))
    node = started(log, tmp_path)
    assert selected(node) == {}
    other = make_batch([(0, labels_of(4))], [(0, T0 + 1, 1.0)], producer_id=2)
    write(log, 0, other)
    write(log, 0, record([4], []))
    node.store.wait_caught_up(10)
    assert selected(node) == {"004": {T0: ONE, T0 + 1: 1.0}}
    node.close()


@pytest.mark.parametrize(
    "rows",
    [
        [(Kind.HISTOGRAM, 0, T0 + 1, ONE), (Kind.HISTOGRAM, 0, T0 + 2, ONE[:-1])],
        [(Kind.HISTOGRAM, 0, T0 + 1, ONE), (Kind.EXEMPLAR, 1 << 31, T0, bytes(8))],
    ],
)
def test_a_record_with_a_bad_row_is_passed_over_whole(
    log: MemoryLog, tmp_path: Path, rows: list[tuple[Kind, int, int, bytes]]
) -> None:
    write(log, 0, record([0], [(0, T0, 1.5)]))
    write(log, 0, record([1], [(0, T0 + 5, 2.5)], *rows))
    write(log, 0, record([], [(0, T0 + 6, 3.5)]))
    node = started(log, tmp_path)
    assert selected(node) == {"000": {T0: 1.5, T0 + 6: 3.5}}
    assert node.views.shards[0].state.outcomes.quarantined_records == 1
    node.close()
