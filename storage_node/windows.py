"""Windows of time: the unit of segments, digests and retention."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from common.errors import CorruptError
from common.store import MAX_TIME_MS, MIN_TIME_MS

WINDOW_MS = 4 * 3600 * 1000
GENERATION_BITS = 16
"""Low bits of a segment's number that count merges; checkpoints number segments in steps of 2^16."""
_MASK = (1 << 64) - 1

_WINDOW = struct.Struct("<QQQ")
_SEGMENT = struct.Struct("<QQQII")


def window_of(time_ms: int) -> int:
    """Number of the window of a timestamp; windows before 1970 are negative."""
    return time_ms // WINDOW_MS


def window_start(number: int) -> int:
    """First ms of a window, within int64."""
    return max(number * WINDOW_MS, MIN_TIME_MS)


def window_end(number: int) -> int:
    """Last ms of a window, within int64."""
    return min(number * WINDOW_MS + WINDOW_MS - 1, MAX_TIME_MS)


def windows_of(timestamps: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last ms of each window in which timestamps lie, ascending."""
    numbers = _distinct(timestamps // WINDOW_MS).tolist()
    starts = np.array([window_start(number) for number in numbers], dtype=np.int64)
    return starts, np.array([window_end(number) for number in numbers], dtype=np.int64)


def _distinct(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """As np.unique, without sorting, which would take as long as all else that is done with new samples."""
    if not len(numbers):
        return numbers
    first, last = numbers.min(), numbers.max()
    if first == last:
        return numbers[:1]
    if int(last) - int(first) > len(numbers):
        return np.unique(numbers)
    found: NDArray[np.int64] = np.bincount(numbers - first).nonzero()[0] + first
    return found


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of blocks with samples of one window; written once.

    number: unique in its partition, ascending. size_bytes: of its blocks.
    """

    number: int
    n_samples: int
    size_bytes: int
    n_blocks: int
    n_rows: int


@dataclass(frozen=True, slots=True, eq=False)
class Deletion:
    """Samples of one window that a tombstone has deleted and the disk still has.

    below: they are in segments, and rows of theirs in runs, with smaller numbers.
    min_time, max_time: ms, closed. snos: uint32 (n,), ascending.
    """

    below: int
    min_time: int
    max_time: int
    snos: NDArray[np.uint32]


@dataclass(slots=True)
class Window:
    """What a partition knows of one window: digest lanes (modulo 2^64), distinct samples, and segments."""

    lane_a: int = 0
    lane_b: int = 0
    n_samples: int = 0
    segments: list[Segment] = field(default_factory=list)

    def add(self, lane_a: int, lane_b: int, n_samples: int) -> None:
        """Count samples in."""
        self.lane_a = (self.lane_a + lane_a) & _MASK
        self.lane_b = (self.lane_b + lane_b) & _MASK
        self.n_samples += n_samples

    def subtract(self, lane_a: int, lane_b: int, n_samples: int) -> None:
        """Count samples out."""
        self.add(-lane_a, -lane_b, -n_samples)

    def digest_bytes(self) -> bytes:
        """27 bytes; equal for equal sets of samples."""
        row = self.lane_a, self.lane_b, self.n_samples
        return b"".join(part.to_bytes(9, "little", signed=True) for part in row)

    def digest(self) -> str:
        """32 hex digits; equal for equal sets of samples."""
        return f"{self.lane_b:016x}{self.lane_a:016x}"

    def encode(self) -> bytes:
        """Digest and count (`docs/format/rocksdb-keys.md`, 'Window')."""
        return _WINDOW.pack(self.lane_a, self.lane_b, self.n_samples)

    @classmethod
    def decode(cls, data: bytes, partition: int) -> Window:
        """A window without segments. Raises CorruptError."""
        if len(data) != _WINDOW.size:
            raise CorruptError("a window's record has the wrong length", partition=partition)
        return cls(*_WINDOW.unpack(data))


def encode_segments(segments: list[Segment]) -> bytes:
    """The list of a window's segments (`docs/format/rocksdb-keys.md`, 'Segment list')."""
    return b"".join(_SEGMENT.pack(s.number, s.n_samples, s.size_bytes, s.n_blocks, s.n_rows) for s in segments)


def decode_segments(data: bytes, partition: int) -> list[Segment]:
    """Raises CorruptError."""
    if len(data) % _SEGMENT.size:
        raise CorruptError("a list of segments has the wrong length", partition=partition)
    return [Segment(*fields) for fields in _SEGMENT.iter_unpack(data)]
