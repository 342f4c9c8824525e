"""Limits and timing of ingest. Every queue and buffer has its limit here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.tenancy import Tenancy

MAX_ACTIVE_SERIES = 1 << 24
"""More series than this cannot be numbered: a storage node takes a record with higher refs to be corrupt."""


@dataclass(frozen=True, slots=True)
class IngestConfig:
    """How much one request, one series and the process may take.

    Of a request:
      max_body_bytes: decompressed size (`--max-body-bytes`); compressed, what snappy makes of it at worst.
      max_series_per_request, max_samples_per_request: Prometheus sends at most 2,000 samples at a time by default.
    Of a series (the label set as sent is limited to 64 KiB besides, so that a record always has room for it):
      max_labels_per_series, max_label_name_bytes, max_label_value_bytes.
    Of the process:
      max_active_series: series the ingestor remembers, at about 80 bytes each and the labels (150 bytes or so).
      series_idle_s: when the table is full, series without samples for that long are forgotten.
      max_queued_requests, max_queued_bytes: what may wait for the ingest thread, bytes as sent.
      max_groups_in_flight: groups that wait for the log's acknowledgement.
    Of tenants:
      tenancy: whether there are any, and whether a request has to name one.
      tenant_limits: the file of their limits (`common.limits`).
    Timing:
      linger_s: how long a group waits at most for more requests: while the log is busy with another one, or while
        fewer have come than there seem to be senders.
      small_group_samples: a group with that many samples waits for the log only, not for senders.
      max_group_samples: a group with that many samples is sent at once.
      shared_group_samples: one is sent with that many while several tenants send, so that none waits long.
      redeclare_s: a series is declared again before that time has passed since its last declaration.
    """

    max_body_bytes: int = 32 << 20
    max_series_per_request: int = 100_000
    max_samples_per_request: int = 2_000_000
    max_labels_per_series: int = 128
    max_label_name_bytes: int = 1024
    max_label_value_bytes: int = 16 * 1024
    max_active_series: int = 5_000_000
    series_idle_s: float = 2 * 3600.0
    max_queued_requests: int = 2048
    max_queued_bytes: int = 128 << 20
    max_groups_in_flight: int = 4
    linger_s: float = 0.003
    small_group_samples: int = 8_000
    max_group_samples: int = 100_000
    shared_group_samples: int = 2_000
    redeclare_s: float = 3600.0
    tenancy: Tenancy = Tenancy.OFF
    tenant_limits: Path | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not isinstance(value, int | float):
                continue
            if value < 0 or (value == 0 and name != "linger_s"):
                raise ValueError(f"{name} is {value}; it must be positive")
        if self.max_active_series > MAX_ACTIVE_SERIES:
            raise ValueError(
                f"max_active_series is {self.max_active_series}; at most {MAX_ACTIVE_SERIES} are possible"
            )

    @property
    def max_compressed_bytes(self) -> int:
        """Largest size snappy gives to a body of `max_body_bytes` (its `MaxCompressedLength`)."""
        return 32 + self.max_body_bytes + self.max_body_bytes // 6
