"""The batcher without threads: what groups declare, and when that counts."""

from __future__ import annotations

import numpy as np

from common.labels import canonical_labels
from common.record import decode_record
from ingest.batcher import Batcher, Group

HOUR_MS = 3_600_000


def put(batcher: Batcher, *numbers: int) -> None:
    """A sample for each of these series."""
    keys = np.array([[number, number] for number in numbers], dtype=np.uint64)
    slots, _ = batcher.table.add(keys, [canonical_labels({"__name__": f"m{number}"}) for number in numbers])
    assert (slots >= 0).all()
    here = slice(batcher.n_samples, batcher.n_samples + len(slots))
    batcher.slots[here], batcher.timestamps[here], batcher.values[here] = slots, 0, 0
    batcher.n_samples += len(slots)


def n_declared(group: Group) -> int:
    return sum(len(decode_record(record.value).declared_refs) for record in group.records)


def test_an_acknowledgement_speaks_of_the_table_that_its_group_was_made_with() -> None:
    batcher = Batcher(2, 10, HOUR_MS, HOUR_MS)
    put(batcher, *range(10))
    batcher.acknowledged(batcher.seal(0))
    for now_ms in (HOUR_MS, 2 * HOUR_MS):
        put(batcher, 0, 1)
        under_way = batcher.seal(now_ms)
    old = batcher.table
    batcher.begin(2 * HOUR_MS + 60_000)
    assert batcher.table is not old
    assert batcher.table.n_slots == 2
    batcher.acknowledged(under_way)
    put(batcher, 0, 1, 20)
    assert n_declared(batcher.seal(2 * HOUR_MS + 60_000)) == 3


def test_a_full_table_of_live_series_is_left_as_it_is() -> None:
    batcher = Batcher(2, 10, HOUR_MS, HOUR_MS)
    for minute in range(90):
        put(batcher, *range(10))
        batcher.acknowledged(batcher.seal(minute * 60_000))
    old = batcher.table
    batcher.begin(90 * 60_000)
    assert batcher.table is old


def test_columns_grow_with_what_they_hold() -> None:
    batcher = Batcher(2, 10, HOUR_MS, None)
    put(batcher, 1, 2, 3)
    batcher.reserve(1_000_000)
    batcher.slots[3:1_000_003], batcher.timestamps[3:1_000_003] = 1, np.arange(1_000_000)
    batcher.values[3:1_000_003] = 0
    batcher.n_samples = 1_000_003
    group = batcher.seal(0)
    assert sum(len(decode_record(record.value).refs) for record in group.records) == 1_000_003
