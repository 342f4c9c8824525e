"""The payload of a record, read slowly and plainly from its format page (`docs/format/log-record.md`)."""

from __future__ import annotations

import struct
from typing import NamedTuple


class Payload(NamedTuple):
    declarations: list[tuple[int, bytes, bytes]]
    refs: list[int]
    timestamps: list[int]
    value_bits: list[int]
    attachments: list[tuple[int, int, int, bytes]]
    """Kind, ref, timestamp, bytes."""


def _wrap(number: int) -> int:
    """To the range of int64."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        assert self.at + count <= len(self.data)
        self.at += count
        return self.data[self.at - count : self.at]

    def uvarint(self) -> int:
        number = shift = 0
        while True:
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    def varint(self) -> int:
        number = self.uvarint()
        return number >> 1 if number % 2 == 0 else -(number >> 1) - 1


def read_payload(
    data: bytes,
    n_declared: int,
    n_samples: int,
    n_label_bytes: int,
    created_ms: int,
    double_delta: bool,
    n_attached: int,
) -> Payload:
    attachments = _attachments(data[len(data) - n_attached :], created_ms) if n_attached else []
    data = data[: len(data) - n_attached]
    source = _Bytes(data)
    declared, ref = [], 0
    for _ in range(n_declared):
        ref += source.varint()
        declared.append(ref)
    lengths = [source.uvarint() for _ in range(n_declared)]
    ids = [source.take(16) for _ in range(n_declared)]
    assert sum(lengths) == n_label_bytes
    labels = [source.take(length) for length in lengths]
    refs, ref = [], 0
    for _ in range(n_samples):
        ref += source.varint()
        refs.append(ref)
    timestamps, previous, delta = [], created_ms, 0
    for _ in range(n_samples):
        delta = source.varint() + (delta if double_delta else 0)
        previous = _wrap(previous + delta)
        timestamps.append(previous)
    mask = int.from_bytes(source.take((n_samples + 7) // 8), "little")
    whole = [mask >> i & 1 == 1 for i in range(n_samples)]
    integers = iter([source.varint() for is_whole in whole if is_whole])
    n_rest = whole.count(False)
    planes = [source.take(n_rest) for _ in range(8)]
    rest = iter([sum(planes[p][i] << 8 * p for p in range(8)) for i in range(n_rest)])
    bits = [
        struct.unpack("<Q", struct.pack("<d", next(integers)))[0] if is_whole else next(rest) for is_whole in whole
    ]
    assert source.at == len(data)
    return Payload(list(zip(declared, ids, labels, strict=True)), refs, timestamps, bits, attachments)


def _attachments(section: bytes, created_ms: int) -> list[tuple[int, int, int, bytes]]:
    source = _Bytes(section)
    (n,) = struct.unpack("<I", source.take(4))
    kinds = list(source.take(n))
    refs, ref = [], 0
    for (difference,) in struct.iter_unpack("<I", source.take(4 * n)):
        ref = (ref + difference) % (1 << 32)
        refs.append(ref)
    times, time = [], created_ms
    for (difference,) in struct.iter_unpack("<q", source.take(8 * n)):
        time = _wrap(time + difference)
        times.append(time)
    sizes = [size for (size,) in struct.iter_unpack("<I", source.take(4 * n))]
    rows = [source.take(size) for size in sizes]
    assert source.at == len(section)
    return list(zip(kinds, refs, times, rows, strict=True))
