"""Remote write 1.0, slowly: an encoder of requests, and a parser that takes the encoding one field at a time."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import cramjam

from common.labels import canonical_labels


class NotAMessage(Exception):
    """The bytes are not a WriteRequest."""


@dataclass
class Series:
    """A TimeSeries as sent: labels as pairs of bytes, samples as (timestamp, bits of the value)."""

    labels: list[tuple[bytes, bytes]] = field(default_factory=list)
    samples: list[tuple[int, int]] = field(default_factory=list)
    histograms: list[bytes] = field(default_factory=list)
    exemplars: list[bytes] = field(default_factory=list)

    def fault(self, *, max_labels: int = 128, max_name: int = 1024, max_value: int = 16384) -> str | None:
        """Why the series is refused, as the value of `Fault`, or None."""
        last = None
        for n, (name, value) in enumerate(self.labels, 1):
            if not name:
                return "empty_label_name"
            if last is not None and name == last:
                return "duplicate_label_name"
            if last is not None and name < last:
                return "unsorted_labels"
            last = name
            if len(name) > max_name:
                return "label_name_too_long"
            if len(value) > max_value:
                return "label_value_too_long"
            try:
                name.decode()
                value.decode()
            except UnicodeDecodeError:
                return "invalid_utf8"
            if n > max_labels:
                return "too_many_labels"
        return None if dict(self.labels).get(b"__name__") else "no_metric_name"

    def canonical(self) -> bytes:
        return canonical_labels({name.decode(): value.decode() for name, value in self.labels})


def parse(data: bytes) -> list[Series]:
    """The series of a WriteRequest.

    Raises:
        NotAMessage: the bytes are not one.
    """
    out = []
    for number, content in fields(data, known=(1, 3)):
        if number == 1:
            assert isinstance(content, bytes)
            out.append(_series(content))
    return out


def _series(data: bytes) -> Series:
    series = Series()
    for number, content in fields(data, known=(1, 2, 3, 4)):
        assert isinstance(content, bytes) or number > 4
        if number == 1 and isinstance(content, bytes):
            label = {1: b"", 2: b""} | {n: text for n, text in fields(content, known=(1, 2)) if n in (1, 2)}
            series.labels.append((label[1], label[2]))
        elif number == 2 and isinstance(content, bytes):
            series.samples.append(_sample(content))
        elif number == 3 and isinstance(content, bytes):
            series.exemplars.append(content)
        elif number == 4 and isinstance(content, bytes):
            series.histograms.append(content)
    return series


def _sample(data: bytes) -> tuple[int, int]:
    timestamp = bits = 0
    for number, wire_type, content in raw_fields(data):
        if number == 1:
            if wire_type != 1:
                raise NotAMessage
            bits = struct.unpack("<Q", content)[0]
        elif number == 2:
            if wire_type != 0:
                raise NotAMessage
            timestamp = content - (1 << 64) if content >= 1 << 63 else content
    return timestamp, bits


def fields(data: bytes, known: Sequence[int]) -> Iterator[tuple[int, bytes | int]]:
    """Fields of a message; the known ones must be length-delimited."""
    for number, wire_type, content in raw_fields(data):
        if number in known and wire_type != 2:
            raise NotAMessage
        yield number, content


def raw_fields(data: bytes):
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        content, at = _content(data, at, tag)
        yield tag >> 3, tag & 7, content


def _content(data: bytes, at: int, tag: int):
    number, wire_type = tag >> 3, tag & 7
    if not number >= 1 or tag > 0xFFFFFFFF:
        raise NotAMessage
    if wire_type == 0:
        return _varint(data, at)
    if wire_type == 1:
        return _bytes(data, at, 8)
    if wire_type == 2:
        size, at = _varint(data, at)
        return _bytes(data, at, size)
    if wire_type == 5:
        return _bytes(data, at, 4)
    if wire_type == 3:
        while True:
            inner, at = _varint(data, at)
            if inner & 7 == 4:
                if inner >> 3 < 1 or inner > 0xFFFFFFFF:
                    raise NotAMessage
                return b"", at
            _, at = _content(data, at, inner)
    raise NotAMessage


def _bytes(data: bytes, at: int, size: int) -> tuple[bytes, int]:
    if size > len(data) - at:
        raise NotAMessage
    return data[at : at + size], at + size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i in range(10):
        if at >= len(data):
            raise NotAMessage
        byte = data[at]
        at += 1
        value |= (byte & 127) << (7 * i)
        if byte < 128:
            return value & (1 << 64) - 1, at
    raise NotAMessage


def varints(data: bytes) -> list[int]:
    """Varints one after another."""
    out, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        out.append(value)
    return out


def uvarint(value: int) -> bytes:
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def delimited(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return uvarint(number << 3 | 2) + uvarint(len(content)) + content


def label_field(name: bytes, value: bytes) -> bytes:
    return delimited(1, delimited(1, name) + delimited(2, value))


def sample_field(timestamp: int, bits: int) -> bytes:
    content = b""
    if bits:
        content += b"\x09" + struct.pack("<Q", bits)
    if timestamp:
        content += b"\x10" + uvarint(timestamp & (1 << 64) - 1)
    return delimited(2, content)


def series_field(labels: Sequence[tuple[bytes, bytes]], samples: Sequence[tuple[int, int]]) -> bytes:
    """A TimeSeries as Prometheus writes it: labels, then samples; zeros are left out."""
    return delimited(
        1,
        b"".join(label_field(*label) for label in labels) + b"".join(sample_field(*sample) for sample in samples),
    )


def request(series: Sequence[tuple[dict[str, str], Sequence[tuple[int, float]]]]) -> bytes:
    """A WriteRequest of label sets, sorted here, with (timestamp, value) samples."""
    out = []
    for labels, samples in series:
        pairs = sorted((name.encode(), value.encode()) for name, value in labels.items())
        bits = [(time, struct.unpack("<Q", struct.pack("<d", value))[0]) for time, value in samples]
        out.append(series_field(pairs, bits))
    return b"".join(out)


def snappy(data: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(data))
