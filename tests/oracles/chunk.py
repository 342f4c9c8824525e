"""The chunk format, read slowly and plainly after `docs/format/chunk.md`, and what its functions mean."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

STALE_BITS = 0x7FF0000000000002
Sample = tuple[int, int]  # Unix ms, bits of the value


@dataclass
class Chunk:
    sno: int
    samples: list[Sample]


def signed(number: int) -> int:
    """The int64 that is `number` modulo 2^64."""
    return (number + 2**63) % 2**64 - 2**63


def unzigzag(number: int) -> int:
    return number // 2 if number % 2 == 0 else -(number // 2) - 1


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, n: int) -> bytes:
        taken = self.data[self.position : self.position + n]
        if len(taken) != n:
            raise ValueError("cut short")
        self.position += n
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def varint(self) -> int:
        number = shift = 0
        while True:
            byte = self.byte()
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    def fields(self, count: int, width: int) -> list[int]:
        bits = int.from_bytes(self.take((count * width + 7) // 8), "little")
        return [bits >> (i * width) & (2**width - 1) for i in range(count)]

    def group(self, count: int) -> list[int]:
        head = self.byte()
        base = unzigzag(self.varint())
        exceptions: dict[int, int] = {}
        if head & 128:
            n_exceptions, width = self.byte(), self.byte()
            if 8 * n_exceptions > count:
                places = [i for i, flag in enumerate(self.fields(count, 1)) if flag]
            else:
                places = list(self.take(n_exceptions))
            numbers = map(unzigzag, self.fields(n_exceptions, width))
            exceptions = dict(zip(places, numbers, strict=True))
        distances = self.fields(count, head & 127)
        return [exceptions.get(i, distance) + base for i, distance in enumerate(distances)]

    def vector(self, n: int) -> tuple[list[int], int]:
        """The values and the exponent."""
        tag = self.byte()
        transform, exponent = tag & 3, tag >> 3
        if exponent % 16 == 15:
            (first,) = struct.unpack("<q", self.take(8))
        else:
            first = unzigzag(self.varint())
        if transform == 0:
            return [first] * n, exponent
        divisor = self.varint() if tag & 4 else 1
        step = unzigzag(self.varint()) if transform == 3 else 0
        n_residuals = n - 2 if transform == 3 else n - 1
        residuals: list[int] = []
        while len(residuals) < n_residuals:
            residuals += self.group(min(256, n_residuals - len(residuals)))
        steps = [0]
        if transform == 1:
            steps += residuals
        elif transform == 2:
            for residual in residuals:
                steps.append(steps[-1] + residual)
        else:
            steps.append(step)
            for residual in residuals:
                step += residual
                steps.append(steps[-1] + step)
        return [signed(first + step * divisor) for step in steps], exponent

    def values(self, n: int) -> list[int]:
        integers, exponent = self.vector(n)
        if exponent % 16 == 15:
            return [integer % 2**64 for integer in integers]
        bits = [
            struct.unpack("<Q", struct.pack("<d", Fraction(integer, 10 ** (exponent % 16))))[0]
            for integer in integers
        ]
        if exponent & 16:
            head, place = self.varint(), 0
            for _ in range(head >> 1):
                place += self.varint()
                bits[place] = STALE_BITS if head & 1 else struct.unpack("<Q", self.take(8))[0]
        return bits


def decode_block(block: bytes) -> list[Chunk]:
    reader = Reader(block)
    assert reader.byte() == 1
    n_chunks, n_clocks = struct.unpack("<HH", reader.take(4))
    snos, firsts, clocks, sizes = (reader.vector(n_chunks)[0] for _ in range(4))
    lengths, spans, clock_sizes = (reader.vector(n_clocks)[0] for _ in range(3))
    ticks = []
    for n, span, size in zip(lengths, spans, clock_sizes, strict=True):
        clock = Reader(reader.take(size))
        ticks.append(clock.vector(n)[0])
        assert clock.position == size
        assert ticks[-1][-1] == span
    chunks = []
    for sno, first, clock, size in zip(snos, firsts, clocks, sizes, strict=True):
        payload = Reader(reader.take(size))
        times = [signed(first + tick) for tick in ticks[clock]]
        chunks.append(Chunk(sno, list(zip(times, payload.values(len(times)), strict=True))))
        assert payload.position == size
    assert reader.position == len(block)
    return chunks


def finish(sources: Iterable[Sequence[Sample]]) -> list[Sample]:
    """One row from several sources: ascending in time, of equal times the first."""
    kept: dict[int, int] = {}
    for source in sources:
        for time, bits in source:
            kept.setdefault(time, bits)
    return sorted(kept.items())
