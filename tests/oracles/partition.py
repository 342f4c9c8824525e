"""The state machine of a partition, slowly: dicts of series and samples, one sample at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

import xxhash

from common.attachments import Kind
from common.labels import parse_canonical
from common.record import RecordBatch
from common.tombstones import Tombstone
from tests.memory_store import matches

WINDOW_MS = 4 * 3600 * 1000
DAY_MS = 24 * 3600 * 1000


@dataclass
class OraclePartition:
    """Samples by series, where a series is its canonical labels or an undeclared (producer_id, ref)."""

    retention_ms: int | None = None
    samples: dict[object, dict[int, int | bytes]] = field(default_factory=dict)
    bound: dict[int, dict[int, object]] = field(default_factory=dict)
    heard_ms: dict[int, int] = field(default_factory=dict)
    last: dict[object, int] = field(default_factory=dict)
    erased: dict[bytes, set[int]] = field(default_factory=dict)
    clock_ms: int = -(1 << 63)
    horizon_ms: int = -(1 << 63)
    accepted: int = 0
    duplicate: int = 0
    late: int = 0
    too_old: int = 0
    orphaned: int = 0
    deleted: int = 0

    def apply(self, batch: RecordBatch) -> None:
        self.clock_ms = max(self.clock_ms, batch.created_ms)
        if self.retention_ms is not None:
            horizon = (self.clock_ms - self.retention_ms) // WINDOW_MS * WINDOW_MS
            self.horizon_ms = max(self.horizon_ms, horizon)
            for series in self.samples.values():
                for time in [time for time in series if time < self.horizon_ms]:
                    del series[time]
        for producer in [p for p, heard in self.heard_ms.items() if self.clock_ms - heard > DAY_MS]:
            del self.heard_ms[producer], self.bound[producer]
        self.heard_ms[batch.producer_id] = self.clock_ms
        bound = self.bound.setdefault(batch.producer_id, {})
        offsets = batch.label_offsets.tolist()
        for ref, i in {ref: i for i, ref in enumerate(batch.declared_refs.tolist())}.items():
            self._declare(bound, ref, batch.label_bytes[offsets[i] : offsets[i + 1]].tobytes())
        bits = batch.values.view("u8").tolist()
        for ref, time, value in zip(batch.refs.tolist(), batch.timestamps.tolist(), bits, strict=True):
            self._sample(bound.setdefault(ref, (batch.producer_id, ref)), time, value)
        attached = batch.attached
        tombstones = int((attached.kinds == Kind.TOMBSTONE).sum())
        if tombstones:
            for i in range(len(attached)):
                self._delete(Tombstone.decode(attached.row(i)))
            return
        rows = zip(attached.kinds.tolist(), attached.refs.tolist(), attached.timestamps.tolist(), strict=True)
        for i, (kind, ref, time) in enumerate(rows):
            series = bound.setdefault(ref, (batch.producer_id, ref))
            if kind == Kind.HISTOGRAM:
                self._sample(series, time, attached.row(i))
            else:
                # It makes the series known, no more.
                self.samples.setdefault(series, {})

    def _delete(self, tombstone: Tombstone) -> None:
        low, high = tombstone.min_time_ms, tombstone.max_time_ms
        for series, samples in self.samples.items():
            if isinstance(series, bytes) and all(matches(m, parse_canonical(series)) for m in tombstone.matchers):
                for time in [time for time in samples if low <= time <= high]:
                    del samples[time]
                    self.deleted += 1
                    self.erased.setdefault(series, set()).add(time)
                if low <= self.last.get(series, low - 1) <= high:
                    del self.last[series]
                    if samples:
                        self.last[series] = max(samples)

    def _declare(self, bound: dict[int, object], ref: int, labels: bytes) -> None:
        before = bound.get(ref)
        bound[ref] = labels
        target = self.samples.setdefault(labels, {})
        if isinstance(before, tuple):
            for time, value in self.samples.pop(before, {}).items():
                target.setdefault(time, value)
            self.last[labels] = max(self.last.get(labels, -(1 << 64)), self.last.pop(before, -(1 << 64)))

    def _sample(self, series: object, time: int, value: int | bytes) -> None:
        self.orphaned += isinstance(series, tuple)
        stored = self.samples.setdefault(series, {})
        if time < self.horizon_ms:
            self.too_old += 1
        elif time in stored:
            self.duplicate += 1
        else:
            stored[time] = value
            if time > self.last.get(series, -(1 << 64)):
                self.accepted += 1
            else:
                self.late += 1
            self.last[series] = max(time, self.last.get(series, time))

    @property
    def n_samples(self) -> int:
        return sum(map(len, self.samples.values()))

    def select(self, min_time: int, max_time: int) -> dict[bytes, dict[int, int | bytes]]:
        """Samples of the declared series in the closed range, by canonical labels; none without samples."""
        found = {}
        for series, samples in self.samples.items():
            if isinstance(series, bytes):
                inside = {time: value for time, value in sorted(samples.items()) if min_time <= time <= max_time}
                if inside:
                    found[series] = inside
        return found

    def digest(self) -> str:
        """The digest as `docs/format/rocksdb-keys.md` says, sample by sample."""
        windows: dict[int, list[int]] = {}
        for series, samples in self.samples.items():
            for time, bits in samples.items():
                window = windows.setdefault(time // WINDOW_MS, [0, 0, 0])
                if isinstance(bits, bytes):
                    bits = xxhash.xxh3_64_intdigest(bits)
                lane_a, lane_b = hash_sample(_series_id(series), time, bits)
                window[0] = (window[0] + lane_a) % 2**64
                window[1] = (window[1] + lane_b) % 2**64
                window[2] += 1
        hasher = xxhash.xxh3_128()
        for number, (lane_a, lane_b, count) in sorted(windows.items()):
            for part in (number, lane_a, lane_b, count):
                hasher.update(part.to_bytes(9, "little", signed=True))
        return hasher.hexdigest()


def _series_id(series: object) -> bytes:
    if isinstance(series, bytes):
        assert parse_canonical(series)
        return xxhash.xxh3_128_digest(series)
    assert isinstance(series, tuple)
    producer_id, ref = series
    return xxhash.xxh3_128_digest(b"orphan" + producer_id.to_bytes(8, "little") + ref.to_bytes(4, "little"))


def hash_sample(series_id: bytes, time: int, bits: int) -> tuple[int, int]:
    """Both lanes of a sample's hash."""
    id_a, id_b = int.from_bytes(series_id[:8], "little"), int.from_bytes(series_id[8:], "little")
    time %= 2**64

    def mixer(shifts: tuple[int, int, int], factors: tuple[int, int]):  # type: ignore[no-untyped-def]
        def mix(x: int) -> int:
            x %= 2**64
            x = (x ^ x >> shifts[0]) * factors[0] % 2**64
            x = (x ^ x >> shifts[1]) * factors[1] % 2**64
            return x ^ x >> shifts[2]

        return mix

    mix_a = mixer((30, 27, 31), (0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
    mix_b = mixer((33, 28, 32), (0x62A9D9ED799705F5, 0xCB24D0A5C88C35B3))
    lane_a = mix_a(mix_a(mix_a((time + 0x9E3779B97F4A7C15) % 2**64 ^ id_a) + bits) ^ id_b)
    lane_b = mix_b(mix_b(mix_b((bits + 0xD1B54A32D192ED03) % 2**64 ^ id_b) + time) ^ id_a)
    return lane_a, lane_b
