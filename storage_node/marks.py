"""Marks: points of the log at which every replica remembers its digest, so that replicas can be compared.

A mark is a record of nothing (`common.record.NOTHING`). Since a partition's state is a function of the records up
to an offset, replicas that are whole have equal digests at it, however far each has come since.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import xxhash

from storage_node.windows import Window

MAX_MARKS = 4
"""Marks of a partition that are remembered: the last ones, in RAM only."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Digests at one offset. windows: 32 hex digits for the number of each window that holds samples."""

    offset: int
    digest: str
    windows: dict[int, str]


class Marks:
    """The last marks of a partition."""

    def __init__(self) -> None:
        self._marks: dict[int, Mark] = {}

    def add(self, offset: int, windows: Mapping[int, Window]) -> None:
        """Remember the digests as of this offset; late samples have been resolved."""
        by_window = {number: window.digest() for number, window in sorted(windows.items()) if window.n_samples}
        self._marks[offset] = Mark(offset, digest_of(windows), by_window)
        while len(self._marks) > MAX_MARKS:
            del self._marks[min(self._marks)]

    def at(self, offset: int) -> Mark | None:
        return self._marks.get(offset)


def digest_of(windows: Mapping[int, Window]) -> str:
    """Digest of all samples, 32 hex digits; equal for equal sets of samples."""
    hasher = xxhash.xxh3_128()
    for number in sorted(windows):
        if windows[number].n_samples:
            hasher.update(number.to_bytes(9, "little", signed=True) + windows[number].digest_bytes())
    return hasher.hexdigest()


def differing_windows(one: Mapping[int, str], other: Mapping[int, str]) -> list[int]:
    """Numbers of the windows whose digests differ, or that one of two replicas lacks, ascending."""
    return [number for number in sorted(one.keys() | other.keys()) if one.get(number) != other.get(number)]
