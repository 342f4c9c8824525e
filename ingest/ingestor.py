"""Remote-write bodies and deletions in, acknowledgements out."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeAlias

from common.errors import RetryableError
from common.limits import Limits
from common.log.base import Log
from common.store import MAX_TIME_MS, MIN_TIME_MS
from common.tenants import DEFAULT_TENANT, Tenancy, tenant_matcher
from common.tombstones import Tombstone
from ingest.batcher import Batcher
from ingest.committer import GroupCommitter
from ingest.config import IngestConfig
from ingest.deletions import tombstone_records
from ingest.errors import LimitReached, NotAccepting
from ingest.metrics import IngestMetrics, process_metrics
from ingest.rates import Rates
from ingest.remote_write import RemoteWriteReader, Taken
from ingest.retention import TenantRetention
from ingest.tenants import Tenant, Tenants

WriteOutcome: TypeAlias = Taken
SWITCH_S = 0.001


def unix_ms() -> int:
    """The wall clock, Unix ms."""
    return time.time_ns() // 1_000_000


class Ingestor:
    """Takes bodies of remote write from any thread and answers when the log has their samples.

    gate: asked before each write; returns why none is accepted for now, or None.
    clock: Unix ms. limits: of tenants; by default those of the configured file.
    """

    def __init__(
        self,
        log: Log,
        config: IngestConfig | None = None,
        *,
        clock: Callable[[], int] = unix_ms,
        gate: Callable[[], str | None] | None = None,
        metrics: IngestMetrics | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.config = config if config is not None else IngestConfig()
        self.metrics = metrics if metrics is not None else process_metrics()
        self._gate = gate
        self._log = log
        self._clock = clock
        self._deleter_id = secrets.randbits(64)
        limits = Limits(self.config.tenant_limits) if limits is None else limits
        self._reader = RemoteWriteReader(self.config, limits)
        self._rates = Rates(limits)
        self._retention = TenantRetention(limits, self.delete, clock)
        self._tenants = Tenants()
        batcher = Batcher(
            log.partitions,
            self.config.max_active_series,
            round(self.config.redeclare_s * 1000),
            round(self.config.series_idle_s * 1000),
        )
        self._committer: GroupCommitter[Taken] = GroupCommitter(batcher, log, self.config, self.metrics, clock)

    def start(self) -> None:
        """Start the ingest thread, and that of tenants' retention."""
        self._committer.start()
        if self.config.tenancy is not Tenancy.OFF:
            # A thread that has to do with one tenant's request must not keep others from Python for 5 ms.
            sys.setswitchinterval(SWITCH_S)
            self._retention.start()

    def known_series(self) -> float:
        """Series in its table, of which there may be `max_active_series`."""
        return float(next(iter(self.metrics.series_active.collect())).samples[0].value)

    def check_open(self) -> None:
        """Raises NotAccepting if the gate is closed."""
        reason = self._gate() if self._gate is not None else None
        if reason is not None:
            raise NotAccepting(reason, retry_after_s=10.0)

    def submit(self, body: bytes, tenant: str = DEFAULT_TENANT) -> Future[WriteOutcome]:
        """Queue a body of a tenant as it was sent (snappy block of a prometheus.WriteRequest).

        The future gives the outcome once every sample of the request that was not refused is durable in the log.

        Raises:
            NotAccepting: the gate is closed. QueueFull: too much waits. LogUnavailable: the ingestor is closed.
            LimitReached: the tenant may not write now.
        The future raises BadRequest or BodyTooLarge (nothing stored), or LogUnavailable (perhaps stored).
        """
        return self._submit(body, tenant, self._reader.take)

    def submit_v2(self, body: bytes, tenant: str = DEFAULT_TENANT) -> Future[WriteOutcome]:
        """Like `submit`, with a body of remote write 2.0 (snappy block of an io.prometheus.write.v2.Request)."""
        return self._submit(body, tenant, self._reader.take_v2)

    def submit_message(self, message: bytes, tenant: str = DEFAULT_TENANT) -> Future[WriteOutcome]:
        """Like `submit`, with a prometheus.WriteRequest that is not compressed."""
        return self._submit(message, tenant, self._reader.take_message)

    def _submit(
        self, body: bytes, tenant_name: str, read: Callable[[bytes, Batcher, Tenant], Taken]
    ) -> Future[WriteOutcome]:
        self.check_open()
        tenant = self._tenant(tenant_name)
        self.metrics.received_bytes.inc(len(body))

        def take(batcher: Batcher) -> Taken:
            # Others of the tenant may have come first since this one was let in.
            self._check_rate(tenant)
            started = time.perf_counter()
            taken = read(body, batcher, tenant)
            self._rates.spend(tenant.name, taken.n_samples)
            self._count_stages(time.perf_counter() - started)
            self.metrics.series_created.inc(taken.n_created)
            for fault, n_series in taken.faults:
                self.metrics.series_refused.labels(fault.value).inc(n_series)
            if taken.n_exemplars or taken.n_dropped_exemplars:
                self.metrics.exemplars.labels("stored").inc(taken.n_exemplars)
                self.metrics.exemplars.labels("dropped").inc(taken.n_dropped_exemplars)
            return taken

        turn = "" if self.config.tenancy is Tenancy.OFF else tenant.name
        return self._committer.offer(take, len(body), tenant=turn)

    def _tenant(self, name: str) -> Tenant:
        """The tenant, if it may write now. Raises LimitReached."""
        try:
            tenant = self._tenants.named(name)
        except LimitReached as error:
            self.metrics.limited.labels(error.limit).inc()
            raise
        self._check_rate(tenant)
        return tenant

    def _check_rate(self, tenant: Tenant) -> None:
        try:
            self._rates.check(tenant.name)
        except LimitReached as error:
            self.metrics.limited.labels(error.limit).inc()
            raise

    def _count_stages(self, seconds: float) -> None:
        reader, metrics = self._reader, self.metrics
        metrics.decompress_seconds.inc(reader.decompress_s)
        metrics.walk_seconds.inc(reader.walk_s)
        metrics.batch_seconds.inc(max(0.0, seconds - reader.decompress_s - reader.walk_s))
        reader.decompress_s = reader.walk_s = 0.0

    def delete(self, tombstones: Sequence[Tombstone]) -> Future[list[int]]:
        """Put tombstones into the log; they hold for all that was acknowledged before.

        Raises:
            NotAccepting: the gate is closed. LogUnavailable. BadRequest: too many, or too long.
        The future raises LogUnavailable; some partitions may have them then, and sending them again is harmless.
        """
        self.check_open()
        records = tombstone_records(tombstones, self._log.partitions, self._deleter_id, self._clock())
        return self._log.append(records)

    def delete_tenant(self, tenant: str) -> Future[list[int]]:
        """Put into the log that a tenant is forgotten, with all that it has. Raises as `delete`."""
        done = self.delete([Tombstone((tenant_matcher([tenant]),), MIN_TIME_MS, MAX_TIME_MS, forgets=True)])
        number = self._tenants.named(tenant).number

        def forget(batcher: Batcher) -> Taken:
            # Views do not know any more what was declared; what comes now has to be declared again.
            batcher.forget_declared(number)
            self._reader.forget_metadata()
            return Taken(0)

        def follow(future: Future[list[int]]) -> None:
            if future.exception() is None:
                with suppress(RetryableError):
                    self._committer.offer(forget, 0)

        done.add_done_callback(follow)
        return done

    def close(self, timeout_s: float = 5.0) -> bool:
        """Accept no more, finish what is under way; returns whether that was possible within `timeout_s`."""
        self._retention.close()
        return self._committer.close(timeout_s)
