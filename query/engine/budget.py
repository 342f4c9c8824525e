"""What a query may use and has used: time, series, samples; and how it is stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from common.store import (
    Matcher,
    Selection,
    SeriesStore,
    TooManySamples,
    TooManySeries,
    check_n_samples,
    check_n_series,
)
from common.tally import Tally
from query.engine.stages import Stages

_CELLS_PER_CHUNK = 1 << 25


class QueryTimeout(Exception):
    """The query ran longer than it may (errorType 'timeout')."""


class QueryCancelled(Exception):
    """Somebody stopped the query (errorType 'canceled')."""


class Budget:
    """Limits of one query, and how far it has come.

    max_samples, max_series: over all that the query reads. timeout_s: from now on.
    ends: any of them is set by whoever wants the query to end.
    """

    def __init__(self, max_samples: int, max_series: int, timeout_s: float, *ends: threading.Event | None) -> None:
        self.max_samples = max_samples
        self.max_series = max_series
        self.samples = 0
        self.series = 0
        self.peak_samples = 0
        """Most samples at one time: those read, which stay to the end, and the cells of the largest matrix."""
        self.stages = Stages()
        self.tally = Tally()
        self.stop_reason = "query was canceled in expression evaluation"
        self.samples_at_steps: NDArray[np.int64] | None = None
        """Samples that the selectors look at, at each step; None unless somebody asked (`count_steps`)."""
        self.count_steps = False
        self._timeout_s = timeout_s
        self._deadline_s = time.monotonic() + timeout_s
        self._ends = [end for end in ends if end is not None]
        self.missing: Mapping[int, str] = {}
        """Partitions that the query goes without, and why; see `SeriesStore.allow_partial`."""

    def warnings(self) -> list[str]:
        """What whoever asked has to be told of the answer."""
        reasons: dict[str, list[int]] = {}
        for partition, reason in sorted(self.missing.items()):
            reasons.setdefault(reason, []).append(partition)
        return [
            f"partial answer, without {'partitions' if partitions[1:] else 'partition'}"
            f" {', '.join(map(str, partitions))}: {reason}"
            for reason, partitions in reasons.items()
        ]

    def left_s(self) -> float:
        """Seconds until the query must end, never less than a millisecond."""
        return max(self._deadline_s - time.monotonic(), 0.001)

    def select(
        self, store: SeriesStore, matchers: Sequence[Matcher], min_time_ms: int, max_time_ms: int
    ) -> Selection:
        """What the store selects, as far as the limits have not been used up by what was selected before.

        Raises:
            TooManySamples, TooManySeries: together it is more than the query may read.
        """
        self.check()
        left = self.max_samples - self.samples, self.max_series - self.series
        try:
            selection = store.select(matchers, min_time_ms, max_time_ms, *left)
        except TooManySeries:
            raise TooManySeries(self.max_series) from None
        except TooManySamples:
            raise TooManySamples(
                f"the query selects more than {self.max_samples} samples; "
                "narrow its matchers or its time range, or raise --query-max-samples"
            ) from None
        self.samples += len(selection.timestamps)
        self.series += len(selection.labels)
        self.peak_samples = max(self.peak_samples, self.samples)
        return selection

    def note(self, n_samples: int, n_series: int) -> None:
        """Others have read for this query. Raises TooManySamples, TooManySeries if it is too much by now."""
        self.samples += n_samples
        self.series += n_series
        check_n_series(self.series, self.max_series)
        check_n_samples(self.samples, self.max_samples)

    def check(self) -> None:
        """Raises QueryTimeout or QueryCancelled if the query must end; called between steps of the work."""
        for end in self._ends:
            if end.is_set():
                raise QueryCancelled(self.stop_reason)
        if time.monotonic() > self._deadline_s:
            raise QueryTimeout(
                f"query timed out in expression evaluation: it may take {self._timeout_s:.3g} s (--query-timeout)"
            )

    def reserve(self, n_series: int, n_steps: int) -> None:
        """Refuse a matrix that alone would break the limit, before memory is taken."""
        self.check()
        if n_series * n_steps > self.max_samples:
            raise TooManySamples(
                "query processing would load too many samples into memory in query execution: "
                f"{n_series} series at {n_steps} steps are more than {self.max_samples} (--query-max-samples)"
            )
        self.peak_samples = max(self.peak_samples, self.samples + n_series * n_steps)

    def chunks(self, n_rows: int, n_steps: int) -> Iterator[slice]:
        """Rows in portions that take a kernel well under a second; the limits are checked between them."""
        rows = max(1, _CELLS_PER_CHUNK // max(n_steps, 1))
        for first in range(0, n_rows, rows):
            self.check()
            yield slice(first, first + rows)
