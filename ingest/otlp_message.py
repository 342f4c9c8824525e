"""A message of remote write 1.0 in the making."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from common.labels import uvarint
from common.store import STALE_NAN_BITS
from ingest.config import IngestConfig
from ingest.errors import BodyTooLarge
from ingest.write_request import PIECE_SAMPLES, SPELLED_OUT, series_field

PIECE_BYTES = 4 << 20
"""A message is sent on once it has as many bytes, or PIECE_SAMPLES."""

_STALE = struct.pack("<Q", STALE_NAN_BITS)
_pack_double = struct.Struct("<d").pack

SeriesKey: TypeAlias = tuple[str | bytes, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """message: a prometheus.WriteRequest. n_samples: that it has, histograms among them."""

    message: bytes
    n_samples: int


class MessageBuilder:
    """Samples of a request, by series, cut into messages; it remembers series from sample to sample."""

    def __init__(self, config: IngestConfig) -> None:
        self._config = config
        self._series: dict[SeriesKey, bytearray] = {}
        self._finished: list[bytearray] = []
        self._metadata: dict[bytes, None] = {}
        self._times: dict[int, tuple[bytes, bytes]] = {}
        self._n_samples = self._n_bytes = 0
        self._n_samples_before = self._n_bytes_before = 0

    @property
    def full(self) -> bool:
        return self._n_samples >= PIECE_SAMPLES or self._n_bytes >= PIECE_BYTES

    def series(self, key: SeriesKey, labels: Callable[[], bytes]) -> bytearray:
        """The series that the key stands for; `labels` gives its labels if it is new."""
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = bytearray(labels())
            self._n_bytes += len(series)
            self._check()
        return series

    def add_sample(self, series: bytearray, value: float, time_ns: int, *, stale: bool = False) -> None:
        """Add a sample, or the mark that says that the series has ended."""
        time = self._times.get(time_ns)
        if time is None:
            time = self._time(time_ns)
        series += time[0] + (_STALE if stale else _pack_double(value)) + time[1]
        self._n_samples += 1
        self._n_bytes += 20

    def add_field(self, series: bytearray, field: bytes, *, n_samples: int = 0) -> None:
        """Add a histogram, which is a sample, or an exemplar, which is none."""
        series += field
        self._n_samples += n_samples
        self._n_bytes += len(field)

    def add_metadata(self, field: bytes) -> None:
        self._metadata[field] = None
        self._n_bytes += len(field)

    def forget_series(self) -> None:
        """Keys mean other series from here on."""
        self._finished += self._series.values()
        self._series = {}

    def take(self) -> Piece | None:
        """What has been added since the last time; None if there is nothing.

        Raises:
            BodyTooLarge: with it, the request has more than one may have.
        """
        self._check()
        self.forget_series()
        message = b"".join([*self._metadata, *(series_field(bytes(series)) for series in self._finished)])
        piece = Piece(message, self._n_samples) if message else None
        self._n_samples_before += self._n_samples
        self._n_bytes_before += self._n_bytes
        self._n_samples = self._n_bytes = 0
        self._finished, self._metadata, self._times = [], {}, {}
        return piece

    def _check(self) -> None:
        limit = self._config.max_samples_per_request
        if self._n_samples_before + self._n_samples > limit:
            raise BodyTooLarge(f"the request has more than {limit} samples (max_samples_per_request)")
        limit = SPELLED_OUT * self._config.max_body_bytes
        if self._n_bytes_before + self._n_bytes > limit:
            raise BodyTooLarge(
                f"the request's series have more than {limit} bytes with their labels spelled out, "
                f"{SPELLED_OUT} times --max-body-bytes"
            )

    def _time(self, time_ns: int) -> tuple[bytes, bytes]:
        """What a sample of that time has before and behind its value."""
        behind = b"\x10" + uvarint(time_ns // 1_000_000)
        time = b"\x12" + uvarint(9 + len(behind)) + b"\x09", behind
        self._times[time_ns] = time
        return time
