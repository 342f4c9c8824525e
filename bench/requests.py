"""Remote-write 1.0 requests: synthetic ones with a fixed seed, and recorded ones.

A recording is a file, xz-compressed or not, of entries: f64 arrival time (Unix seconds), u32 length, body as sent;
little-endian. `python -m bench.record` makes one from a real Prometheus.
"""

from __future__ import annotations

import lzma
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cramjam
import numpy as np


class Request(NamedTuple):
    """A compressed body and the number of samples in it."""

    body: bytes
    n_samples: int


def uvarint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, data: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return uvarint(number << 3 | 2) + uvarint(len(data)) + data


def encode_labels(labels: dict[str, str]) -> bytes:
    """The label fields of a TimeSeries, sorted by name."""
    return b"".join(
        field(1, field(1, name.encode()) + field(2, value.encode())) for name, value in sorted(labels.items())
    )


def encode_sample(value: float, time_ms: int) -> bytes:
    """The sample field of a TimeSeries."""
    return field(2, b"\x09" + struct.pack("<d", value) + b"\x10" + uvarint(time_ms & (1 << 64) - 1))


def compress(series: Iterable[bytes]) -> bytes:
    """A WriteRequest of TimeSeries messages, snappy block format."""
    return bytes(cramjam.snappy.compress_raw(b"".join(field(1, one) for one in series)))


def synthetic(
    n_series: int, n_steps: int, *, start_ms: int, step_ms: int = 15_000, per_request: int = 10_000, seed: int = 1
) -> Iterator[Request]:
    """Counters with two decimals, as a fleet of targets sends them: step after step, all series.

    100 metrics on as many instances as it takes; each instance is scraped at its own phase of the step.
    """
    rng = np.random.default_rng(seed)
    labels, phases = [], []
    for i in range(n_series):
        instance, metric = divmod(i, 100)
        labels.append(
            encode_labels(
                {
                    "__name__": f"app_metric_{metric:03d}_total",
                    "instance": f"host-{instance:05d}.example.net:9100",
                    "job": f"job-{instance % 20}",
                    "dc": f"dc-{instance % 3}",
                    "env": "production",
                }
            )
        )
        phases.append(instance * 997 % step_ms)
    values = np.round(rng.random(n_series) * 1e6, 2)
    for step in range(n_steps):
        values = np.round(values + rng.integers(0, 10_000, n_series) / 100, 2)
        now = start_ms + step * step_ms
        rows = [
            label + encode_sample(value, now + phase)
            for label, value, phase in zip(labels, values.tolist(), phases, strict=True)
        ]
        for at in range(0, n_series, per_request):
            part = rows[at : at + per_request]
            yield Request(compress(part), len(part))


def recorded(paths: Sequence[Path]) -> Iterator[Request]:
    """The requests of recordings, in order."""
    for path in paths:
        data = path.read_bytes()
        if path.suffix == ".xz":
            data = lzma.decompress(data)
        at = 0
        while at < len(data):
            (_, length) = struct.unpack_from("<dI", data, at)
            at += 12
            body = data[at : at + length]
            at += length
            yield Request(body, count_samples(bytes(cramjam.snappy.decompress_raw(body))))


def count_samples(message: bytes) -> int:
    """Number of samples in a WriteRequest."""
    total = 0
    for number, series in fields(message):
        if number == 1:
            total += sum(1 for inner, _ in fields(series) if inner == 2)
    return total


def fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Length-delimited fields of a trusted protobuf message; others are passed over."""
    at = 0
    while at < len(message):
        key, at = _read_uvarint(message, at)
        kind = key & 7
        if kind == 2:
            length, at = _read_uvarint(message, at)
            yield key >> 3, message[at : at + length]
            at += length
        elif kind == 0:
            _, at = _read_uvarint(message, at)
        else:
            at += 8 if kind == 1 else 4


def _read_uvarint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
