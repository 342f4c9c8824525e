"""The partition of a series."""

from __future__ import annotations

import numpy as np

from common.hashing import partitions_of


def jump_hash_oracle(key: int, buckets: int) -> int:
    """Figure 1 of arXiv:1406.2294."""
    bucket, jump = -1, 0
    while jump < buckets:
        bucket = jump
        key = (key * 2862933555777941757 + 1) % (1 << 64)
        jump = int((bucket + 1) * ((1 << 31) / ((key >> 33) + 1)))
    return bucket


def ids(count: int, seed: int = 1) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (count, 16), dtype=np.uint8)


def test_the_first_eight_bytes_little_endian_decide() -> None:
    sample = ids(2000)
    for n_partitions in (1, 2, 16, 1000):
        expected = [jump_hash_oracle(int.from_bytes(row[:8].tobytes(), "little"), n_partitions) for row in sample]
        found = partitions_of(sample, n_partitions)
        assert found.dtype == np.int32
        assert found.tolist() == expected


def test_frozen_partitions_stay_what_they_are() -> None:
    rows = np.arange(5 * 16, dtype=np.uint8).reshape(5, 16)
    frozen = [jump_hash_oracle(int.from_bytes(bytes(range(16 * i, 16 * i + 8)), "little"), 16) for i in range(5)]
    assert partitions_of(rows, 16).tolist() == frozen == [11, 8, 12, 11, 14]


def test_one_more_partition_moves_only_its_share() -> None:
    sample = ids(20_000)
    before, after = partitions_of(sample, 16), partitions_of(sample, 17)
    moved = before != after
    assert (after[moved] == 16).all()
    assert abs(moved.mean() - 1 / 17) < 0.01


def test_read_only_and_empty_columns_are_taken() -> None:
    one = np.frombuffer(bytes(16), dtype=np.uint8).reshape(1, 16)
    assert partitions_of(one, 8).shape == (1,)
    assert partitions_of(np.empty((0, 16), dtype=np.uint8), 8).shape == (0,)
