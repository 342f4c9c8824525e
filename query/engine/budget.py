"""What a query may use: time, samples; and how it is stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from common.store import TooManySamples

_CELLS_PER_CHUNK = 1 << 25


class QueryTimeout(Exception):
    """The query ran longer than it may (errorType 'timeout')."""


class QueryCancelled(Exception):
    """Somebody stopped the query (errorType 'canceled')."""


class Budget:
    """Limits of one query.

    deadline_s: on `time.monotonic()`'s clock. ends: any of them is set by whoever wants the query to end.
    """

    def __init__(self, max_samples: int, deadline_s: float, *ends: threading.Event | None) -> None:
        self.max_samples = max_samples
        self.samples = 0
        self.series = 0
        self._deadline_s = deadline_s
        self._ends = [end for end in ends if end is not None]

    def check(self) -> None:
        """Raises QueryTimeout or QueryCancelled if the query must end; called between steps of the work."""
        if any(end.is_set() for end in self._ends):
            raise QueryCancelled("query was canceled in expression evaluation")
        if time.monotonic() > self._deadline_s:
            raise QueryTimeout("query timed out in expression evaluation (--query-timeout)")

    def reserve(self, n_series: int, n_steps: int) -> None:
        """Refuse a matrix that alone would break the limit, before memory is taken."""
        self.check()
        if n_series * n_steps > self.max_samples:
            raise TooManySamples(
                "query processing would load too many samples into memory in query execution (--query-max-samples)"
            )

    def chunks(self, n_rows: int, n_steps: int) -> Iterator[slice]:
        """Rows in portions that take a kernel well under a second; the limits are checked between them."""
        rows = max(1, _CELLS_PER_CHUNK // max(n_steps, 1))
        for first in range(0, n_rows, rows):
            self.check()
            yield slice(first, first + rows)
