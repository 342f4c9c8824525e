"""What every log checks of its callers' arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from common.log.base import MAX_RECORD_BYTES, Append


def check_records(records: Sequence[Append], partitions: int) -> int:
    """Sizes of records together; raises ValueError if one is too large or its partition does not exist."""
    size = 0
    for partition, value in records:
        if not 0 <= partition < partitions:
            raise ValueError(f"partition {partition} does not exist; there are {partitions}")
        if len(value) > MAX_RECORD_BYTES:
            raise ValueError(f"a record of {len(value)} bytes exceeds the limit of {MAX_RECORD_BYTES}")
        size += len(value)
    return size


def check_positions(positions: Mapping[int, int], partitions: int) -> None:
    """Raises ValueError if a position's partition does not exist."""
    for partition in positions:
        if not 0 <= partition < partitions:
            raise ValueError(f"partition {partition} does not exist; there are {partitions}")
