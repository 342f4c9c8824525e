"""The table of series, and its kernels against plain Python."""

from __future__ import annotations

import numpy as np
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from common.hashing import partitions_of
from common.kernels.series_table import hash_bytes, split_by_partition
from common.labels import canonical_labels, series_id
from ingest.series import NEVER_MS, SeriesTable


def key(i: int) -> bytes:
    return xxhash.xxh3_128_digest(str(i).encode())


def add(table: SeriesTable, numbers: list[int]) -> tuple[list[int], int]:
    keys = np.frombuffer(b"".join(map(key, numbers)), dtype=np.uint64).reshape(-1, 2).copy()
    slots, n_added = table.add(keys, [labels(i) for i in numbers])
    return slots.tolist(), n_added


def labels(i: int) -> bytes:
    return canonical_labels({"__name__": "m", "i": str(i)})


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(0, 40), max_size=20), max_size=6), st.integers(1, 40))
def test_a_table_behaves_like_a_dict_that_stops_growing(calls, max_series):
    table = SeriesTable(3, max_series)
    model: dict[int, int] = {}
    for numbers in calls:
        before = len(model)
        want = []
        for number in numbers:
            if number not in model and len(model) < max_series:
                model[number] = len(model)
            want.append(model.get(number, -1))
        assert add(table, numbers) == (want, len(model) - before)
    check(table, list(model))


def check(table: SeriesTable, numbers: list[int]) -> None:
    """The columns say what they should of the series with these numbers, in order of their slots."""
    n = len(numbers)
    assert table.n_slots == n
    slots = np.arange(n, dtype=np.int32)
    assert table.label_sets(slots) == [labels(i) for i in numbers]
    assert table.ids[:n].tobytes() == b"".join(series_id(labels(i)) for i in numbers)
    partitions = partitions_of(table.ids[:n].copy(), table.n_partitions)
    assert np.array_equal(table.partitions[:n], partitions)
    for partition in range(table.n_partitions):
        refs = table.refs[:n][partitions == partition]
        assert refs.tolist() == list(range(len(refs)))


def test_a_table_keeps_its_series_as_it_grows():
    table = SeriesTable(5, 100_000)
    numbers = list(range(30_000))
    for start in range(0, 30_000, 7_000):
        add(table, numbers[start : start + 7_000])
    check(table, numbers)
    assert add(table, [29_999, 0, 12_345]) == ([29_999, 0, 12_345], 0)


def test_a_kept_part_has_numbers_and_declarations_of_its_own():
    table = SeriesTable(5, 100)
    add(table, list(range(50)))
    table.declared(np.arange(50, dtype=np.int32), 1000, 1000)
    kept = table.keep(np.arange(10, 40, 3, dtype=np.int32))
    check(kept, list(range(10, 40, 3)))
    assert kept.producer_id != table.producer_id
    assert (kept.due_ms[: kept.n_slots] == NEVER_MS).all()
    assert add(kept, [13, 11]) == ([1, 10], 1)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_samples_are_split_as_a_stable_sort_splits_them(data):
    n_slots, n_partitions, now_ms, latest_ms = 6, data.draw(st.integers(1, 4)), 100, 160
    slots = np.array(data.draw(st.lists(st.integers(0, n_slots - 1), max_size=30)), dtype=np.int32)
    partitions = np.array([i * 7 % n_partitions for i in range(n_slots)], dtype=np.int32)
    refs = np.arange(100, 100 + n_slots, dtype=np.uint32)
    due = np.array([NEVER_MS, 99, 100, 101, 160, 161], dtype=np.int64)
    seen = np.array([0, 3, 4, 0, 1, 2], dtype=np.int64)
    n = len(slots)
    times, values = np.arange(n, dtype=np.int64), np.arange(n, dtype=np.uint64) * np.uint64(3)
    out = np.empty(n, np.uint32), np.empty(n, np.int64), np.empty(n, np.uint64)
    offsets, declared_offsets = np.empty(n_partitions + 1, np.int64), np.empty(n_partitions + 1, np.int64)
    declared = np.empty(n, np.int32)
    group = np.array([5, now_ms, latest_ms], dtype=np.int64)
    n_declared = split_by_partition(
        slots, times, values, partitions, refs, due, seen, group, *out, offsets, declared, declared_offsets
    )
    order = np.argsort(partitions[slots], kind="stable")
    for column, want in zip(out, (refs[slots], times, values), strict=True):
        assert np.array_equal(column, want[order])
    assert offsets.tolist() == [0, *np.cumsum(np.bincount(partitions[slots], minlength=n_partitions))]
    first_seen = list(dict.fromkeys(slots.tolist()))
    want_declared = [
        [s for s in first_seen if partitions[s] == p and s in (0, 1, 2, 5)] for p in range(n_partitions)
    ]
    assert n_declared == sum(map(len, want_declared)) == declared_offsets[-1]
    for p in range(n_partitions):
        assert declared[declared_offsets[p] : declared_offsets[p + 1]].tolist() == want_declared[p]
    assert all(seen[s] == (5 if s in first_seen else [0, 3, 4, 0, 1, 2][s]) for s in range(n_slots))


def plain_hash(data: bytes, hash_key: list[list[int]]) -> tuple[int, int]:
    """NH with whole numbers (UMAC, section 4), the length as last word, and the one-to-one mixing."""
    words = [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]
    # The key has a place for a part of a word even where there is none.
    places = [*range(len(words)), len(data) // 8 + 1]
    out = []
    for keys in hash_key:
        total = 0
        for word, place in zip([*words, len(data)], places, strict=True):
            low = (word + keys[place]) % 2**32
            high = ((word >> 32) + (keys[place] >> 32)) % 2**32
            total += low * high
        total %= 2**64
        for shift in (32, 29):
            total = (total ^ total >> shift) * 0x9E3779B97F4A7C15 % 2**64
        out.append(total ^ total >> 32)
    return out[0], out[1]


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=40), st.integers(0, 9), st.integers(0, 3))
def test_the_hash_is_that_of_whole_numbers_wherever_the_bytes_lie(data, start, n_zeros):
    key = np.random.default_rng(5).integers(0, 1 << 64, (2, 10), dtype=np.uint64, endpoint=False)
    buffer = np.full(80, 0xA5, dtype=np.uint8)
    texts = {data + bytes(n) for n in range(n_zeros + 1)}
    hashes = set()
    for text in texts:
        buffer[start : start + len(text)] = np.frombuffer(text, dtype=np.uint8)
        with np.errstate(over="ignore"):
            first, second = hash_bytes(buffer.view(np.uint64), key, start, len(text), 0)
        assert (int(first), int(second)) == plain_hash(text, key.tolist())
        hashes.add((int(first), int(second)))
    assert len(hashes) == len(texts)
