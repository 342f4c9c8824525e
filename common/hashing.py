"""Which partition a series belongs to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.kernels.hashing import jump_hash


def partitions_of(ids: NDArray[np.uint8], n_partitions: int) -> NDArray[np.int32]:
    """Partition of each series: the jump hash of the first eight bytes, little-endian, of its id.

    ids: uint8 (n, 16). Returns int32 (n,), each in [0, n_partitions). When the number of buckets grows from n to
    n + 1, a key either stays or moves to the new one. Source: Lamping and Veach, arXiv:1406.2294, figure 1.
    """
    assert ids.ndim == 2
    assert ids.shape[1] == 16
    assert n_partitions >= 1
    keys = np.ascontiguousarray(ids[:, :8]).view("<u8").ravel()
    out = np.empty(len(keys), dtype=np.int32)
    jump_hash(keys, n_partitions, out)
    return out
