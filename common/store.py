"""What the query engine asks of storage, whether it lies in this process or behind HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from common.errors import CallerError, RetryableError
from common.histograms import EncodedHistograms
from common.labels import LabelTable

MIN_TIME_MS = -(1 << 63)
MAX_TIME_MS = (1 << 63) - 1
HOUR_MS = 3_600_000
ANY_NUMBER = 1 << 62
"""A limit that limits nothing."""
STALE_NAN_BITS = 0x7FF0000000000002
"""Bits of the value by which Prometheus marks that a series has ended."""


class MatchOp(Enum):
    EQUAL = "="
    NOT_EQUAL = "!="
    REGEX = "=~"
    NOT_REGEX = "!~"

    # There is one of each, and an enumeration's own hash is a call of Python for each look-up of a selection.
    __hash__ = object.__hash__


class Matcher(NamedTuple):
    """One condition on a label; an absent label has the value ''. Regexes are RE2 and fully anchored."""

    op: MatchOp
    name: str
    value: str

    def __str__(self) -> str:
        return f'{self.name}{self.op.value}"{self.value}"'


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Series and their samples, as columns in compressed-sparse-row form.

    labels: one row a series, in no particular order; every series has at least one sample.
    offsets: int64 (n_series + 1,); samples of series i are at [offsets[i], offsets[i + 1]).
    timestamps: int64 (n_samples,), ms, strictly ascending within a series.
    values: float64 (n_samples,), bit-exact (stale markers and NaN payloads survive); means nothing for histograms.
    histograms: which of the samples are native histograms; None if none is.
    """

    labels: LabelTable
    offsets: NDArray[np.int64]
    timestamps: NDArray[np.int64]
    values: NDArray[np.float64]
    histograms: EncodedHistograms | None = None


@dataclass(frozen=True, slots=True, order=True)
class Metadata:
    """What a sender says of a metric family. type: counter, gauge, histogram, summary, … or unknown."""

    type: str
    help: str
    unit: str


@dataclass(frozen=True, slots=True)
class Exemplar:
    """labels: of the exemplar itself, such as trace_id."""

    labels: dict[str, str]
    value: float
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class SeriesExemplars:
    """Exemplars of one series, in order of time."""

    labels: dict[str, str]
    exemplars: list[Exemplar] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TenantUsage:
    """How much a store has of one tenant; samples and bytes are 0 if they were not asked for."""

    series: int = 0
    samples: int = 0
    size_bytes: int = 0

    def joined(self, other: TenantUsage) -> TenantUsage:
        """That of both together."""
        return TenantUsage(
            self.series + other.series, self.samples + other.samples, self.size_bytes + other.size_bytes
        )


@dataclass(frozen=True, slots=True)
class Usage:
    """How much a store has of each tenant. n_pending: windows and indexes that have what is deleted still."""

    tenants: dict[str, TenantUsage]
    n_pending: int = 0

    def joined(self, other: Usage) -> Usage:
        """That of both together."""
        nothing = TenantUsage()
        names = self.tenants.keys() | other.tenants.keys()
        tenants = {n: self.tenants.get(n, nothing).joined(other.tenants.get(n, nothing)) for n in names}
        return Usage(tenants, self.n_pending + other.n_pending)


@dataclass(frozen=True, slots=True)
class Extent:
    """What a store holds. min_time_ms may be too low after samples have expired; above max_time_ms: no samples.

    n_chunks: runs of one series' samples that are kept together.
    """

    n_chunks: int = 0
    min_time_ms: int = MAX_TIME_MS
    max_time_ms: int = MIN_TIME_MS

    def joined(self, other: Extent) -> Extent:
        """That of both together."""
        return Extent(
            self.n_chunks + other.n_chunks,
            min(self.min_time_ms, other.min_time_ms),
            max(self.max_time_ms, other.max_time_ms),
        )


class TooManySamples(CallerError):
    """A query would touch more samples than its limit."""


class TooManySeries(CallerError):
    """A query would touch more series than its limit."""

    def __init__(self, max_series: int) -> None:
        self.max_series = max_series
        super().__init__(
            f"the query selects more than {max_series} series; narrow its matchers, or raise --query-max-series"
        )


def check_n_samples(n_samples: int, max_samples: int) -> None:
    """Raises TooManySamples if there are more than the limit."""
    if n_samples > max_samples:
        raise TooManySamples(
            f"the query selects more than {max_samples} samples; "
            "narrow its matchers or its time range, or raise --query-max-samples"
        )


def check_n_series(n_series: int, max_series: int) -> None:
    """Raises TooManySeries if there are more than the limit."""
    if n_series > max_series:
        raise TooManySeries(max_series)


class NotCaughtUp(RetryableError):
    """A partition has not applied the log as far as a strong read needs."""


class SeriesStore(Protocol):
    """Read access to series. Methods block, may be called from any thread and at the same time.

    Time ranges are closed on both sides, in ms. `matcher_sets` is a union of conjunctions; none at all means
    every series. Series whose time span does not touch the range are left out.
    """

    def wait_caught_up(self, timeout_s: float) -> None:
        """Return when everything acknowledged before the call is visible.

        Raises:
            NotCaughtUp: it was not within `timeout_s`; names the partition.
        """

    def allow_partial(self) -> Mapping[int, str]:
        """Let the reads that follow in this context go without partitions that nobody can read.

        Returns what is missing, by partition, with the reason; filled by those reads.
        """

    def select(
        self,
        matchers: Sequence[Matcher],
        min_time_ms: int,
        max_time_ms: int,
        max_samples: int,
        max_series: int = ANY_NUMBER,
    ) -> Selection:
        """Series that match all matchers, with their samples in the range.

        Raises:
            TooManySamples: more than `max_samples` samples would be returned.
            TooManySeries: more than `max_series` series match and have a time span that touches the range; said
                before their samples are read.
            CallerError: a regular expression is not valid RE2.
        """

    def series(
        self,
        matcher_sets: Sequence[Sequence[Matcher]],
        min_time_ms: int,
        max_time_ms: int,
        max_series: int = ANY_NUMBER,
    ) -> LabelTable:
        """Label sets of the series that match any of the sets, each once.

        Raises:
            TooManySeries: there are more than `max_series`.
        """

    def label_names(
        self, matcher_sets: Sequence[Sequence[Matcher]], min_time_ms: int, max_time_ms: int
    ) -> list[str]:
        """Names of all labels of these series, ascending."""

    def label_values(
        self, name: str, matcher_sets: Sequence[Sequence[Matcher]], min_time_ms: int, max_time_ms: int
    ) -> list[str]:
        """Values of one label among these series, ascending."""

    def metadata(self, metric: str | None, tenants: Sequence[str] | None = None) -> dict[str, list[Metadata]]:
        """What is known of one metric family or of all, by name, each list ascending and without repetition.

        tenants: whose senders said it; None for all.
        """

    def exemplars(
        self, matcher_sets: Sequence[Sequence[Matcher]], min_time_ms: int, max_time_ms: int
    ) -> list[SeriesExemplars]:
        """Exemplars of the series that match any of the sets, in the range; series without any are left out."""

    def extent(self, matcher_sets: Sequence[Sequence[Matcher]] = ()) -> Extent:
        """How much there is of these series, from what is known without reading samples.

        Chunks are counted of all series only, for they do not tell of which they are.
        """

    def births(
        self, matcher_sets: Sequence[Sequence[Matcher]], min_time_ms: int, max_time_ms: int
    ) -> dict[int, int]:
        """How many of these series have their first sample in each hour (Unix ms // HOUR_MS), within the range."""

    def usage(self, *, with_samples: bool) -> Usage:
        """How much there is of each tenant; samples and bytes, which cost reading all blocks, if asked for."""
