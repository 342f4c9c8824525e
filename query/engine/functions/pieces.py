"""The rows and steps of a range vector in pieces, between which it is looked whether the query has to end.

A kernel cannot be stopped. What it may look at is known beforehand: at each step no more than all samples of the
row that are in any of the windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from common.parallel import in_rows
from query.engine.values import Context, RangeVector

LOOKS = 1 << 27
"""Samples that a kernel may look at in one call: half a second where it adds them up."""

Run = Callable[[slice, slice, NDArray[np.int64]], None]
"""Fills rows and steps from the samples between these offsets, of which there is one more than rows."""


def in_pieces(
    context: Context, samples: RangeVector, run: Run, *, weight: int = 1, margin_ms: tuple[int, int] = (0, 0)
) -> None:
    """Call `run` for all rows and steps, on all cores.

    weight: how much longer than in a sum it takes to look at a sample. margin_ms: what is looked at before and
    behind the windows. Raises what `context.check` raises.
    """
    looks = LOOKS // weight

    def run_rows(rows: slice) -> None:
        for piece in _pieces(samples, rows, looks, margin_ms):
            context.check()
            run(*piece)

    n_rows, n_steps = len(samples.labels), len(samples.ends)
    in_rows(n_rows, len(samples.timestamps) + n_rows * n_steps, run_rows)


def _pieces(
    samples: RangeVector, rows: slice, looks: int, margin_ms: tuple[int, int]
) -> Iterator[tuple[slice, slice, NDArray[np.int64]]]:
    offsets, n_steps = samples.offsets, len(samples.ends)
    # Of rows that fit together, as many as do.
    most = max(1, looks // max(1, n_steps))
    row = rows.start
    while row < rows.stop:
        stop = int(np.searchsorted(offsets[: rows.stop + 1], offsets[row] + most, side="right")) - 1
        if stop > row:
            yield slice(row, stop), slice(0, n_steps), offsets[row : stop + 1]
            row = stop
        else:
            yield from _of_row(samples, row, slice(0, n_steps), looks, margin_ms)
            row += 1


def _of_row(
    samples: RangeVector, row: int, steps: slice, looks: int, margin_ms: tuple[int, int]
) -> Iterator[tuple[slice, slice, NDArray[np.int64]]]:
    """Steps of one row, halved until each part is small enough; a part of one step is small enough."""
    first, stop = int(samples.offsets[row]), int(samples.offsets[row + 1])
    times = samples.timestamps[first:stop]
    before_ms, after_ms = margin_ms
    earliest = samples.ends[steps.start] - samples.range_ms - before_ms
    latest = samples.ends[steps.stop - 1] + after_ms
    low, high = np.searchsorted(times, (earliest, latest), side="right").tolist()
    n_steps = steps.stop - steps.start
    if n_steps == 1 or n_steps * (high - low) <= looks:
        yield slice(row, row + 1), steps, np.array((first + low, first + high), dtype=np.int64)
        return
    middle = steps.start + n_steps // 2
    for half in (slice(steps.start, middle), slice(middle, steps.stop)):
        yield from _of_row(samples, row, half, looks, margin_ms)
