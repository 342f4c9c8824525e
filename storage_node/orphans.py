"""Orphans: series of which samples came before any declaration, because the log's start was cut off."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.record import RecordBatch
from common.store import MAX_TIME_MS, MIN_TIME_MS
from storage_node.attachments import with_series
from storage_node.late import new_among
from storage_node.producers import NONE, Producer
from storage_node.reading import PartitionRead, read_rows

if TYPE_CHECKING:
    from storage_node.partition import PartitionState

Samples: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]
"""Offsets of the rows, timestamps, value bits."""


def adopt_declared(
    state: PartitionState, producer: Producer, batch: RecordBatch, rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Give the orphans among the declarations `rows` their identity; return the other rows.

    An orphan whose id is new becomes that series. If the id has a series already, the orphan's samples move there,
    as if they came late.

    Raises:
        CorruptError: a label set is not canonical; nothing has changed.
    """
    bound = producer.lookup(batch.declared_refs[rows])
    mine = bound != NONE
    mine[mine] = state.series.is_orphan.view()[bound[mine]]
    adopted: dict[bytes, tuple[int, int]] = {}
    moved: list[tuple[int, int]] = []
    for row, sno in zip(rows[mine].tolist(), bound[mine].tolist(), strict=True):
        series_id = batch.declared_ids[row].tobytes()
        if series_id in adopted or state.index.find(series_id) is not None:
            moved.append((row, sno))
        else:
            adopted[series_id] = row, sno
    if adopted:
        _adopt(state, producer, batch, list(adopted.values()))
    if moved:
        _move(state, producer, batch, moved)
    others: NDArray[np.int64] = rows[~mine]
    return others


def _adopt(state: PartitionState, producer: Producer, batch: RecordBatch, pairs: list[tuple[int, int]]) -> None:
    rows = np.array([row for row, _ in pairs], dtype=np.int64)
    snos = np.array([sno for _, sno in pairs], dtype=np.uint32)
    # All that can fail comes before all that changes the state.
    samples = _samples(state, snos)
    state.index.adopt_many(snos, batch.declared_ids[rows], *label_sets(batch, rows))
    _count(state, snos, samples, sign=-1)
    for row, ref in zip(rows.tolist(), batch.declared_refs[rows].tolist(), strict=True):
        state.series.forget_orphan(producer.id, ref, batch.declared_ids[row])
    _count(state, snos, samples, sign=1)


def _move(state: PartitionState, producer: Producer, batch: RecordBatch, pairs: list[tuple[int, int]]) -> None:
    rows = np.array([row for row, _ in pairs], dtype=np.int64)
    snos = np.array([sno for _, sno in pairs], dtype=np.uint32)
    samples = offsets, timestamps, value_bits = _samples(state, snos)
    found = [state.index.find(batch.declared_ids[row].tobytes()) for row in rows.tolist()]
    targets = np.array(found, dtype=np.uint32)
    moved_to = np.repeat(targets, np.diff(offsets))
    attached = state.attached.of_series(snos, len(state.series))
    is_new = new_among(state, moved_to, timestamps)
    _count(state, snos, samples, sign=-1)
    for ref in batch.declared_refs[rows].tolist():
        state.series.forget_orphan(producer.id, ref, None)
    producer.bind(batch.declared_refs[rows], targets)
    if attached is not None:
        order = np.argsort(snos)
        to = targets[order[np.searchsorted(snos, attached.snos, sorter=order)]]
        state.attached.add(with_series(attached, to), state.horizon_ms)
    state.append_settled(moved_to[is_new], timestamps[is_new], value_bits[is_new])
    state.outcomes.moved_twice += int((~is_new).sum())


def _samples(state: PartitionState, snos: NDArray[np.uint32]) -> Samples:
    """All samples of some series."""
    plan = state.plan(snos, MIN_TIME_MS, MAX_TIME_MS)
    return read_rows([PartitionRead(plan, state.segments)], len(snos))


def _count(state: PartitionState, snos: NDArray[np.uint32], samples: Samples, sign: int) -> None:
    """Count samples of some series into their windows, or out of them."""
    state.count_in(*state.digests(snos, *samples), sign=sign)


def label_sets(batch: RecordBatch, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Offsets and bytes of some of a record's label sets."""
    starts, ends = batch.label_offsets[rows], batch.label_offsets[rows + 1]
    offsets = np.concatenate(([0], np.cumsum(ends - starts))).astype(np.int64)
    positions = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], ends - starts)
    return offsets, batch.label_bytes[positions]
