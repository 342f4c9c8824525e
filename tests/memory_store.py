"""A SeriesStore over plain Python data, for tests of what reads from a store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import re2

from common.histograms import EncodedHistograms
from common.labels import Labels, LabelTable, StringPool, canonical_labels
from common.store import (
    ANY_NUMBER,
    HOUR_MS,
    Extent,
    Matcher,
    MatchOp,
    Metadata,
    Selection,
    SeriesExemplars,
    TenantUsage,
    TooManySamples,
    TooManySeries,
    Usage,
)

Samples = Iterable[tuple[int, float | bytes]]
"""A histogram is its bytes (`docs/format/histogram.md`)."""


class MemoryStore:
    """Series as lists of (timestamp in ms, value); kept in the order in which they were added."""

    def __init__(self, series: Iterable[tuple[Labels, Samples]] = ()) -> None:
        self._series: dict[bytes, tuple[dict[str, str], dict[int, float | bytes]]] = {}
        self._pool = StringPool()
        self.selects: list[tuple[tuple[Matcher, ...], int, int]] = []
        for labels, samples in series:
            self.add(labels, samples)

    def add(self, labels: Labels, samples: Samples) -> None:
        """Add samples to a series; a timestamp that it has keeps its value."""
        key = canonical_labels(labels)
        stored = self._series.setdefault(key, ({k: v for k, v in labels.items() if v}, {}))[1]
        for timestamp, value in samples:
            stored.setdefault(timestamp, value)

    def wait_caught_up(self, timeout_s: float) -> None:
        """Everything is visible at once."""

    def allow_partial(self) -> dict[int, str]:
        return {}

    def select(
        self,
        matchers: Sequence[Matcher],
        min_time_ms: int,
        max_time_ms: int,
        max_samples: int,
        max_series: int = ANY_NUMBER,
    ) -> Selection:
        self.selects.append((tuple(matchers), min_time_ms, max_time_ms))
        label_sets, counts, timestamps, values = [], [0], [], []
        for labels, samples in self._series.values():
            if not all(matches(matcher, labels) for matcher in matchers):
                continue
            inside = sorted(t for t in samples if min_time_ms <= t <= max_time_ms)
            if inside:
                label_sets.append(labels)
                counts.append(len(inside))
                timestamps += inside
                values += [samples[t] for t in inside]
        if len(label_sets) > max_series:
            raise TooManySeries(max_series)
        if len(timestamps) > max_samples:
            raise TooManySamples(f"the query selects {len(timestamps)} samples, more than {max_samples}")
        positions = [i for i, value in enumerate(values) if isinstance(value, bytes)]
        histograms = None
        if positions:
            encoded = [value for value in values if isinstance(value, bytes)]
            histograms = EncodedHistograms(
                np.array(positions, dtype=np.int64),
                np.cumsum([0, *map(len, encoded)], dtype=np.int64),
                np.frombuffer(bytearray().join(encoded), dtype=np.uint8),
            )
        return Selection(
            LabelTable.of(label_sets, self._pool),
            np.cumsum(counts, dtype=np.int64),
            np.array(timestamps, dtype=np.int64),
            np.array([0.0 if isinstance(value, bytes) else value for value in values], dtype=np.float64),
            histograms,
        )

    def series(
        self,
        matcher_sets: Sequence[Sequence[Matcher]],
        min_time_ms: int,
        max_time_ms: int,
        max_series: int = ANY_NUMBER,
    ) -> LabelTable:
        found = [
            labels
            for labels, samples in self._series.values()
            if any(min_time_ms <= t <= max_time_ms for t in samples)
            and (not matcher_sets or any(all(matches(m, labels) for m in ms) for ms in matcher_sets))
        ]
        if len(found) > max_series:
            raise TooManySeries(max_series)
        return LabelTable.of(found, self._pool)

    def label_names(
        self, matcher_sets: Sequence[Sequence[Matcher]], min_time_ms: int, max_time_ms: int
    ) -> list[str]:
        return sorted({name for labels in self.series(matcher_sets, min_time_ms, max_time_ms) for name in labels})

    def label_values(
        self, name: str, matcher_sets: Sequence[Sequence[Matcher]], min_time_ms: int, max_time_ms: int
    ) -> list[str]:
        found = self.series(matcher_sets, min_time_ms, max_time_ms)
        return sorted({labels[name] for labels in found if name in labels})

    def metadata(self, metric: str | None, tenants: Sequence[str] | None = None) -> dict[str, list[Metadata]]:
        """See `SeriesStore`."""
        return {}

    def exemplars(
        self, matcher_sets: Sequence[Sequence[Matcher]], min_time_ms: int, max_time_ms: int
    ) -> list[SeriesExemplars]:
        """See `SeriesStore`."""
        return []

    def extent(self, matcher_sets: Sequence[Sequence[Matcher]] = ()) -> Extent:
        """See `SeriesStore`; each series with samples is one chunk."""
        extent = Extent()
        for labels, samples in self._series.values():
            if samples and any(all(matches(m, labels) for m in ms) for ms in matcher_sets or [()]):
                extent = extent.joined(Extent(1, min(samples), max(samples)))
        return extent

    def births(
        self, matcher_sets: Sequence[Sequence[Matcher]], min_time_ms: int, max_time_ms: int
    ) -> dict[int, int]:
        """See `SeriesStore`."""
        found: dict[int, int] = {}
        for labels, samples in self._series.values():
            first = min(samples, default=max_time_ms + 1)
            is_wanted = any(all(matches(m, labels) for m in ms) for ms in matcher_sets or [()])
            if is_wanted and min_time_ms <= first <= max_time_ms:
                found[first // HOUR_MS] = found.get(first // HOUR_MS, 0) + 1
        return found

    def usage(self, *, with_samples: bool) -> Usage:
        """See `SeriesStore`."""
        found = Usage({})
        for labels, samples in self._series.values():
            one = TenantUsage(1, len(samples) if with_samples else 0)
            found = found.joined(Usage({labels.get("__tenant__", "default"): one}))
        return found


def matches(matcher: Matcher, labels: Mapping[str, str]) -> bool:
    """Whether a label set fulfils one condition; an absent label is ''."""
    value = labels.get(matcher.name, "")
    match matcher.op:
        case MatchOp.EQUAL:
            return value == matcher.value
        case MatchOp.NOT_EQUAL:
            return value != matcher.value
        case MatchOp.REGEX:
            return re2.fullmatch(f"(?s:{matcher.value})", value) is not None
        case MatchOp.NOT_REGEX:
            return re2.fullmatch(f"(?s:{matcher.value})", value) is None
