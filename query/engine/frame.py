"""The times at which an expression is evaluated, and the times its selectors then look at."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from query.promql.ast import AtEdge, Duration, Subquery, VectorSelector

_FARTHEST_MS = 1 << 61
"""Times are kept within this of the epoch, so that sums of a few cannot overflow int64."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """steps: int64 (n_steps,), Unix ms, ascending by step_ms.

    query_start_ms, query_end_ms, query_step_ms: of the whole query, whatever subquery this frame belongs to.
    """

    steps: NDArray[np.int64]
    step_ms: int
    query_start_ms: int
    query_end_ms: int
    query_step_ms: int

    def key(self) -> tuple[int, int, int]:
        """Equal for frames with equal steps."""
        return int(self.steps[0]), self.step_ms, len(self.steps)

    def first(self) -> Frame:
        """The first step alone, for what is the same at all steps."""
        return replace(self, steps=self.steps[:1])

    def fixed(self, node: VectorSelector | Subquery) -> bool:
        """Whether all steps look at one time."""
        return node.at is not None

    def ends(self, node: VectorSelector | Subquery) -> NDArray[np.int64]:
        """The time that each step looks back from: int64 (n_steps,)."""
        offset_ms = milliseconds(node.offset)
        if node.at is None:
            return self.steps - offset_ms
        at_ms = node.at
        if at_ms is AtEdge.START:
            at_ms = self.query_start_ms
        elif at_ms is AtEdge.END:
            at_ms = self.query_end_ms
        assert isinstance(at_ms, int)
        return np.full(len(self.steps), clamp(clamp(at_ms) - offset_ms), dtype=np.int64)

    def inside(self, node: Subquery, default_step_ms: int) -> Frame:
        """Steps of a subquery: multiples of its step, enough for the windows of all steps outside."""
        step_ms = _step_ms(node, default_step_ms)
        ends = self.ends(node)
        # Windows are open on the left: the first multiple is above the earliest left edge.
        first = (int(ends[0]) - milliseconds(node.range_)) // step_ms + 1
        last = int(ends[-1]) // step_ms
        steps = np.arange(first, last + 1, dtype=np.int64) * step_ms
        return replace(self, steps=steps, step_ms=step_ms)


def n_steps_inside(frame: Frame, node: Subquery, default_step_ms: int) -> int:
    """How many steps `inside` would make, before memory is taken for them."""
    step_ms = _step_ms(node, default_step_ms)
    ends = frame.ends(node)
    return max(0, (int(ends[-1]) - int(ends[0]) + milliseconds(node.range_)) // step_ms + 1)


def _step_ms(node: Subquery, default_step_ms: int) -> int:
    return (0 if node.step is None else milliseconds(node.step)) or default_step_ms


def milliseconds(duration: Duration) -> int:
    """A duration whose expression has been resolved."""
    assert isinstance(duration, int)
    return clamp(duration)


def clamp(time_ms: int) -> int:
    return max(-_FARTHEST_MS, min(_FARTHEST_MS, time_ms))
