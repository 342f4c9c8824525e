"""Samples from numpy columns straight into the log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import xxhash
from numpy.typing import ArrayLike, NDArray

from common.errors import TaborError
from common.kernels.series_table import MAX_HASHED_BYTES
from common.labels import METRIC_NAME, Labels, canonical_labels
from common.log.base import Log
from common.tenants import DEFAULT_TENANT, TENANT_LABEL, why_no_tenant
from ingest.batcher import Batcher
from ingest.committer import GroupCommitter
from ingest.config import IngestConfig
from ingest.errors import DeliveryFailed, InvalidLabels, QueueFull
from ingest.ingestor import unix_ms
from ingest.metrics import IngestMetrics, process_metrics
from ingest.tenants import Tenants

_SAMPLE_BYTES = 20
_PIECE_SAMPLES = 100_000
"""A write is cut into pieces of that many samples, so that the limit on what waits holds for it too."""


@dataclass(frozen=True, slots=True)
class _Taken:
    """Outcome of one piece of work in the ingest thread."""

    n_samples: int
    slots: NDArray[np.uint32] | None = None


class Producer:
    """Writes series and numpy columns of samples to a log: the same records as remote write makes.

        with Producer(log) as producer:
            series = producer.series([{"__name__": "speed", "car": "7"}, {"__name__": "speed", "car": "9"}])
            producer.write(series, timestamps_ms, values)

    Methods may be called from any thread. `close` leaves the log open, which is the caller's.

    tenant: whose the series are. timeout_s: how long `write`, `series` and `close` wait for a log that is slow.
    """

    def __init__(
        self,
        log: Log,
        config: IngestConfig | None = None,
        *,
        tenant: str = DEFAULT_TENANT,
        clock: Callable[[], int] = unix_ms,
        timeout_s: float = 30.0,
        metrics: IngestMetrics | None = None,
    ) -> None:
        config = config if config is not None else IngestConfig()
        reason = why_no_tenant(tenant)
        if reason is not None:
            raise ValueError(reason)
        self._tenant = Tenants().named(tenant)
        self._config = config
        self._timeout_s = timeout_s
        # Handles are slots, so series are never forgotten.
        batcher = Batcher(log.partitions, config.max_active_series, round(config.redeclare_s * 1000), None)
        metrics = metrics if metrics is not None else process_metrics()
        self._committer: GroupCommitter[_Taken] = GroupCommitter(batcher, log, self._config, metrics, clock)
        self._settled = threading.Condition()
        self._pending = 0
        self._lost_samples = 0
        self._cause: BaseException | None = None
        self._n_series = 0
        self._committer.start()

    def series(self, label_sets: Sequence[Labels]) -> NDArray[np.uint32]:
        """Handles of series for `write`, uint32 (n,); the same label set gives the same handle.

        Raises:
            InvalidLabels: a label set breaks a rule or a limit; shows it. No series is added.
            QueueFull: the log is so slow that there was no turn for this within the producer's `timeout_s`.
        """
        encoded = [self._encode(labels) for labels in label_sets]
        joined = b"".join(map(xxhash.xxh3_128_digest, encoded))
        keys = np.frombuffer(joined, dtype=np.uint64).reshape(len(encoded), 2).copy()

        def take(batcher: Batcher) -> _Taken:
            slots, _ = batcher.table.add(keys, encoded)
            return _Taken(0, slots.astype(np.uint32) if (slots >= 0).all() else None)

        future = self._committer.offer(take, 0, wait_s=self._timeout_s)
        try:
            slots = future.result(self._timeout_s).slots
        except TimeoutError:
            raise QueueFull("the log is slow; series were not numbered in time") from None
        if slots is None:
            raise InvalidLabels(f"there are {self._config.max_active_series} series already (max_active_series)")
        with self._settled:
            self._n_series = max(self._n_series, int(slots.max()) + 1 if len(slots) else 0)
        return slots

    def write(self, series: ArrayLike, timestamps_ms: ArrayLike, values: ArrayLike) -> None:
        """Hand samples over; they are on their way to the log, not yet in it, when this returns.

        series: handles, (n_samples,), or one handle for all. timestamps_ms: integers (n_samples,), Unix ms.
        values: floats (n_samples,), kept bit for bit. The arrays are copied.

        Raises:
            ValueError: the arrays differ in length, or a handle is not one that `series` gave.
            DeliveryFailed: samples of an earlier write did not reach the log.
            QueueFull: the log did not take enough of what waits within the producer's `timeout_s`; nothing of
                this piece of 100,000 samples and later ones was taken.
        """
        self._raise_lost()
        times = np.asarray(timestamps_ms)
        numbers = np.array(values, dtype=np.float64, ndmin=1)
        if times.dtype.kind not in "iu":
            raise ValueError(f"timestamps_ms has the type {times.dtype}; integers (Unix ms) are expected")
        times = np.array(times, dtype=np.int64, ndmin=1)
        handles = np.asarray(series)
        if handles.dtype.kind not in "iu" and handles.size:
            raise ValueError(f"series has the type {handles.dtype}; handles as `series` gives them are expected")
        if handles.ndim == 0:
            handles = np.full(len(times), handles)
        if not (handles.shape == times.shape == numbers.shape and handles.ndim == 1):
            raise ValueError(
                f"series, timestamps_ms and values have the shapes {handles.shape}, {times.shape}, {numbers.shape}"
            )
        if handles.size and (int(handles.min()) < 0 or int(handles.max()) >= self._n_series):
            raise ValueError("a handle in `series` is not one of this producer's")
        slots = handles.astype(np.int32)
        for start in range(0, len(slots), _PIECE_SAMPLES):
            piece = slice(start, start + _PIECE_SAMPLES)
            self._offer(slots[piece], times[piece], numbers[piece].view(np.uint64))

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until everything written before is durable in the log.

        timeout_s: the producer's `timeout_s` if not given.

        Raises:
            DeliveryFailed: some samples did not reach the log, or not in time; those that did are stored.
        """
        deadline = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        with self._settled:
            done = self._settled.wait_for(lambda: self._pending == 0, max(0.0, deadline - time.monotonic()))
            pending = self._pending
        self._raise_lost()
        if not done:
            raise DeliveryFailed(f"{pending} samples are not acknowledged in time", samples=pending)

    def close(self) -> None:
        """Flush and stop. Raises DeliveryFailed as `flush` does."""
        try:
            self.flush()
        finally:
            self._committer.close(self._timeout_s)

    def __enter__(self) -> Producer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            # The caller's error is the one to see; what was written still gets its chance.
            self._committer.close(self._timeout_s)

    def _offer(self, slots: NDArray[np.int32], times: NDArray[np.int64], bits: NDArray[np.uint64]) -> None:
        n = len(slots)

        def take(batcher: Batcher) -> _Taken:
            batcher.reserve(n)
            here = slice(batcher.n_samples, batcher.n_samples + n)
            batcher.slots[here] = slots
            batcher.timestamps[here] = times
            batcher.values[here] = bits
            batcher.n_samples += n
            return _Taken(n)

        with self._settled:
            self._pending += n
        try:
            future = self._committer.offer(take, n * _SAMPLE_BYTES, wait_s=self._timeout_s)
        except TaborError:
            self._settle(n, None)
            raise

        def settle(done: Future[_Taken]) -> None:
            self._settle(n, done.exception())

        future.add_done_callback(settle)

    def _settle(self, n_samples: int, error: BaseException | None) -> None:
        with self._settled:
            self._pending -= n_samples
            if error is not None:
                self._lost_samples += n_samples
                self._cause = error
            self._settled.notify_all()

    def _raise_lost(self) -> None:
        with self._settled:
            lost, cause = self._lost_samples, self._cause
            self._lost_samples, self._cause = 0, None
        if lost:
            raise DeliveryFailed(f"{lost} samples did not reach the log: {cause}", samples=lost) from cause

    def _encode(self, labels: Labels) -> bytes:
        """Canonical labels of a label set that keeps the rules."""
        config = self._config
        fault = None if labels.get(METRIC_NAME) else f"{METRIC_NAME} is missing or empty"
        if len(labels) > config.max_labels_per_series:
            fault = f"it has more than {config.max_labels_per_series} labels (max_labels_per_series)"
        for name, value in labels.items():
            fault = (
                fault
                or _text_fault(name, "label name", config.max_label_name_bytes, "max_label_name_bytes")
                or _text_fault(value, f"value of {name!r}", config.max_label_value_bytes, "max_label_value_bytes")
                or (None if name else "a label name is empty")
            )
        if labels.get(TENANT_LABEL):
            fault = fault or f"the label {TENANT_LABEL} is not to be given; the producer has a tenant"
        encoded = self._tenant.label_set(canonical_labels(labels)) if fault is None else b""
        if len(encoded) > MAX_HASHED_BYTES:
            fault = f"its labels have more than {MAX_HASHED_BYTES} bytes together"
        if fault is not None:
            raise InvalidLabels(f"series {str(dict(labels))[:1000]}: {fault}")
        return encoded


def _text_fault(text: object, what: str, max_bytes: int, limit: str) -> str | None:
    """Why a name or value cannot be stored, or None."""
    if not isinstance(text, str):
        return f"the {what} is not a string"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return f"the {what} cannot be written as UTF-8"
    return f"the {what} has more than {max_bytes} bytes ({limit})" if size > max_bytes else None
