"""Arrays apart from the heap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.lasting import MAPPED_BYTES, lasting_zeros


@pytest.mark.parametrize("n", [0, 1, MAPPED_BYTES // 8 - 1, MAPPED_BYTES // 8, MAPPED_BYTES])
def test_they_are_zeros_that_kernels_take_and_that_can_be_written(n: int) -> None:
    column = lasting_zeros(n, np.uint64)
    assert (column.shape, column.dtype, int(column.sum())) == ((n,), np.uint64, 0)
    assert column.flags.c_contiguous
    assert column.flags.writeable
    assert column.flags.aligned
    column[:] = 7
    assert int(column.sum()) == 7 * n


def test_their_rows_may_have_a_width() -> None:
    rows = lasting_zeros((MAPPED_BYTES, 16), np.uint8)
    rows[-1] = 255
    assert rows.shape == (MAPPED_BYTES, 16)
    assert int(rows.sum(dtype=np.int64)) == 16 * 255


def test_pages_that_nobody_touched_take_no_memory_and_all_goes_back_with_the_array() -> None:
    size_bytes = 1 << 28
    before = resident_bytes()
    column = lasting_zeros(size_bytes, np.uint8)
    column[: 1 << 20] = 1
    assert resident_bytes() - before < size_bytes // 4
    column[:] = 1
    assert resident_bytes() - before > size_bytes * 3 // 4
    del column
    assert resident_bytes() - before < size_bytes // 4


def resident_bytes() -> int:
    with Path("/proc/self/status").open() as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmRSS"))
