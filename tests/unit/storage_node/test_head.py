"""Reads of the head: which part of it they look at, and that they find all there is."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from storage_node import head as storage_head
from storage_node.head import BLOCK_SAMPLES, HeadReader, SampleBuffer

N_SERIES = 200
NONE = np.uint32(0xFFFFFFFF)


class Head:
    """A head with its tails, as a partition keeps them."""

    def __init__(self) -> None:
        self.buffer = SampleBuffer()
        self.tails = np.full(N_SERIES, NONE, dtype=np.uint32)

    def add(self, snos: NDArray[np.int64], times: NDArray[np.int64]) -> None:
        self.buffer.reserve(len(snos))
        for sno, time in zip(snos.tolist(), times.tolist(), strict=True):
            at = self.buffer.size
            self.buffer.snos[at], self.buffer.timestamps[at] = sno, time
            self.buffer.value_bits[at], self.buffer.previous[at] = at, self.tails[sno]
            self.tails[sno] = at
            self.buffer.size += 1

    def read(self, snos: list[int], min_time: int, max_time: int) -> list[list[tuple[int, int]]]:
        """Times and value bits of each of the series, in order of arrival."""
        rows = np.full(N_SERIES, -1, dtype=np.int32)
        rows[snos] = np.arange(len(snos), dtype=np.int32)
        reader = HeadReader(self.buffer.view(), self.tails[snos], N_SERIES, min_time, max_time)
        counts = reader.count(rows, 0)
        starts = np.cumsum(counts) - counts
        times, bits = np.zeros(counts.sum(), dtype=np.int64), np.zeros(counts.sum(), dtype=np.uint64)
        reader.collect(rows, 0, starts.copy(), times, bits)
        return [
            list(zip(times[a : a + n].tolist(), bits[a : a + n].tolist(), strict=True))
            for a, n in zip(starts.tolist(), counts.tolist(), strict=True)
        ]

    def expected(self, snos: list[int], min_time: int, max_time: int) -> list[list[tuple[int, int]]]:
        n = self.buffer.size
        columns = (self.buffer.snos[:n], self.buffer.timestamps[:n], self.buffer.value_bits[:n])
        every = list(zip(*(column.tolist() for column in columns), strict=True))
        return [[(t, b) for s, t, b in every if s == sno and min_time <= t <= max_time] for sno in snos]


@pytest.mark.parametrize("lateness", [0, 50, 100_000], ids=["in order", "a little late", "in no order"])
def test_a_read_finds_every_sample_of_its_range_whatever_the_order_of_arrival(lateness: int) -> None:
    random = np.random.default_rng(lateness)
    head = Head()
    now = 0
    for _ in range(6):
        # Blocks are summed up at some reads and not at others, in the midst of a block and at its end.
        n = int(random.integers(1, BLOCK_SAMPLES * 2))
        times = now + np.arange(n) // 4 - random.integers(0, lateness + 1, n)
        now += n // 4
        head.add(random.integers(0, N_SERIES, n), times)
        for snos in ([3, 150], list(range(0, N_SERIES, 2))):
            for low, high in (
                (now - 20, now),
                (now // 2, now // 2 + 9),
                (-5, 3),
                (now + 1, now + 9),
                (-200_000, now),
            ):
                assert head.read(snos, low, high) == head.expected(snos, low, high)


def test_a_series_with_more_samples_than_most_is_found_whole() -> None:
    head = Head()
    n = 3 * storage_head._SAMPLES_FOUND
    head.add(np.where(np.arange(n) % 10 < 9, 7, 8), np.arange(n))
    assert head.read([7, 8], 5, n - 5) == head.expected([7, 8], 5, n - 5)


def test_a_read_of_the_latest_samples_looks_at_little_of_the_head() -> None:
    head = Head()
    n = 20 * BLOCK_SAMPLES + 100
    head.add(np.arange(n) % N_SERIES, np.arange(n) // N_SERIES * 15_000)
    view = head.buffer.view()
    latest = int(view.timestamps[-1])
    first, last = view.part(latest - 300_000, latest)
    assert n - first < 3 * BLOCK_SAMPLES
    assert last == n
    assert view.part(0, 15_000)[0] == 0
    assert view.part(latest + 1, latest + 2) == (20 * BLOCK_SAMPLES, n)
