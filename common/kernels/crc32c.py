"""CRC-32C (Castagnoli), as RFC 3720, appendix B.4 has it; eight bytes a step with eight tables.

Source of the method: M. Kounavis and F. Berry, "Novel Table Lookup-Based Algorithms for High-Performance CRC
Generation" (2008).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.kernels.jit import kernel

_REVERSED_POLYNOMIAL = 0x82F63B78


def _tables() -> NDArray[np.uint64]:
    tables = np.zeros((8, 256), dtype=np.uint64)
    row = np.arange(256, dtype=np.uint64)
    for _ in range(8):
        row = (row >> np.uint64(1)) ^ np.where(row & np.uint64(1), np.uint64(_REVERSED_POLYNOMIAL), np.uint64(0))
    for i in range(8):
        tables[i] = row
        row = tables[0][row & np.uint64(255)] ^ (row >> np.uint64(8))
    return tables


_TABLES = _tables()
"""uint64 (8, 256): row i is what a byte does that i zero bytes follow."""


@kernel("uint64(uint8[::1])")
def crc32c(data):
    """The checksum of all bytes."""
    crc = np.uint64(0xFFFFFFFF)
    mask = np.uint64(255)
    at = 0
    while at + 8 <= len(data):
        sum_ = np.uint64(0)
        for i in range(8):
            byte = np.uint64(data[at + i])
            if i < 4:
                byte ^= (crc >> np.uint64(8 * i)) & mask
            sum_ ^= _TABLES[7 - i, byte]
        crc = sum_
        at += 8
    while at < len(data):
        crc = _TABLES[0, (crc ^ np.uint64(data[at])) & mask] ^ (crc >> np.uint64(8))
        at += 1
    return crc ^ np.uint64(0xFFFFFFFF)
