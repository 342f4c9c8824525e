"""STUB, not committed."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def assign(n_partitions: int, n_replicas: int, ordinals: Sequence[int]) -> NDArray[np.int32]:
    out = np.full((n_partitions, n_replicas), -1, dtype=np.int32)
    for p in range(n_partitions):
        best = sorted(ordinals, key=lambda o: zlib.crc32(f"{o}:{p}".encode()))[:n_replicas]
        out[p, : len(best)] = best
    return out
