"""Blocks of chunks: sizes, ranges, sharing, refusals, the frozen bytes of version 1, bounds and plain Python."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from common.errors import CorruptError
from storage_node.blocks import (
    MAX_CHUNK_SAMPLES,
    EncodedBlocks,
    block_rows,
    count_samples,
    decode_samples,
    encode_blocks,
    finish_rows,
)
from tests.oracles import chunk as oracle

GOLDEN = Path(__file__).parents[2] / "golden" / "chunk-v1"
ALL = (-(2**63), 2**63 - 1)
START = 1_700_000_000_000


def encode(times: NDArray[np.int64], values: NDArray[np.float64], target: int = 32768) -> EncodedBlocks:
    """Rows of equal length: times and values are (n_rows, n_samples); the row's index is the sno."""
    n_rows, n_samples = values.shape
    offsets = np.arange(n_rows + 1, dtype=np.int64) * n_samples
    bits = np.ascontiguousarray(values).ravel().view(np.uint64)
    return encode_blocks(np.arange(n_rows, dtype=np.uint32), offsets, times.ravel(), bits, target)


def split(encoded: EncodedBlocks) -> list[bytes]:
    return [encoded.data[a:b] for a, b in pairwise(encoded.starts.tolist())]


def decode(
    blocks: list[bytes], wanted: NDArray[np.int32], low: int, high: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
    n_rows = int(wanted.max(initial=-1)) + 1
    counts = np.zeros(n_rows, np.int64)
    count_samples(blocks, wanted, low, high, counts)
    starts = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    cursor, total = starts[:-1].copy(), int(starts[-1])
    times, bits = np.empty(total, np.int64), np.empty(total, np.uint64)
    decode_samples(blocks, wanted, low, high, cursor, times, bits)
    return finish_rows(starts, cursor, times, bits)


def grid(n_rows: int, n_samples: int, step: int = 15000) -> NDArray[np.int64]:
    return np.tile(START + step * np.arange(n_samples, dtype=np.int64), (n_rows, 1))


def test_blocks_are_cut_at_the_target_and_their_ranges_say_what_is_in_them():
    random = np.random.default_rng(3)
    times = grid(500, 100) + 1000 * np.arange(500, dtype=np.int64)[:, None]
    encoded = encode(times, random.normal(size=(500, 100)), target=5000)
    blocks = split(encoded)
    assert len(blocks) > 50
    assert encoded.starts[0] == 0
    assert encoded.starts[-1] == len(encoded.data)
    assert encoded.first_rows[0] == 0
    assert encoded.first_rows[-1] == 500
    # A chunk is not divided, so a block may be larger by one.
    assert max(map(len, blocks)) < 5000 + 8 * 100 + 300
    for i, block in enumerate(blocks):
        rows = slice(int(encoded.first_rows[i]), int(encoded.first_rows[i + 1]))
        assert block_rows([block]).sno.tolist() == list(range(500))[rows]
        assert encoded.min_times[i] == times[rows].min()
        assert encoded.max_times[i] == times[rows].max()


def test_no_rows_make_no_blocks():
    none = np.empty(0, np.int64)
    encoded = encode_blocks(np.empty(0, np.uint32), np.zeros(1, np.int64), none, none.view(np.uint64))
    assert encoded.data == b""
    assert encoded.starts.tolist() == encoded.first_rows.tolist() == [0]
    assert len(block_rows([]).sno) == 0
    offsets, times, _ = decode([], np.full(3, -1, np.int32), *ALL)
    assert offsets.tolist() == [0]
    assert len(times) == 0


def test_a_row_longer_than_a_chunk_becomes_several_chunks_of_one_block():
    n = 2 * MAX_CHUNK_SAMPLES + 5
    values = np.arange(n, dtype=np.float64)[None, :]
    blocks = split(encode(grid(1, n, 10), values, target=100))
    assert len(blocks) == 1
    rows = block_rows(blocks)
    assert rows.sno.tolist() == [0, 0, 0]
    assert rows.n_samples.tolist() == [MAX_CHUNK_SAMPLES, MAX_CHUNK_SAMPLES, 5]
    offsets, times, bits = decode(blocks, np.zeros(1, np.int32), START + 10, START + 10 * (n - 2))
    assert offsets.tolist() == [0, n - 2]
    assert np.array_equal(times, grid(1, n, 10)[0, 1:-1])
    assert np.array_equal(bits.view(np.float64), values[0, 1:-1])


def test_a_block_of_small_chunks_has_few_enough_to_be_looked_through():
    encoded = encode(grid(10_000, 1), np.zeros((10_000, 1)), target=1 << 20)
    assert np.diff(encoded.first_rows).max() == 512
    assert block_rows(split(encoded)).sno.tolist() == list(range(10_000))


def test_series_scraped_together_share_their_timestamps():
    random = np.random.default_rng(5)
    jitter = random.integers(0, 5000, 120)
    shared = encode(grid(200, 120) + jitter, np.zeros((200, 120)))
    alone = encode(grid(1, 120) + jitter, np.zeros((1, 120)))
    assert len(shared.data) < len(alone.data) + 200 * 4
    # And so do targets scraped with the same rhythm at different moments.
    shifted = encode(grid(200, 120) + jitter + np.arange(200)[:, None], np.zeros((200, 120)))
    assert len(shifted.data) < len(alone.data) + 200 * 5


@pytest.mark.parametrize(
    ("n_rows", "n_samples", "unit", "most_bytes"), [(500, 1440, 100.0, 1.3), (4000, 8, 1.0, 2.1)]
)
def test_counters_take_little_more_than_their_entropy(n_rows, n_samples, unit, most_bytes):
    random = np.random.default_rng(7)
    counters = np.cumsum(random.integers(0, 1000, (n_rows, n_samples)), axis=1) / unit
    encoded = encode(grid(n_rows, n_samples), counters)
    assert len(encoded.data) / counters.size <= most_bytes


def test_a_stale_marker_at_the_end_costs_a_few_bytes_not_the_mode():
    counters = np.cumsum(np.random.default_rng(9).integers(0, 1000, (300, 120)), axis=1) / 100.0
    stale = counters.copy()
    stale.view(np.uint64)[:, -1] = oracle.STALE_BITS
    assert len(encode(grid(300, 120), stale).data) <= len(encode(grid(300, 120), counters).data) + 300 * 12


def test_one_reset_or_dip_does_not_widen_a_whole_chunk():
    steady = np.cumsum(np.random.default_rng(11).integers(0, 16, (300, 120)), axis=1).astype(np.float64)
    reset = steady.copy()
    reset[:, 60:] -= reset[:, 60:61]
    assert len(encode(grid(300, 120), reset + 1e6).data) <= len(encode(grid(300, 120), steady).data) + 300 * 8


def test_equal_steps_that_together_go_around_2_to_the_64_are_kept():
    step = 3 * 2**61
    times = np.array([[-(2**63) + i * step for i in range(3)]])
    values = np.array([[0.0, 1.0, 2.0]])
    _, decoded, bits = decode(split(encode(times, values)), np.zeros(1, np.int32), *ALL)
    assert decoded.tolist() == times[0].tolist()
    assert bits.view(np.float64).tolist() == [0.0, 1.0, 2.0]


def test_the_same_rows_make_the_same_bytes():
    values = np.random.default_rng(13).normal(size=(50, 200)).round(3)
    assert encode(grid(50, 200), values).data == encode(grid(50, 200), values.copy()).data


def test_chunks_outside_the_range_are_neither_counted_nor_decoded():
    early, late = encode(grid(1, 10), np.ones((1, 10))), encode(grid(1, 10) + 10**6, np.ones((1, 10)))
    blocks = split(early) + split(late)
    counts = np.zeros(1, np.int64)
    count_samples(blocks, np.zeros(1, np.int32), START + 140_000, START + 10**6 - 1, counts)
    assert counts.tolist() == [0]
    count_samples(blocks, np.zeros(1, np.int32), START + 135_000, START + 10**6 - 1, counts)
    assert counts.tolist() == [10]
    # The payload of a chunk that is not wanted is not looked at.
    blocks[0] = blocks[0][:-1] + b"\xff"
    offsets, times, _ = decode(blocks, np.zeros(1, np.int32), START + 140_000, START + 10**6)
    assert offsets.tolist() == [0, 1]
    assert times.tolist() == [START + 10**6]


def test_sources_overlap_and_the_first_wins():
    first, second = encode(grid(1, 10), np.ones((1, 10))), encode(grid(1, 20) - 75_000, np.zeros((1, 20)))
    offsets, times, bits = decode(split(first) + split(second), np.zeros(1, np.int32), *ALL)
    assert offsets.tolist() == [0, 20]
    assert np.array_equal(times, grid(1, 20)[0] - 75_000)
    assert bits.view(np.float64).tolist() == [0.0] * 5 + [1.0] * 10 + [0.0] * 5


@pytest.mark.parametrize("n_runs", [1, 2, 3, 40, 200])
def test_rows_of_any_number_of_runs_are_put_in_order_and_of_equal_times_the_first_stays(n_runs):
    random = np.random.default_rng(n_runs)
    runs = [np.sort(random.integers(0, 500, random.integers(1, 30))) for _ in range(n_runs)]
    times = np.concatenate([*runs, np.arange(5), *runs]).astype(np.int64)
    cut = sum(map(len, runs)) + 5
    starts, bits = np.array([0, cut, len(times)]), np.arange(len(times), dtype=np.uint64)
    offsets, found_times, found_bits = finish_rows(starts, starts[1:].copy(), times.copy(), bits.copy())
    expected = []
    for first, last in pairwise(starts.tolist()):
        row: dict[int, int] = {}
        for i in range(first, last):
            row.setdefault(int(times[i]), i)
        expected.append(sorted(row.items()))
    assert offsets.tolist() == [0, len(expected[0]), len(expected[0]) + len(expected[1])]
    assert list(zip(found_times.tolist(), found_bits.tolist(), strict=True)) == expected[0] + expected[1]


def test_series_that_the_reader_does_not_know_are_passed_over():
    blocks = split(encode(grid(5, 4), np.ones((5, 4))))
    offsets, _, _ = decode(blocks, np.array([-1, 0], np.int32), *ALL)
    assert offsets.tolist() == [0, 4]


@pytest.mark.parametrize(
    ("offsets", "n_times"), [([0, 1, 1], 1), ([0, 2], 2), ([0, 1, 3], 2), ([-1, 1, 2], 2), ([0, 2, 1], 2)]
)
def test_rows_that_are_no_rows_are_refused(offsets, n_times):
    with pytest.raises(ValueError, match=r"offsets|row"):
        encode_blocks(
            np.arange(2, dtype=np.uint32),
            np.array(offsets, np.int64),
            np.arange(n_times, dtype=np.int64),
            np.zeros(n_times, np.uint64),
        )


def test_an_output_that_is_too_small_is_refused():
    blocks = split(encode(grid(1, 4), np.ones((1, 4))))
    for room, cursor in ((3, 0), (4, 1), (4, -1)):
        with pytest.raises(ValueError, match="room"):
            decode_samples(
                blocks,
                np.zeros(1, np.int32),
                *ALL,
                np.array([cursor], np.int64),
                np.empty(room, np.int64),
                np.empty(room, np.uint64),
            )
    with pytest.raises(ValueError, match="cursor"):
        finish_rows(np.array([0, 2]), np.array([3]), np.zeros(3, np.int64), np.zeros(3, np.uint64))


def test_an_unknown_version_is_corrupt():
    (block,) = split(encode(grid(1, 4), np.ones((1, 4))))
    with pytest.raises(CorruptError):
        block_rows([b"\x02" + block[1:]])
    with pytest.raises(CorruptError):
        block_rows([block, b""])


def golden_samples() -> list[tuple[int, list[oracle.Sample]]]:
    rows: dict[int, list[oracle.Sample]] = {}
    for line in (GOLDEN / "samples.txt").read_text().splitlines():
        sno, time, bits = line.split()
        rows.setdefault(int(sno), []).append((int(time), int(bits, 16)))
    return list(rows.items())


def test_the_frozen_block_of_version_1_is_still_read():
    block = bytes.fromhex((GOLDEN / "block.hex").read_text())
    expected = golden_samples()
    assert block_rows([block]).sno.tolist() == [sno for sno, _ in expected]
    wanted = np.full(1 + max(sno for sno, _ in expected), -1, np.int32)
    wanted[[sno for sno, _ in expected]] = range(len(expected))
    offsets, times, bits = decode([block], wanted, *ALL)
    for (_, samples), (low, high) in zip(expected, pairwise(offsets.tolist()), strict=True):
        assert list(zip(times[low:high].tolist(), bits[low:high].tolist(), strict=True)) == samples
    assert [(chunk.sno, chunk.samples) for chunk in oracle.decode_block(block)] == expected


_GOLDEN_BACK_AND_DAMAGED = """
import numpy as np
from tests.unit.storage_node import test_blocks as t
from common.errors import CorruptError
t.test_the_frozen_block_of_version_1_is_still_read()
t.test_sources_overlap_and_the_first_wins()
block = bytes.fromhex((t.GOLDEN / "block.hex").read_text())
rows = t.golden_samples()
offsets = np.cumsum([0] + [len(samples) for _, samples in rows])
times = np.array([time for _, samples in rows for time, _ in samples])
bits = np.array([bits for _, samples in rows for _, bits in samples], np.uint64)
encoded = t.encode_blocks(np.array([sno for sno, _ in rows], np.uint32), offsets, times, bits)
assert [c.samples for c in t.oracle.decode_block(encoded.data)] == [samples for _, samples in rows]
wanted = np.arange(16, dtype=np.int32)
for i in range(STEP // 2, len(block), STEP):
    damaged = bytearray(block)
    damaged[i] ^= 0x81
    try:
        t.decode([bytes(damaged)], wanted, 1_700_000_100_000, 1_700_000_400_000)
    except (CorruptError, ValueError):
        pass
"""


@pytest.mark.parametrize(
    ("setting", "step"),
    [({"NUMBA_DISABLE_JIT": "1"}, 97), ({"NUMBA_BOUNDSCHECK": "1"}, 3)],
    ids=["plain", "bounds"],
)
def test_the_kernels_run_as_plain_python_and_with_checked_bounds(setting, step, tmp_path):
    # The compiled code of this process has no checks: it must not be found.
    own = {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONWARNINGS": "ignore"}
    environment = {**os.environ, **setting, **own}
    code = _GOLDEN_BACK_AND_DAMAGED.replace("STEP", str(step))
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
