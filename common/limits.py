"""Limits of tenants: a TOML file that is read again when it has changed (`docs/tenants.md`).

[limits]                 # of every tenant
samples_per_s = 50_000
retention = "90d"

[tenants.team-a]         # instead, of this one
samples_per_s = 200_000
"""

from __future__ import annotations

import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from prometheus_client import Counter, Gauge

from common.durations import duration_ms
from common.errors import StartupError
from common.events import EventLog
from common.store import Matcher
from common.tenants import other_tenants_matcher, tenant_matcher, why_no_tenant
from common.watched import Stamp, stamp

LOOK_EVERY_S = 1.0
"""How soon after a change the file is read again, when limits are asked for."""
MAX_FILE_BYTES = 16 << 20
_LOADS = Counter("tabor_tenant_limits_loads", "Readings of the file of tenants' limits, by outcome", ["outcome"])
_CURRENT = Gauge(
    "tabor_tenant_limits_current", "1 if what the file of tenants' limits holds now is in force, else 0"
)
_CURRENT.set(1)
_log = EventLog("limits")


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """What one tenant may do; None where nothing but the limits of the process hold.

    Of writes, in each process that takes them:
      max_active_series: series with samples in the last hours (`IngestConfig.series_idle_s`).
      samples_per_s: on average; burst_samples: at once, ten seconds' worth if not given.
      max_labels_per_series, max_label_name_bytes, max_label_value_bytes: of series not seen before.
    Of queries, in each process that answers them:
      max_query_samples: that one query may touch.
      max_concurrent_queries: that run at a time; more wait their turn.
    retention_ms: age from which samples are deleted, in steps of four hours.
    """

    max_active_series: int | None = None
    samples_per_s: float | None = None
    burst_samples: int | None = None
    max_labels_per_series: int | None = None
    max_label_name_bytes: int | None = None
    max_label_value_bytes: int | None = None
    max_query_samples: int | None = None
    max_concurrent_queries: int | None = None
    retention_ms: int | None = None

    @property
    def burst(self) -> float:
        """Samples at once."""
        return self.burst_samples or 10 * (self.samples_per_s or 0.0)


NO_LIMITS = TenantLimits()
_NUMBERS = {field.name for field in fields(TenantLimits)} - {"retention_ms"}


@dataclass(frozen=True, slots=True)
class LimitTable:
    """The content of a file: limits of all, and of each tenant that has others."""

    common: TenantLimits = NO_LIMITS
    tenants: tuple[tuple[str, TenantLimits], ...] = ()

    def retentions(self) -> Iterator[tuple[Matcher, int]]:
        """How long the series of some tenants are kept, in ms."""
        if self.common.retention_ms is not None:
            yield other_tenants_matcher(name for name, _ in self.tenants), self.common.retention_ms
        for name, limits in self.tenants:
            if limits.retention_ms is not None:
                yield tenant_matcher([name]), limits.retention_ms


class Limits:
    """Limits of tenants as the file has them now. Any thread may ask.

    A file that cannot be read or understood changes nothing: that is logged and counted, and the limits from
    before hold. Without a file nobody has limits.

    Raises:
        StartupError: at the start there is nothing from before.
    """

    def __init__(self, file: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._clock = clock
        self._lock = threading.Lock()
        self._table = LimitTable()
        self._of: dict[str, TenantLimits] = {}
        self._stamp: Stamp = ()
        self._look_at_s = clock() + LOOK_EVERY_S
        if file is not None:
            self._stamp = stamp([file])
            try:
                self._take(read_limits(file))
            except ValueError as error:
                raise StartupError(str(error)) from None

    def of(self, tenant: str) -> TenantLimits:
        """Limits of a tenant."""
        if self._file is None:
            return NO_LIMITS
        self._look()
        return self._of.get(tenant, self._table.common)

    def table(self) -> LimitTable:
        """All that the file says."""
        if self._file is not None:
            self._look()
        return self._table

    def _take(self, table: LimitTable) -> None:
        self._of, self._table = dict(table.tenants), table

    def _look(self) -> None:
        assert self._file is not None
        if self._clock() < self._look_at_s or not self._lock.acquire(blocking=False):
            return
        try:
            self._look_at_s = self._clock() + LOOK_EVERY_S
            found = stamp([self._file])
            if found == self._stamp:
                return
            # Also of a broken file: it is complained about once.
            self._stamp = found
            try:
                self._take(read_limits(self._file))
            except ValueError as error:
                _LOADS.labels("failed").inc()
                _CURRENT.set(0)
                _log.error("tenant_limits_not_read", reason=str(error), kept="the limits from before")
            else:
                _LOADS.labels("loaded").inc()
                _CURRENT.set(1)
                _log.info("tenant_limits_loaded", file=str(self._file), tenants=len(self._of))
        finally:
            self._lock.release()


def read_limits(file: Path) -> LimitTable:
    """The content of a file. Raises ValueError, which names the file and what is wrong in it."""
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"{file} has more than {MAX_FILE_BYTES} bytes")
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not TOML: {error}") from None
    unknown = content.keys() - {"limits", "tenants"}
    if unknown:
        raise ValueError(f"{file} has the unknown table {min(unknown)!r}; known are 'limits' and 'tenants'")
    common = _limits(content.get("limits", {}), NO_LIMITS, f"{file}: [limits]")
    tenants = content.get("tenants", {})
    if not isinstance(tenants, dict):
        raise ValueError(f"{file}: 'tenants' is not a table of tenants")
    found = []
    for name, of_tenant in tenants.items():
        reason = why_no_tenant(name)
        if reason is not None:
            raise ValueError(f"{file}: {reason}")
        found.append((name, _limits(of_tenant, common, f"{file}: [tenants.{name}]")))
    return LimitTable(common, tuple(sorted(found)))


def _limits(content: Any, base: TenantLimits, where: str) -> TenantLimits:
    if not isinstance(content, dict):
        raise ValueError(f"{where} is not a table")
    changes: dict[str, Any] = {}
    for name, value in content.items():
        if name == "retention":
            kept_ms = duration_ms(value) if isinstance(value, str) else None
            if kept_ms is None:
                raise ValueError(f'{where}: retention is not a duration such as "90d"')
            changes["retention_ms"] = kept_ms
        elif name not in _NUMBERS:
            known = ", ".join(sorted({*_NUMBERS, "retention"}))
            raise ValueError(f"{where} has the unknown limit {name!r}; known are {known}")
        elif isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise ValueError(f"{where}: {name} is {value!r}; it is a whole number above 0")
        else:
            changes[name] = value
    return replace(base, **changes)
