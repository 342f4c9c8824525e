"""Remote-write 1.0 requests: encoding, templates that are filled for each step, and recorded ones.

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
from numpy.typing import NDArray

from common.labels import uvarint

_TIME_BYTES = 6
"""Length of a time in ms as a varint, from 2^35 (1971) to 2^42 (2109)."""
_SAMPLE_BYTES = 2 + 9 + 1 + _TIME_BYTES


class Request(NamedTuple):
    """A compressed body and the number of samples in it."""

    body: bytes
    n_samples: int


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


class Template:
    """The message for some series with `n` samples each; filling it costs no Python per series."""

    def __init__(self, labels: Sequence[bytes], n: int = 1) -> None:
        self.n_series, self._n = len(labels), n
        sample = field(2, b"\x09" + bytes(8) + b"\x10" + bytes(_TIME_BYTES))
        assert len(sample) == _SAMPLE_BYTES
        rows = [field(1, one + n * sample) for one in labels]
        ends = np.cumsum([len(row) for row in rows])
        first = ends[:, None] - _SAMPLE_BYTES * np.arange(n, 0, -1)
        self._message = np.frombuffer(b"".join(rows), dtype=np.uint8)
        self._value_at = (first + 3).reshape(-1, 1) + np.arange(8)
        self._time_at = (first + 12).reshape(-1, 1) + np.arange(_TIME_BYTES)

    def fill(self, values: NDArray[np.float64], times_ms: NDArray[np.int64]) -> Request:
        """values, times_ms: (n_series, n) or, of one sample each, (n_series,)."""
        assert values.size == times_ms.size == self.n_series * self._n
        message = self._message.copy()
        message[self._value_at] = np.ascontiguousarray(values).view(np.uint8).reshape(-1, 8)
        digits = times_ms.reshape(-1, 1) >> (7 * np.arange(_TIME_BYTES)) & 0x7F
        digits[:, :-1] |= 0x80
        message[self._time_at] = digits
        return Request(bytes(cramjam.snappy.compress_raw(message.data)), values.size)


class Recording(NamedTuple):
    """Requests as sent, how many series, the closed range of times, and ms of a second at which none lies."""

    requests: list[Request]
    n_series: int
    start_ms: int
    end_ms: int
    free_ms: int


def recorded(paths: Sequence[Path]) -> Recording:
    """The requests of recordings, in order."""
    requests: list[Request] = []
    series: set[bytes] = set()
    times: set[int] = set()
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
            requests.append(Request(body, _look(bytes(cramjam.snappy.decompress_raw(body)), series, times)))
    taken = {time % 1000 for time in times}
    free_ms = next((ms for ms in range(1000) if ms not in taken), 0)
    return Recording(requests, len(series), min(times), max(times), free_ms)


def _look(message: bytes, series: set[bytes], times: set[int]) -> int:
    """Number of samples in a WriteRequest; notes series and times."""
    total = 0
    for number, one in fields(message):
        if number == 1:
            labels = []
            for inner, data in fields(one):
                if inner == 1:
                    labels.append(data)
                elif inner == 2:
                    total += 1
                    times.add(_sample_time(data))
            series.add(b"".join(labels))
    return total


def _sample_time(sample: bytes) -> int:
    at = 0
    while at < len(sample):
        if sample[at] == 0x10:
            time, _ = _read_uvarint(sample, at + 1)
            return time - (time >> 63 << 64)
        at += 9
    return 0


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
