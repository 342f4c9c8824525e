"""Native histograms one at a time: their bytes (`docs/format/histogram.md`), and remote write's message."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from common.histograms import CUSTOM_BOUNDS


@dataclass(frozen=True)
class NativeHistogram:
    """As sent. Spans are (offset, length); buckets are absolute counts, ints unless `is_float`."""

    schema: int = 0
    count: float = 0
    sum: float = 0.0
    zero_threshold: float = 0.0
    zero_count: float = 0
    positive_spans: tuple[tuple[int, int], ...] = ()
    positive: tuple[float, ...] = ()
    negative_spans: tuple[tuple[int, int], ...] = ()
    negative: tuple[float, ...] = ()
    bounds: tuple[float, ...] = ()
    hint: int = 0
    is_float: bool = field(default=True)

    def buckets(self, negative: bool = False) -> dict[int, float]:
        """Count of each bucket by its index, empty ones too."""
        out: dict[int, float] = {}
        index = 0
        counts = iter(self.negative if negative else self.positive)
        for offset, length in self.negative_spans if negative else self.positive_spans:
            index += offset
            for _ in range(length):
                out[index] = next(counts)
                index += 1
        return out

    def encode(self) -> bytes:
        """The bytes that Tabor stores."""
        out = bytes([self.hint | 4 * self.is_float]) + struct.pack("<bd", self.schema, self.sum)
        out += self._count(self.count)
        if self.schema != CUSTOM_BOUNDS:
            out += struct.pack("<d", self.zero_threshold) + self._count(self.zero_count)
        out += self._buckets(self.positive_spans, self.positive)
        if self.schema != CUSTOM_BOUNDS:
            return out + self._buckets(self.negative_spans, self.negative)
        return out + uvarint(len(self.bounds)) + struct.pack(f"<{len(self.bounds)}d", *self.bounds)

    def _count(self, count: float) -> bytes:
        return struct.pack("<d", count) if self.is_float else uvarint(int(count))

    def _buckets(self, spans: tuple[tuple[int, int], ...], counts: tuple[float, ...]) -> bytes:
        out = uvarint(len(spans)) + b"".join(varint(offset) + uvarint(length) for offset, length in spans)
        if self.is_float:
            return out + struct.pack(f"<{len(counts)}d", *counts)
        return out + b"".join(varint(delta) for delta in deltas(counts))

    def message(self, timestamp_ms: int) -> bytes:
        """The Histogram message of remote write, 1.0 and 2.0."""
        if self.is_float:
            out = _double(2, self.count)
        else:
            out = _tag(1, 0) + uvarint(int(self.count))
        out += _double(3, self.sum) + _tag(4, 0) + varint(self.schema) + _double(5, self.zero_threshold)
        out += _double(7, self.zero_count) if self.is_float else _tag(6, 0) + uvarint(int(self.zero_count))
        for first, spans, counts in (
            (8, self.negative_spans, self.negative),
            (11, self.positive_spans, self.positive),
        ):
            for offset, length in spans:
                out += _bytes(first, _tag(1, 0) + varint(offset) + _tag(2, 0) + uvarint(length))
            if self.is_float and counts:
                out += _bytes(first + 2, struct.pack(f"<{len(counts)}d", *counts))
            elif counts:
                out += _bytes(first + 1, b"".join(varint(delta) for delta in deltas(counts)))
        if self.hint:
            out += _tag(14, 0) + uvarint(self.hint)
        out += _tag(15, 0) + uvarint(timestamp_ms & (1 << 64) - 1)
        if self.bounds:
            out += _bytes(16, struct.pack(f"<{len(self.bounds)}d", *self.bounds))
        return out


def deltas(counts: tuple[float, ...]) -> list[int]:
    """Each count's difference to the one before."""
    return [int(count) - int(before) for before, count in zip((0, *counts), counts, strict=False)]


def decode(data: bytes) -> NativeHistogram:
    """A histogram from the bytes that Tabor stores, which are taken to be whole."""
    flags, schema, total = struct.unpack_from("<Bbd", data)
    is_float = bool(flags & 4)
    at = 10

    def number() -> float:
        nonlocal at
        if is_float:
            at += 8
            return float(struct.unpack_from("<d", data, at - 8)[0])
        return unsigned()

    def unsigned() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def signed() -> int:
        value = unsigned()
        return value >> 1 ^ -(value & 1)

    def buckets() -> tuple[tuple[tuple[int, int], ...], tuple[float, ...]]:
        spans = tuple([(signed(), unsigned()) for _ in range(unsigned())])
        counts: list[float] = []
        last = 0
        for _ in range(sum(length for _, length in spans)):
            if is_float:
                counts.append(number())
            else:
                last = (last + signed() + (1 << 63)) % (1 << 64) - (1 << 63)
                counts.append(last)
        return spans, tuple(counts)

    custom = schema == CUSTOM_BOUNDS
    count = number()
    threshold, zero_count = 0.0, 0.0
    if not custom:
        at += 8
        threshold, zero_count = struct.unpack_from("<d", data, at - 8)[0], number()
    positive_spans, positive = buckets()
    negative_spans, negative = ((), ()) if custom else buckets()
    bounds: tuple[float, ...] = ()
    if custom:
        n = unsigned()
        bounds = struct.unpack_from(f"<{n}d", data, at)
        at += 8 * n
    assert at == len(data), "bytes are left over"
    return NativeHistogram(
        schema, count, total, threshold, zero_count, positive_spans, positive, negative_spans, negative, bounds,
        flags & 3, is_float,
    )  # fmt: skip


def uvarint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def varint(value: int) -> bytes:
    return uvarint((value << 1 ^ value >> 63) & (1 << 64) - 1)


def _tag(number: int, wire_type: int) -> bytes:
    return uvarint(number << 3 | wire_type)


def _double(number: int, value: float) -> bytes:
    return _tag(number, 1) + struct.pack("<d", value)


def _bytes(number: int, data: bytes) -> bytes:
    return _tag(number, 2) + uvarint(len(data)) + data
