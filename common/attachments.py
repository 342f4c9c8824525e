"""What a record carries besides float samples: histograms, exemplars, metadata and tombstones.

Each is one row: a kind, the series (a ref or, in a storage node, a sno), a time, and bytes that only those who
know the kind look into. `docs/format/log-record.md` says how rows lie in a record, and what the bytes are.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

MAX_BYTES = 64 << 10
"""Upper limit of the bytes of one row."""
NO_REF = (1 << 32) - 1
"""The ref of a row that belongs to no series."""
_N_ROWS = struct.Struct("<I")
_ROW_BYTES = 1 + 4 + 8 + 4


class Kind(IntEnum):
    """What a row is.

    HISTOGRAM: the sample of its series at its time; see `common.histograms`.
    EXEMPLAR: of its series; its time is the exemplar's own.
    METADATA: of a metric family, no series; its time is not used.
    TOMBSTONE: of no series; its time is not used. Has a record for itself and its like.
    """

    HISTOGRAM = 1
    EXEMPLAR = 2
    METADATA = 3
    TOMBSTONE = 4


@dataclass(frozen=True, slots=True, eq=False)
class Attachments:
    """Rows, n of them, in the order in which they are applied.

    kinds: uint8 (n,), of `Kind`. refs: uint32 (n,); NO_REF for none. timestamps: int64 (n,), Unix ms.
    offsets: int64 (n + 1,) into data, the first 0. data: uint8.
    """

    kinds: NDArray[np.uint8]
    refs: NDArray[np.uint32]
    timestamps: NDArray[np.int64]
    offsets: NDArray[np.int64]
    data: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.kinds)

    def row(self, i: int) -> bytes:
        """The bytes of row i."""
        return self.data[self.offsets[i] : self.offsets[i + 1]].tobytes()

    def take(self, rows: NDArray[np.int64]) -> Attachments:
        """These rows, in this order."""
        starts, ends = self.offsets[rows], self.offsets[rows + 1]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(ends - starts, out=offsets[1:])
        places = np.arange(int(offsets[-1])) + np.repeat(starts - offsets[:-1], ends - starts)
        return Attachments(self.kinds[rows], self.refs[rows], self.timestamps[rows], offsets, self.data[places])

    @classmethod
    def of(cls, rows: Sequence[tuple[Kind, int, int, bytes]]) -> Attachments:
        """Rows given as (kind, ref, timestamp, bytes)."""
        sizes = np.array([len(row[3]) for row in rows], dtype=np.int64)
        return cls(
            np.array([row[0] for row in rows], dtype=np.uint8),
            np.array([row[1] for row in rows], dtype=np.uint32),
            np.array([row[2] for row in rows], dtype=np.int64),
            np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(sizes, dtype=np.int64))),
            np.frombuffer(bytearray().join(row[3] for row in rows), dtype=np.uint8),
        )

    @classmethod
    def joined(cls, parts: Sequence[Attachments]) -> Attachments:
        """All rows of all parts, one after another."""
        sizes = np.concatenate([np.diff(part.offsets) for part in parts])
        return cls(
            np.concatenate([part.kinds for part in parts]),
            np.concatenate([part.refs for part in parts]),
            np.concatenate([part.timestamps for part in parts]),
            np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(sizes))),
            np.concatenate([part.data for part in parts]),
        )

    def encode(self, created_ms: int) -> bytes:
        """The section of a record's payload (`docs/format/log-record.md`, 'Attachments')."""
        refs = np.diff(self.refs.astype("<u4"), prepend=np.uint32(0))
        times = np.diff(self.timestamps.astype("<i8"), prepend=np.int64(created_ms))
        sizes = np.diff(self.offsets).astype("<u4")
        columns = (self.kinds, refs, times, sizes, self.data)
        return _N_ROWS.pack(len(self)) + b"".join(column.tobytes() for column in columns)

    @classmethod
    def decode(cls, section: bytes | memoryview, created_ms: int) -> Attachments:
        """Rows of such a section.

        Raises:
            ValueError: it is not one; says why.
        """
        n = _N_ROWS.unpack_from(section)[0] if len(section) >= _N_ROWS.size else -1
        at = _N_ROWS.size
        if n < 0 or at + _ROW_BYTES * n > len(section):
            raise ValueError("the attachments are too short for their number")
        kinds = np.frombuffer(section, dtype=np.uint8, count=n, offset=at)
        refs = np.frombuffer(section, dtype="<u4", count=n, offset=at + n)
        times = np.frombuffer(section, dtype="<i8", count=n, offset=at + 5 * n)
        sizes = np.frombuffer(section, dtype="<u4", count=n, offset=at + 13 * n)
        offsets = np.zeros(n + 1, dtype=np.int64)
        np.cumsum(sizes, out=offsets[1:], dtype=np.int64)
        if at + _ROW_BYTES * n + int(offsets[-1]) != len(section):
            raise ValueError("the attachments' lengths do not add up")
        if n and (int(kinds.min()) < min(Kind) or int(kinds.max()) > max(Kind)):
            raise ValueError("an attachment is of an unknown kind")
        if n and int(sizes.max()) > MAX_BYTES:
            raise ValueError(f"an attachment has more than {MAX_BYTES} bytes")
        timestamps = np.cumsum(times, dtype=np.int64)
        timestamps += np.int64(created_ms)
        return cls(
            kinds.copy(),
            np.cumsum(refs, dtype=np.uint32),
            timestamps,
            offsets,
            np.frombuffer(section, dtype=np.uint8, offset=at + _ROW_BYTES * n).copy(),
        )


NO_ATTACHMENTS = Attachments.of(())
