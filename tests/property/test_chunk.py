"""Chunks against the slow reading of their format, with floats and times of the nastiest kind."""

from __future__ import annotations

import struct
from itertools import pairwise
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.errors import CorruptError
from storage_node.blocks import block_rows, count_samples, decode_samples, encode_blocks, finish_rows
from tests.oracles import chunk as oracle

Row = list[oracle.Sample]
INT64 = st.integers(-(2**63), 2**63 - 1)
NASTY = [0, 1 << 63, oracle.STALE_BITS, 0x7FF8000000000001, 0xFFF0000000000000, 0x7FF0000000000000, 1, 2**64 - 1]


def bits_of(value: float) -> int:
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])


def distinct_times(n: int) -> st.SearchStrategy[list[int]]:
    wild = st.lists(INT64, min_size=n, max_size=n, unique=True).map(sorted)
    steps = st.lists(st.integers(1, 40) | st.sampled_from([15000, 15001, 10**7]), min_size=n, max_size=n)
    jittered = st.builds(lambda t, ds: [t + sum(ds[: i + 1]) for i in range(n)], st.integers(0, 2**41), steps)
    regular = st.builds(
        lambda t, d: [t + d * i for i in range(n)], st.integers(0, 2**41), st.sampled_from([1, 5000, 15000])
    )
    return st.one_of(regular, jittered, wild)


def value_bits(n: int) -> st.SearchStrategy[list[int]]:
    any_bits = st.integers(0, 2**64 - 1) | st.sampled_from(NASTY)
    decimals = st.builds(
        lambda digits, k: [bits_of(d / 10**k) for d in digits],
        st.lists(st.integers(-1000, 1000) | st.integers(-(2**53), 2**53), min_size=n, max_size=n),
        st.integers(0, 16),
    )
    counter = st.builds(
        lambda steps, k: [bits_of(sum(steps[: i + 1]) / 10**k) for i in range(n)],
        st.lists(st.sampled_from([0, 0, 0, 7, 14, 21, 7000]), min_size=n, max_size=n),
        st.integers(0, 3),
    )
    mixed = st.builds(
        lambda base, other, where: [o if w == 0 else b for b, o, w in zip(base, other, where, strict=True)],
        decimals | counter,
        st.lists(any_bits, min_size=n, max_size=n),
        st.lists(st.integers(0, 12), min_size=n, max_size=n),
    )
    return st.one_of(
        counter,
        decimals,
        mixed,
        st.lists(any_bits, min_size=n, max_size=n),
        any_bits.map(lambda b: [b] * n),
        st.lists(st.floats(width=32).map(bits_of), min_size=n, max_size=n),
    )


def row_of(n: int) -> st.SearchStrategy[Row]:
    return st.builds(lambda t, v: list(zip(t, v, strict=True)), distinct_times(n), value_bits(n))


rows_of_series = st.lists(st.sampled_from([1, 2, 3, 7, 8, 9, 30]).flatmap(row_of), min_size=1, max_size=6)


def columns(rows: list[Row]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
    offsets = np.cumsum([0] + [len(row) for row in rows], dtype=np.int64)
    times = np.array([time for row in rows for time, _ in row], np.int64)
    bits = np.array([bits for row in rows for _, bits in row], np.uint64)
    return offsets, times, bits


def encode(rows: list[Row], snos: list[int], target: int = 32768) -> list[bytes]:
    encoded = encode_blocks(np.array(snos, np.uint32), *columns(rows), target)
    starts = encoded.starts.tolist()
    return [encoded.data[a:b] for a, b in pairwise(starts)]


def decode(blocks: list[bytes], n_rows: int, low: int, high: int, wanted: NDArray[np.int32]) -> list[Row]:
    counts = np.zeros(n_rows, np.int64)
    count_samples(blocks, wanted, low, high, counts)
    cursor = np.concatenate(([0], np.cumsum(counts)))[:-1].astype(np.int64)
    starts = cursor.copy()
    times, bits = np.zeros(int(counts.sum()), np.int64), np.zeros(int(counts.sum()), np.uint64)
    decode_samples(blocks, wanted, low, high, cursor, times, bits)
    return [
        list(zip(times[a:b].tolist(), bits[a:b].tolist(), strict=True))
        for a, b in zip(starts.tolist(), cursor.tolist(), strict=True)
    ]


@settings(deadline=None, max_examples=120)
@given(rows_of_series, st.permutations(range(10)), st.sampled_from([1, 100, 32768]), INT64, INT64)
def test_blocks_give_back_every_bit_as_the_slow_reading_of_the_format_does(rows, order, target, low, high):
    snos = order[: len(rows)]
    blocks = encode(rows, snos, target)
    slow = [chunk for block in blocks for chunk in oracle.decode_block(block)]
    assert [(chunk.sno, chunk.samples) for chunk in slow] == list(zip(snos, rows, strict=True))
    found = block_rows(blocks)
    assert found.sno.tolist() == snos
    assert found.n_samples.tolist() == [len(row) for row in rows]
    assert found.min_time.tolist() == [row[0][0] for row in rows]
    assert found.max_time.tolist() == [row[-1][0] for row in rows]
    wanted = np.full(10, -1, np.int32)
    wanted[snos] = range(len(rows))
    assert decode(blocks, len(rows), -(2**63), 2**63 - 1, wanted) == rows
    low, high = min(low, high), max(low, high)
    wanted[snos[0]] = -1
    expected = [[sample for sample in row if low <= sample[0] <= high] for row in rows]
    expected[0] = []
    assert decode(blocks, len(rows), low, high, wanted) == expected


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([120, 257, 258, 259, 600]), st.integers(0, 2**32))
def test_long_chunks_of_every_kind_give_back_every_bit(n, seed):
    random = Random(seed)
    kinds = [
        lambda i: bits_of(float(i // 7)),
        lambda i: bits_of(random.randrange(1000) / 100),
        lambda i: bits_of(random.gauss(0, 1)),
        lambda i: random.getrandbits(64),
        lambda i: bits_of(float(random.choice([0, 0, 0, 0, 1, -5, 10**9]))),
        lambda i: oracle.STALE_BITS if random.randrange(20) == 0 else bits_of(i * 4096.0),
        lambda i: bits_of(float(np.float32(random.random()))),
        lambda i: random.choice([0, 1 << 63]),
    ]
    regular = [10**12 + 15000 * i for i in range(n)]
    jittered = [time + random.choice([0, 0, 0, 1, -1, 5000]) for time in regular]
    wild = sorted({random.getrandbits(64) - 2**63 for _ in range(n)})
    rows = []
    for kind in kinds:
        values = [kind(i) for i in range(n)]
        rows.append(list(zip(random.choice([regular, jittered, wild]), values, strict=True)))
    rows.append([(time, bits_of(float(sum(map(bool, range(i)))))) for i, time in enumerate(regular)])
    blocks = encode(rows, list(range(len(rows))))
    assert [chunk.samples for block in blocks for chunk in oracle.decode_block(block)] == rows
    wanted = np.arange(len(rows), dtype=np.int32)
    assert decode(blocks, len(rows), -(2**63), 2**63 - 1, wanted) == rows
    low, high = sorted(random.choices(regular, k=2))
    expected = [[sample for sample in row if low <= sample[0] <= high] for row in rows]
    assert decode(blocks, len(rows), low, high, wanted) == expected


def test_a_damaged_block_is_refused_or_read_as_something_never_more():
    rows = [
        [(1000 * i, bits_of(i * 0.25)) for i in range(40)],
        [(1000 * i, bits_of(float(i * i % 31))) for i in range(40)] + [(10**6, oracle.STALE_BITS)],
        [(i * i, (i * 0x9E3779B97F4A7C15) % 2**64) for i in range(20)],
        [(1000 * i, bits_of(0.0 if i % 9 else -1e6)) for i in range(40)],
    ]
    (block,) = encode(rows, [3, 1, 2, 0])
    wanted = np.arange(4, dtype=np.int32)
    for length in range(len(block)):
        for read in (block_rows, lambda blocks: decode(blocks, 4, 0, 2**62, wanted)):
            try:
                read([block[:length]])
            except CorruptError:
                continue
            raise AssertionError(f"a block cut to {length} bytes was read")
    for bit in range(8 * len(block)):
        damaged = bytearray(block)
        damaged[bit >> 3] ^= 1 << (bit & 7)
        for low, high in ((-(2**63), 2**63 - 1), (5000, 20000)):
            try:
                block_rows([bytes(damaged)])
                decode([bytes(damaged)], 4, low, high, wanted)
            except (CorruptError, ValueError):
                continue


times = st.integers(0, 12)
sources_of_rows = st.lists(st.lists(st.lists(times, max_size=8), max_size=4), min_size=0, max_size=4)


@settings(deadline=None, max_examples=100)
@given(sources_of_rows, st.integers(0, 3))
def test_finished_rows_ascend_and_keep_the_first_of_equal_times(rows, gap):
    serial = 0
    filled: list[list[Row]] = []
    for sources in rows:
        filled.append([])
        for source in sources:
            filled[-1].append([(time, serial + i) for i, time in enumerate(source)])
            serial += len(source)
    lengths = [sum(map(len, sources)) for sources in filled]
    starts = np.cumsum([0] + [length + gap for length in lengths], dtype=np.int64)
    times_in = np.full(int(starts[-1]), -1, np.int64)
    bits_in = np.zeros(int(starts[-1]), np.uint64)
    for start, sources in zip(starts.tolist(), filled, strict=False):
        flat = [sample for source in sources for sample in source]
        times_in[start : start + len(flat)] = [time for time, _ in flat]
        bits_in[start : start + len(flat)] = [bits for _, bits in flat]
    offsets, times_out, bits_out = finish_rows(
        starts, starts[:-1] + np.array(lengths, np.int64), times_in, bits_in
    )
    assert len(times_out) == len(bits_out) == offsets[-1]
    for i, sources in enumerate(filled):
        got = slice(int(offsets[i]), int(offsets[i + 1]))
        pairs = list(zip(times_out[got].tolist(), bits_out[got].tolist(), strict=True))
        assert pairs == oracle.finish(sources)
