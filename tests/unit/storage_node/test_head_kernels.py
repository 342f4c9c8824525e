"""Kernels of the head and the digest against plain Python."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
from numpy.typing import NDArray

from common.kernels import head as kernels
from common.kernels.digest import digest_rows
from common.kernels.jit import disabled
from tests.oracles.partition import hash_sample

NONE = int(kernels.NONE)
I64, U64, U32 = np.int64, np.uint64, np.uint32


class Columns:
    """Arguments of `apply_samples` for a few series and one window."""

    def __init__(self, n_series: int, room: int = 64) -> None:
        self.min_times = np.full(n_series, np.iinfo(I64).max)
        self.max_times = np.full(n_series, np.iinfo(I64).min)
        self.tails = np.full(n_series, NONE, dtype=U32)
        self.ids = np.arange(1, 2 * n_series + 1, dtype=U64).reshape(-1, 2)
        self.head = [np.zeros(room, dtype=t) for t in (U32, I64, U64, U32)]
        self.late = [np.zeros(room, dtype=t) for t in (U32, I64, U64)]
        self.n_head = self.n_late = 0

    def apply(
        self,
        refs: list[int],
        times: list[int],
        *,
        horizon: int = -1000,
        settled: bool = False,
        window_end: int = 999,
    ) -> list[int]:
        outcomes = np.zeros(kernels.N_OUTCOMES, dtype=I64)
        self.lanes, self.counts = np.zeros((1, 2), dtype=U64), np.zeros(1, dtype=I64)
        sno_of_ref = np.array([0, 1, NONE, 2], dtype=U32)
        code = kernels.apply_samples(
            np.array(refs, dtype=U32), np.array(times, dtype=I64), np.arange(len(refs), dtype=U64), sno_of_ref,
            horizon, settled, np.array([-1000]), np.array([window_end]), self.lanes, self.counts,
            self.min_times, self.max_times, self.tails, self.ids, *self.head, self.n_head, *self.late, self.n_late,
            outcomes,
        )  # fmt: skip
        if code >= 0:
            self.n_head = code
            self.n_late += int(outcomes[kernels.PENDING])
            return outcomes.tolist()
        return [code]


def test_each_sample_is_accepted_refused_or_kept_waiting() -> None:
    columns = Columns(3)
    assert columns.apply([0, 0, 1], [10, 20, 5]) == [3, 0, 0, 0, 0]
    # At the last time, at the first, between, before the first, too old, after the last.
    assert columns.apply([0, 0, 0, 0, 0, 0], [20, 10, 15, 3, -501, 30], horizon=-500) == [1, 2, 1, 1, 1]
    assert columns.head[1][: columns.n_head].tolist() == [10, 20, 5, 3, 30]
    assert columns.head[3][: columns.n_head].tolist() == [NONE, 0, NONE, 1, 3]
    assert columns.late[1][: columns.n_late].tolist() == [15]
    assert (columns.min_times[0], columns.max_times[0], columns.tails[0]) == (3, 30, 4)
    expected = [hash_sample(columns.ids[0].tobytes(), time, bits) for time, bits in ((3, 3), (30, 5))]
    assert columns.lanes.tolist() == [[sum(lane) % 2**64 for lane in zip(*expected, strict=True)]]
    assert columns.counts.tolist() == [2]


def test_the_extreme_timestamps_are_timestamps_like_others() -> None:
    columns = Columns(3)
    low = int(np.iinfo(I64).min)
    assert columns.apply([0], [low], horizon=low) == [kernels.OTHER_WINDOW]
    columns.apply([1], [5])
    assert columns.apply([1, 1], [5, 4]) == [0, 1, 1, 0, 0]


def test_nothing_changes_when_a_ref_is_unknown_or_another_window_occurs() -> None:
    columns = Columns(3)
    for refs, times, code in (
        ([0, 2], [1, 1], kernels.UNKNOWN_REF),
        ([0, 9], [1, 1], kernels.UNKNOWN_REF),
        ([0, 0], [1, 1000], kernels.OTHER_WINDOW),
    ):
        assert columns.apply(refs, times) == [code]
        assert columns.max_times[0] == np.iinfo(I64).min
        assert columns.n_head == 0


def test_settled_samples_are_taken_without_a_question() -> None:
    columns = Columns(3)
    columns.apply([0, 0], [10, 20])
    assert columns.apply([0, 0, 2], [15, 40, 7], settled=True) == [0, 0, 3, 0, 0]
    assert columns.head[0][: columns.n_head].tolist() == [0, 0, 0, 0, 2]
    assert columns.max_times.tolist()[::2] == [40, 7]


def test_chains_and_scans_find_the_same_samples() -> None:
    random = np.random.default_rng(1)
    columns = Columns(3)
    for time in range(15):
        columns.apply([0, 3, 1], [time * 7 + int(random.integers(0, 5)), time, time])
    n = columns.n_head
    snos, times, bits, previous = (column[:n].copy() for column in columns.head)
    wanted = np.array([2, 0], dtype=U32)
    row_of_sno = np.array([1, -1, 0], dtype=np.int32)
    found = []
    for scan in (True, False):
        counts, where = np.zeros(2, dtype=I64), np.zeros(n, dtype=U64)
        nothing, out_times, out_bits = np.zeros(0, dtype=I64), np.zeros(n, dtype=I64), np.zeros(n, dtype=U64)
        if scan:
            columns_of_scan = row_of_sno, snos, times, bits, 3, 50
            kernels.collect_scan(*columns_of_scan, True, counts, nothing, out_times, out_bits)
        else:
            n_found = kernels.find_in_chains(columns.tails[wanted], previous, 0, times, 3, 50, counts, where)
            assert n_found == counts.sum()
        cursor = np.concatenate(([0], np.cumsum(counts)[:-1]))
        if scan:
            kernels.collect_scan(*columns_of_scan, False, nothing, cursor, out_times, out_bits)
        else:
            kernels.put_found(where[:n_found], times, bits, cursor, out_times, out_bits)
        found.append((counts.tolist(), out_times.tolist(), out_bits.tolist(), cursor.tolist()))
    expected = [
        (t, b) for sno in (2, 0) for s, t, b in zip(snos, times, bits, strict=True) if s == sno and 3 <= t <= 50
    ]
    assert found[0] == found[1]
    assert list(zip(found[0][1], found[0][2], strict=True))[: len(expected)] == expected


def test_chains_of_more_series_than_are_followed_at_a_time_are_found_whole() -> None:
    random = np.random.default_rng(4)
    n_series, n = 3 * kernels.LANES + 1, 400
    # One series in four has no sample.
    snos = random.integers(0, n_series, n)
    snos -= snos % 4 == 0
    times, bits = random.integers(0, 100, n), np.arange(n, dtype=U64)
    tails, previous = np.full(n_series + 1, NONE, dtype=U32), np.full(n, NONE, dtype=U32)
    for at, sno in enumerate(snos.tolist()):
        previous[at], tails[sno] = tails[sno], at
    for first in (0, 170):
        counts, found = np.zeros(n_series, dtype=I64), np.zeros(n - first, dtype=U64)
        n_found = kernels.find_in_chains(tails[:n_series], previous, first, times, 10, 80, counts, found)
        expected = [
            [at for at in range(first, n) if snos[at] == sno and 10 <= times[at] <= 80] for sno in range(n_series)
        ]
        assert counts.tolist() == [len(positions) for positions in expected]
        too_few, again = np.zeros_like(counts), found[:5].copy()
        assert kernels.find_in_chains(tails[:n_series], previous, first, times, 10, 80, too_few, again) == n_found
        assert (too_few.tolist(), again.tolist()) == (counts.tolist(), found[:5].tolist())
        out_times, out_bits = np.zeros(n_found, dtype=I64), np.zeros(n_found, dtype=U64)
        cursor = np.cumsum(counts) - counts
        kernels.put_found(found[:n_found], times, bits, cursor, out_times, out_bits)
        assert out_bits.tolist() == [at for positions in expected for at in positions]
        assert out_times.tolist() == times[out_bits.astype(I64)].tolist()
        assert cursor.tolist() == np.cumsum(counts).tolist()


def test_late_samples_are_new_once() -> None:
    random = np.random.default_rng(2)
    rows, stored = [sorted(random.integers(0, 30, 12).tolist()) for _ in range(4)], []
    for _ in range(4):
        stored.append(sorted(set(random.integers(0, 30, 9).tolist())))
    is_new = np.zeros(48, dtype=np.bool_)
    kernels.find_new(_starts(rows), _flat(rows), _starts(stored), _flat(stored), is_new)
    expected = []
    for row, known in zip(rows, stored, strict=True):
        seen = set(known)
        for time in row:
            expected.append(time not in seen)
            seen.add(time)
    assert is_new.tolist() == expected


def test_rows_are_split_at_a_time() -> None:
    rows = [[1, 5, 9], [], [6, 7], [2]]
    cursor = _starts(rows)[:-1].copy()
    offsets, times, bits = np.zeros(5, dtype=I64), np.zeros(6, dtype=I64), np.zeros(6, dtype=U64)
    arguments = _starts(rows), _flat(rows), _flat(rows).astype(U64), cursor
    assert kernels.take_until(*arguments, 5, offsets, times, bits) == 3
    assert (offsets.tolist(), times[:3].tolist()) == ([0, 2, 2, 2, 3], [1, 5, 2])
    assert kernels.take_until(*arguments, 100, offsets, times, bits) == 3
    assert (offsets.tolist(), bits[:3].tolist()) == ([0, 1, 1, 3, 3], [9, 6, 7])


def test_the_digest_is_that_of_the_oracle() -> None:
    random = np.random.default_rng(3)
    ids = random.integers(0, 1 << 63, (3, 2)).astype(U64)
    rows = [[-5, 3], [], [2**62, -(2**63)]]
    bits = random.integers(0, 1 << 63, 4).astype(U64)
    ends = np.array([-1, 100, 2**63 - 1], dtype=I64)
    lanes, counts = np.zeros((3, 2), dtype=U64), np.zeros(3, dtype=I64)
    digest_rows(ids, _starts(rows), _flat(rows), bits, ends, lanes, counts)
    expected = [[0, 0], [0, 0], [0, 0]]
    at = 0
    for row, times in enumerate(rows):
        for time in times:
            window = int(np.searchsorted(ends, time))
            for i, lane in enumerate(hash_sample(ids[row].tobytes(), time, int(bits[at]))):
                expected[window][i] = (expected[window][i] + lane) % 2**64
            at += 1
    assert lanes.tolist() == expected
    assert counts.tolist() == [2, 1, 1]


def test_the_kernels_are_plain_python_too() -> None:
    if disabled():
        return
    command = [sys.executable, "-W", "ignore:overflow", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-W", "ignore:overflow", __file__]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "NUMBA_DISABLE_JIT": "1"})
    assert done.returncode == 0, done.stdout[-3000:]


def _starts(rows: list[list[int]]) -> NDArray[np.int64]:
    return np.cumsum([0, *map(len, rows)]).astype(I64)


def _flat(rows: list[list[int]]) -> NDArray[np.int64]:
    return np.array([time for row in rows for time in row], dtype=I64)
