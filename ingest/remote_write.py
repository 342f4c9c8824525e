"""One remote-write body to samples in the batcher's columns."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, replace

import cramjam
import numpy as np
from numpy.typing import NDArray

from common.attachments import MAX_BYTES, Kind
from common.kernels import remote_write as kernels
from common.kernels.series_table import HASH_KEY_WORDS, MAX_HASHED_BYTES
from common.limits import NO_LIMITS, Limits, TenantLimits
from common.store import STALE_NAN_BITS
from common.tenants import TENANT_LABEL
from ingest import messages
from ingest.batcher import Batcher
from ingest.config import IngestConfig
from ingest.errors import BadRequest, BodyTooLarge, Fault, Refusal
from ingest.remote_write_v2 import Transcoder
from ingest.tenants import DEFAULT, NAMED_TENANT, Tenant, names_tenant
from ingest.write_request import SPELLED_OUT

_FIRST_BUFFER_BYTES = 1 << 20
_FIRST_UNKNOWN = 4096
_FIRST_OTHERS = 1024

SERIES_RETRY_S = 60.0
"""When a series may be taken that was one too many: idle ones are looked for that often."""
_FAULTS = {
    kernels.NO_METRIC_NAME: Fault.NO_METRIC_NAME,
    kernels.EMPTY_NAME: Fault.EMPTY_NAME,
    kernels.DUPLICATE_NAME: Fault.DUPLICATE_NAME,
    kernels.UNSORTED: Fault.UNSORTED,
    kernels.NAME_NOT_UTF8: Fault.NOT_UTF8,
    kernels.VALUE_NOT_UTF8: Fault.NOT_UTF8,
    kernels.TOO_MANY_LABELS: Fault.TOO_MANY_LABELS,
    kernels.NAME_TOO_LONG: Fault.NAME_TOO_LONG,
    kernels.VALUE_TOO_LONG: Fault.VALUE_TOO_LONG,
    kernels.LABELS_TOO_LONG: Fault.LABELS_TOO_LONG,
}


@dataclass(frozen=True, slots=True)
class Taken:
    """What was made of one request.

    n_samples: samples that go to the log, histograms among them. n_created: series seen for the first time.
    refusal: series that were refused, if any. faults: number of refused series by reason.
    n_histograms, n_exemplars: that go to the log. n_dropped_exemplars: that break the rules for exemplars.
    """

    n_samples: int
    n_created: int = 0
    refusal: Refusal | None = None
    faults: tuple[tuple[Fault, int], ...] = ()
    n_histograms: int = 0
    n_exemplars: int = 0
    n_dropped_exemplars: int = 0


class RemoteWriteReader:
    """Reads bodies with buffers that it keeps; used by one thread."""

    def __init__(self, config: IngestConfig, limits: Limits | None = None) -> None:
        self._config = config
        self._tenant_limits = limits if limits is not None else Limits()
        key = np.frombuffer(secrets.token_bytes(2 * 8 * HASH_KEY_WORDS), dtype=np.uint64)
        self._hash_key = key.reshape(2, HASH_KEY_WORDS).copy()
        self._counts = np.zeros(kernels.N_COUNTS, dtype=np.int64)
        self._transcoder = Transcoder(config.max_body_bytes)
        self._forgot_ms = 0
        self._set_buffer(_FIRST_BUFFER_BYTES)
        self._set_unknown(_FIRST_UNKNOWN)
        self._others = np.empty((_FIRST_OTHERS, 6), dtype=np.int64)
        self.decompress_s = self.walk_s = 0.0
        """How long that took the last time; whoever adds them up sets them to 0."""

    def take(self, body: bytes, batcher: Batcher, tenant: Tenant = DEFAULT) -> Taken:
        """Put what a request of a tenant has, as it was sent (a snappy block), behind what the batcher has.

        Raises:
            BadRequest, BodyTooLarge: nothing of the request was taken.
        """
        return self._take(self._decompress(body), batcher, tenant)

    def take_v2(self, body: bytes, batcher: Batcher, tenant: Tenant = DEFAULT) -> Taken:
        """Like `take`, with a request of remote write 2.0 as it was sent."""
        size = self._decompress(body)
        if abs(batcher.attached.now_ms - self._forgot_ms) >= self._config.redeclare_s * 1000:
            self._forgot_ms = batcher.attached.now_ms
            self._transcoder.forget_metadata()
        return self.take_message(self._transcoder.message(self._buffer[:size], tenant.salt), batcher, tenant)

    def forget_metadata(self) -> None:
        """Take metadata as new that was seen before."""
        self._transcoder.forget_metadata()

    def take_message(self, message: bytes, batcher: Batcher, tenant: Tenant = DEFAULT) -> Taken:
        """Like `take`, with a message that was made of a request in another format, of which it says more."""
        size = len(message)
        self._check_size(size, SPELLED_OUT * self._config.max_body_bytes)
        if len(self._buffer) < size + 16:
            self._set_buffer(size + 16)
        self._buffer[:size] = np.frombuffer(message, dtype=np.uint8)
        return self._take(size, batcher, tenant)

    def _take(self, size: int, batcher: Batcher, tenant: Tenant) -> Taken:
        started = time.perf_counter()
        self._walk(size, batcher, tenant)
        self.walk_s = time.perf_counter() - started
        try:
            return self._settle(batcher, tenant)
        finally:
            if len(self._buffer) > 8 * _FIRST_BUFFER_BYTES:
                self._set_buffer(_FIRST_BUFFER_BYTES)

    def _set_buffer(self, room: int) -> None:
        self._words = np.zeros((room + 7) // 8, dtype=np.uint64)
        self._buffer = self._words.view(np.uint8)

    def _set_unknown(self, rows: int) -> None:
        self._unknown = np.empty((rows, 3), dtype=np.int64)
        self._unknown_keys = np.empty((rows, 2), dtype=np.uint64)

    def _decompress(self, body: bytes) -> int:
        """Decompress into the buffer; returns the size."""
        started = time.perf_counter()
        size = uncompressed_size(body)
        self._check_size(size, self._config.max_body_bytes)
        if len(self._buffer) < size + 16:
            self._set_buffer(size + 16)
        try:
            written = cramjam.snappy.decompress_raw_into(body, self._buffer[:size].data) if size else 0
        except cramjam.DecompressionError as error:
            raise BadRequest(f"the body is not valid snappy: {error}") from None
        if written != size or (size == 0 and len(body) != 1):
            raise BadRequest("the body is not valid snappy: its size differs from its header")
        self.decompress_s = time.perf_counter() - started
        return size

    def _check_size(self, size: int, limit: int) -> None:
        if size > limit:
            times = "" if limit == self._config.max_body_bytes else f"{SPELLED_OUT} times "
            raise BodyTooLarge(
                f"the body has {size} bytes decompressed; at most {limit} are accepted ({times}--max-body-bytes)"
            )

    def _walk(self, size: int, batcher: Batcher, tenant: Tenant) -> None:
        """Walk the request, with larger buffers if it needs them."""
        counts = self._counts
        while True:
            table = batcher.table
            at = batcher.n_samples
            status = kernels.walk(
                self._buffer,
                self._words,
                size,
                self._config.max_series_per_request,
                self._hash_key,
                tenant.number,
                table.index,
                table.keys,
                batcher.slots[at:],
                batcher.timestamps[at:],
                batcher.values[at:],
                self._unknown,
                self._unknown_keys,
                self._others,
                counts,
            )
            if status == kernels.NEEDS_SCRATCH:
                message = self._buffer[:size].copy()
                self._set_buffer(2 * size + 32)
                self._buffer[:size] = message
                continue
            if status == kernels.TOO_MANY_SERIES:
                limit = self._config.max_series_per_request
                raise BodyTooLarge(f"the request has more than {limit} series (max_series_per_request)")
            if status != kernels.OK:
                raise BadRequest(
                    f"the body is not a prometheus.WriteRequest: the field at byte {counts[kernels.ERROR_AT]} "
                    f"of {size} is truncated or malformed"
                )
            n_samples = int(counts[kernels.N_SAMPLES])
            n_unknown = int(counts[kernels.N_UNKNOWN])
            n_others = int(counts[kernels.N_OTHERS])
            if n_samples + n_others > self._config.max_samples_per_request:
                limit = self._config.max_samples_per_request
                raise BodyTooLarge(f"the request has more than {limit} samples (max_samples_per_request)")
            if (
                at + n_samples <= len(batcher.slots)
                and n_unknown <= len(self._unknown)
                and n_others <= len(self._others)
            ):
                return
            batcher.reserve(n_samples)
            if n_unknown > len(self._unknown):
                self._set_unknown(n_unknown)
            if n_others > len(self._others):
                self._others = np.empty((n_others, 6), dtype=np.int64)

    def _settle(self, batcher: Batcher, tenant: Tenant) -> Taken:
        """Add new series and give their samples slots, drop samples of refused ones."""
        counts = self._counts
        n_samples = int(counts[kernels.N_SAMPLES])
        n_unknown = int(counts[kernels.N_UNKNOWN])
        n_created = 0
        others = self._others[: int(counts[kernels.N_OTHERS])]
        read = messages.read(self._buffer, others, tenant.name) if len(others) else None
        refusals = _Refusals(self._buffer, self._config)
        if n_unknown:
            new_slots, n_created = self._add_series(batcher, tenant, n_unknown, refusals)
            here = slice(batcher.n_samples, batcher.n_samples + n_samples)
            slots = batcher.slots[here]
            unknown = slots < 0
            slots[unknown] = new_slots[-1 - slots[unknown]]
            unknown = others[:, 1] < 0
            others[unknown, 1] = new_slots[-1 - others[unknown, 1]]
            if refusals.n_series:
                taken = slots >= 0
                n_samples = int(np.count_nonzero(taken))
                for column in (batcher.slots, batcher.timestamps, batcher.values):
                    kept = column[here][taken]
                    column[batcher.n_samples : batcher.n_samples + n_samples] = kept
        batcher.n_samples += n_samples
        n_histograms = n_exemplars = n_stale = 0
        if read is not None:
            n_histograms, n_exemplars = _attach(read, others, batcher, refusals)
            n_stale = _append_stale(read, others, batcher)
        return Taken(
            n_samples + n_stale + n_histograms,
            n_created,
            refusals.refusal(),
            tuple(refusals.faults.items()),
            n_histograms,
            n_exemplars,
            0 if read is None else read.n_dropped,
        )

    def _add_series(
        self, batcher: Batcher, tenant: Tenant, n_unknown: int, refusals: _Refusals
    ) -> tuple[NDArray[np.int32], int]:
        """Slot of each unknown series, -1 where it is refused or has no samples, and the number added."""
        ranges = self._unknown[:n_unknown]
        out = np.empty(int((ranges[:, 1] - ranges[:, 0]).sum()), dtype=np.uint8)
        offsets = np.empty(n_unknown + 1, dtype=np.int64)
        statuses = np.empty(n_unknown, dtype=np.int64)
        limits = self._tenant_limits.of(tenant.name)
        config = refusals.config = _with_limits(self._config, limits)
        of_labels = config.max_labels_per_series, config.max_label_name_bytes, config.max_label_value_bytes
        kernels.canonicalise(self._buffer, ranges, np.array(of_labels, dtype=np.int64), out, offsets, statuses)
        malformed = np.flatnonzero(statuses == kernels.MALFORMED)
        if len(malformed):
            raise BadRequest(
                "the body is not a prometheus.WriteRequest: a label of series "
                f"{describe(self._buffer, *ranges[malformed[0], :2].tolist())} is malformed"
            )
        slots = np.full(n_unknown, -1, dtype=np.int32)
        good = np.flatnonzero((statuses == kernels.OK) & (ranges[:, 2] > 0))
        canonical = out[: offsets[-1]].tobytes()
        starts, ends = offsets[good].tolist(), offsets[good + 1].tolist()
        label_sets = [canonical[start:end] for start, end in zip(starts, ends, strict=True)]
        # The cheap test of all of them first.
        if NAMED_TENANT in canonical:
            reserved = np.array([names_tenant(labels) for labels in label_sets], dtype=np.bool_)
            refusals.add_rows(Fault.RESERVED_NAME, ranges[good[reserved]])
            good = good[~reserved]
            label_sets = [labels for labels in label_sets if not names_tenant(labels)]
        if tenant.pair:
            label_sets = [tenant.label_set(labels) for labels in label_sets]
        room = batcher.room_of(tenant.number, limits.max_active_series)
        slots[good], n_created = batcher.table.add(self._unknown_keys[good], label_sets, tenant.number, room)
        for status in np.unique(statuses[statuses != kernels.OK]).tolist():
            refusals.add_rows(_FAULTS[status], ranges[statuses == status])
        full = Fault.ACTIVE_SERIES
        if n_created == room:
            full = Fault.TENANT_ACTIVE_SERIES
            batcher.note_full()
        refusals.add_rows(full, ranges[good[slots[good] < 0]])
        return slots, n_created


def _with_limits(config: IngestConfig, limits: TenantLimits) -> IngestConfig:
    """The limits of a tenant in place of those of the process, where they are lower."""
    if limits is NO_LIMITS:
        return config
    lower = {
        name: min(own, getattr(config, name))
        for name in ("max_labels_per_series", "max_label_name_bytes", "max_label_value_bytes", "max_active_series")
        if (own := getattr(limits, name)) is not None
    }
    return replace(config, **lower)


def _attach(
    read: messages.Messages, others: NDArray[np.int64], batcher: Batcher, refusals: _Refusals
) -> tuple[int, int]:
    """Put rows into the batcher; returns how many histograms and exemplars."""
    for fault, place in read.faults:
        slot, _, _, start, end = others[place, 1:].tolist()
        if slot >= 0:
            refusals.add(fault, start, end, 1)
    for family, data in read.metadata:
        batcher.attached.add_metadata(family, data, batcher.table.n_partitions)
    rows, slots = read.rows, others[read.places, 1].astype(np.int32)
    if (slots < 0).any():
        kept = np.flatnonzero(slots >= 0)
        rows, slots = rows.take(kept), slots[kept]
    batcher.attached.add(slots, rows)
    n_histograms = int(np.count_nonzero(rows.kinds == Kind.HISTOGRAM))
    return n_histograms, len(rows) - n_histograms


def _append_stale(read: messages.Messages, others: NDArray[np.int64], batcher: Batcher) -> int:
    """Put the ends of histogram series into the batcher as samples; returns how many."""
    slots = others[read.stale, 1]
    times, slots = read.stale_times[slots >= 0], slots[slots >= 0]
    n = len(slots)
    if n:
        batcher.reserve(n)
        here = slice(batcher.n_samples, batcher.n_samples + n)
        batcher.slots[here], batcher.timestamps[here], batcher.values[here] = slots, times, STALE_NAN_BITS
        batcher.n_samples += n
    return n


class _Refusals:
    """Refused series of one request, and where the labels of the first one lie."""

    def __init__(self, buffer: NDArray[np.uint8], config: IngestConfig) -> None:
        self.config = config
        self.faults: dict[Fault, int] = {}
        self._buffer = buffer
        self._first: dict[Fault, tuple[int, int]] = {}

    @property
    def n_series(self) -> int:
        return sum(self.faults.values())

    def add(self, fault: Fault, start: int, end: int, n_series: int) -> None:
        self.faults[fault] = self.faults.get(fault, 0) + n_series
        self._first.setdefault(fault, (start, end))

    def add_rows(self, fault: Fault, ranges: NDArray[np.int64]) -> None:
        if len(ranges):
            start, end = ranges[0, :2].tolist()
            self.add(fault, start, end, len(ranges))

    def refusal(self) -> Refusal | None:
        """The answer: the lowest status, since a request that is sent again fails for that reason again."""
        if not self.faults:
            return None
        status = min(fault.status for fault in self.faults)
        fault = min((fault for fault in self.faults if fault.status == status), key=self._first.__getitem__)
        series = describe(self._buffer, *self._first[fault])
        message = (
            f"series {series}: {reason(fault, self.config)}; {self.n_series} series of the request refused, "
            "the others stored"
        )
        return Refusal(status, message, self.n_series, SERIES_RETRY_S if status == 429 else None)


def reason(fault: Fault, config: IngestConfig) -> str:
    """A fault in words, with the limit it breaks."""
    return {
        Fault.NO_METRIC_NAME: "it has no metric name",
        Fault.EMPTY_NAME: "a label name is empty",
        Fault.DUPLICATE_NAME: "a label name occurs twice",
        Fault.RESERVED_NAME: f"the label {TENANT_LABEL} is not for senders to set",
        Fault.UNSORTED: "its label names are not sorted",
        Fault.NOT_UTF8: "a label name or value is not valid UTF-8",
        Fault.HISTOGRAM_SCHEMA: "a histogram's schema is neither -4 to 8 nor -53",
        Fault.HISTOGRAM_SPANS: "a histogram's spans overlap or reach beyond 32 bits",
        Fault.HISTOGRAM_BUCKETS: "a histogram has more or fewer buckets than its spans say",
        Fault.HISTOGRAM_NEGATIVE: "a histogram has a negative count",
        Fault.HISTOGRAM_COUNT: "a histogram's count is not the sum of its buckets",
        Fault.HISTOGRAM_BOUNDS: "a histogram's custom bounds do not ascend, are too few for its buckets, or go "
        "with what such a histogram does not have",
        Fault.HISTOGRAM_THRESHOLD: "a histogram's zero threshold is not 0 or more",
        Fault.HISTOGRAM_TOO_LARGE: f"a histogram has more than {MAX_BYTES} bytes",
        Fault.TOO_MANY_LABELS: f"it has more than {config.max_labels_per_series} labels (max_labels_per_series)",
        Fault.NAME_TOO_LONG: f"a label name has more than {config.max_label_name_bytes} bytes "
        "(max_label_name_bytes)",
        Fault.VALUE_TOO_LONG: f"a label value has more than {config.max_label_value_bytes} bytes "
        "(max_label_value_bytes)",
        Fault.LABELS_TOO_LONG: f"its labels have more than {MAX_HASHED_BYTES} bytes together",
        Fault.TENANT_ACTIVE_SERIES: f"its tenant has {config.max_active_series} active series already "
        "(max_active_series of the tenant)",
        Fault.ACTIVE_SERIES: f"there are {config.max_active_series} active series already (--max-active-series)",
    }[fault]


def uncompressed_size(body: bytes) -> int:
    """What the header of a snappy block claims (a uvarint below 2^32), before anything is decompressed."""
    size = 0
    for i, byte in enumerate(body[:5]):
        size |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            if size >= 1 << 32:
                break
            return size
    raise BadRequest("the body is not valid snappy: it has no valid length at its start")


_SHOWN_BYTES = 1000


def describe(buffer: NDArray[np.uint8], start: int, end: int) -> str:
    """Label fields for people, as far as they can be read; long ones are cut."""
    data = buffer[start : min(end, start + _SHOWN_BYTES)].tobytes()
    pairs = []
    at = 0
    while at < len(data):
        at, label = _field(data, at)
        inner, texts = 0, {1: b"", 2: b""}
        while inner < len(label):
            number = label[inner] >> 3
            inner, texts[number] = _field(label, inner)
        name, value = (texts[number].decode(errors="backslashreplace") for number in (1, 2))
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        pairs.append(f'{name}="{escaped}"')
    return "{" + ", ".join(pairs) + ("…" if end - start > _SHOWN_BYTES else "") + "}"


def _field(data: bytes, at: int) -> tuple[int, bytes]:
    """Content of the length-delimited field at `at`, as far as it goes, and the position behind it."""
    at += 1
    size = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return at + size, data[at : at + size]
