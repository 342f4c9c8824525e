"""Prometheus' chunks and the frames of streamed remote read, read bit by bit from a text of zeros and ones."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from tests.oracles import remote_write as messages
from tests.oracles.histogram import NativeHistogram

XOR, HISTOGRAM, FLOAT_HISTOGRAM = 1, 2, 3
HINTS = {"00": 0, "10": 1, "01": 2, "11": 3}
"""The first two bits of a chunk's flags as a reset hint of Tabor's."""


class Bits:
    def __init__(self, data: bytes) -> None:
        self.text = "".join(f"{byte:08b}" for byte in data)
        self.at = 0

    def take(self, n: int) -> str:
        assert self.at + n <= len(self.text), "the chunk ends early"
        self.at += n
        return self.text[self.at - n : self.at]

    def unsigned(self, n: int) -> int:
        return int(self.take(n), 2) if n else 0

    def float(self) -> float:
        return from_bits(self.unsigned(64))

    def uvarint(self) -> int:
        value = shift = 0
        while True:
            byte = self.unsigned(8)
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def varint(self) -> int:
        value = self.uvarint()
        return value >> 1 ^ -(value & 1)

    def ones(self, most: int) -> int:
        n = 0
        while n < most and self.take(1) == "1":
            n += 1
        return n

    def signed(self, width: int) -> int:
        """A number of this width; the largest magnitude is positive, but for 64 bits."""
        value = self.unsigned(width)
        negative = value >> 63 if width == 64 else width and value > 1 << (width - 1)
        return value - (1 << width) if negative else value

    def varbit_int(self) -> int:
        return self.signed((0, 3, 6, 9, 12, 18, 25, 56, 64)[self.ones(8)])

    def varbit_uint(self) -> int:
        return self.unsigned((0, 3, 6, 9, 12, 18, 25, 56, 64)[self.ones(8)])

    def end(self) -> None:
        rest = self.text[self.at :]
        assert len(rest) < 8, "bytes are left over"
        assert "1" not in rest, "bits are left over"


class Gorilla:
    """A value that is stored as its difference to the one before."""

    def __init__(self, value: float) -> None:
        self.bits = to_bits(value)
        self.leading = self.significant = 0

    def next(self, bits: Bits) -> float:
        if bits.take(1) == "1":
            if bits.take(1) == "1":
                self.leading, self.significant = bits.unsigned(5), bits.unsigned(6) or 64
            assert self.significant, "no window has been given"
            self.bits ^= bits.unsigned(self.significant) << 64 - self.leading - self.significant
        return from_bits(self.bits)


def floats(data: bytes) -> list[tuple[int, float]]:
    """Samples of a chunk of type XOR."""
    bits = Bits(data)
    out: list[tuple[int, float]] = []
    time = step = 0
    for i in range(bits.unsigned(16)):
        if i == 0:
            time = bits.varint()
            value = Gorilla(bits.float())
            out.append((time, from_bits(value.bits)))
            continue
        step = bits.uvarint() if i == 1 else step + bits.signed((0, 14, 17, 20, 64)[bits.ones(4)])
        time = wrapped(time + step)
        out.append((time, value.next(bits)))
    bits.end()
    return out


def histograms(data: bytes, *, is_float: bool) -> list[tuple[int, NativeHistogram]]:
    """Samples of a chunk of histograms; a reader takes all but the first for no resets, or all for gauges."""
    bits = Bits(data)
    n = bits.unsigned(16)
    hint = HINTS[bits.take(2)]
    assert bits.take(6) == "000000"
    threshold = _threshold(bits)
    schema = bits.varbit_int()
    spans = [_spans(bits), _spans(bits)]
    bounds = tuple([_bound(bits) for _ in range(bits.varbit_uint())]) if schema == -53 else ()
    sizes = [sum(length for _, length in side) for side in spans]
    n_buckets = sum(sizes)
    out = []
    time = time_step = 0
    counts: list[int] = []
    steps = [0] * (2 + n_buckets)
    gorillas: list[Gorilla] = []
    for i in range(n):
        if i == 0:
            time = bits.varbit_int()
            if is_float:
                gorillas = [Gorilla(bits.float()) for _ in range(3 + n_buckets)]
            else:
                counts = [bits.varbit_uint(), bits.varbit_uint()]
                gorillas = [Gorilla(bits.float())]
                counts += [bits.varbit_int() for _ in range(n_buckets)]
            numbers = [from_bits(one.bits) for one in gorillas]
        else:
            time_step = wrapped(time_step + bits.varbit_int())
            time = wrapped(time + time_step)
            numbers = []
            for k in range(3 + n_buckets):
                if is_float:
                    numbers.append(gorillas[k].next(bits))
                elif k == 2:
                    numbers.append(gorillas[0].next(bits))
                else:
                    at = k if k < 2 else k - 1
                    steps[at] = wrapped(steps[at] + bits.varbit_int())
                    counts[at] = wrapped(counts[at] + steps[at])
        if is_float:
            count, zeros, total, *buckets = numbers
        else:
            count, zeros = (one % (1 << 64) for one in counts[:2])
            total = numbers[0]
            buckets = [*_sums(counts[2 : 2 + sizes[0]]), *_sums(counts[2 + sizes[0] :])]
        sides = spans[0], tuple(buckets[: sizes[0]]), spans[1], tuple(buckets[sizes[0] :])
        told = hint if i == 0 or hint == 3 else 2
        out.append(
            (
                time,
                NativeHistogram(schema, count, total, threshold, zeros, *sides, bounds, told, is_float),
            )
        )  # fmt: skip
    bits.end()
    return out


def _sums(differences: list[int]) -> list[int]:
    total = 0
    return [total := total + one for one in differences]


def _threshold(bits: Bits) -> float:
    short = bits.unsigned(8)
    if short == 255:
        return bits.float()
    return math.ldexp(0.5, short - 243) if short else 0.0


def _spans(bits: Bits) -> tuple[tuple[int, int], ...]:
    pairs = [(bits.varbit_uint(), bits.varbit_int()) for _ in range(bits.varbit_uint())]
    return tuple((offset, length) for length, offset in pairs)


def _bound(bits: Bits) -> float:
    thousandths = bits.varbit_uint()
    return (thousandths - 1) / 1000 if thousandths else bits.float()


@dataclass
class Frame:
    """One ChunkedReadResponse; chunks are (min time, max time, type, data)."""

    query: int
    labels: list[tuple[bytes, bytes]]
    chunks: list[tuple[int, int, int, bytes]]
    size: int

    def samples(self) -> list[tuple[int, float | NativeHistogram]]:
        out: list[tuple[int, float | NativeHistogram]] = []
        for low, high, kind, data in self.chunks:
            found = floats(data) if kind == XOR else histograms(data, is_float=kind == FLOAT_HISTOGRAM)
            assert (low, high) == (found[0][0], found[-1][0])
            assert len(found) <= 120
            out += found
        return out


def frames(body: bytes) -> list[Frame]:
    """All frames of an answer, each with one series, as Prometheus' reader wants it."""
    out = []
    at = 0
    while at < len(body):
        size = shift = 0
        while True:
            byte = body[at]
            at += 1
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        checksum, message = body[at : at + 4], body[at + 4 : at + 4 + size]
        assert len(message) == size, "a frame ends early"
        assert int.from_bytes(checksum, "big") == crc32c(message), "the checksum is wrong"
        at += 4 + size
        out.append(_frame(message))
    return out


def _frame(message: bytes) -> Frame:
    fields = list(messages.fields(message, known=(1,)))
    ((_, series),) = [field for field in fields if field[0] == 1]
    query = sum(int(content) for number, content in fields if number == 2)
    labels, chunks = [], []
    for number, content in messages.fields(series, known=(1, 2)):
        assert isinstance(content, bytes)
        parts = dict(messages.fields(content, known=(1, 2) if number == 1 else (4,)))
        if number == 1:
            labels.append((parts[1], parts.get(2, b"")))
        else:
            chunks.append((signed(parts.get(1, 0)), signed(parts.get(2, 0)), parts[3], parts[4]))
    assert labels == sorted(labels)
    return Frame(query, labels, chunks, len(message))


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def to_bits(value: float) -> int:
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])


def from_bits(bits: int) -> float:
    return float(struct.unpack("<d", struct.pack("<Q", bits))[0])


def signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def wrapped(value: int) -> int:
    """As an int64 that has overflowed."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)
