"""Samples a second, tenant by tenant: a token bucket that may be overdrawn by one request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from common.limits import Limits, TenantLimits
from ingest.errors import LimitReached


class Rates:
    """How many samples each tenant may still write. Any thread may ask.

    A request is taken as long as there is anything left, whatever its size, and may leave a debt; so there is no
    request that never passes, and over time a tenant has its rate and no more.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._left: dict[str, tuple[float, float]] = {}
        """Samples that were left, and when, of tenants that have a limit."""

    def check(self, tenant: str) -> None:
        """Raises LimitReached if the tenant has to wait before it writes more."""
        limits = self._limits.of(tenant)
        if limits.samples_per_s is None:
            return
        with self._lock:
            left = self._now(tenant, limits)
        if left < 1:
            raise LimitReached(
                f"tenant {tenant} writes more than {limits.samples_per_s:g} samples/s (samples_per_s)",
                limit="samples_per_s",
                retry_after_s=(1 - left) / limits.samples_per_s,
            )

    def spend(self, tenant: str, n_samples: int) -> None:
        """The tenant has written so many."""
        limits = self._limits.of(tenant)
        if limits.samples_per_s is None:
            return
        with self._lock:
            self._left[tenant] = self._now(tenant, limits) - n_samples, self._clock()

    def _now(self, tenant: str, limits: TenantLimits) -> float:
        assert limits.samples_per_s is not None
        left, at_s = self._left.get(tenant, (limits.burst, self._clock()))
        return min(limits.burst, left + (self._clock() - at_s) * limits.samples_per_s)
