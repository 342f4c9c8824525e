"""Selectors: what a query reads from storage, each piece once, and its form as instant and range vectors."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from common.kernels.jit import for_kernels
from common.kernels.select import interpolate, look_back
from common.labels import LabelTable, StringPool
from common.parallel import in_rows
from common.store import STALE_NAN_BITS, Matcher, Selection, SeriesStore
from query.engine.budget import Budget
from query.engine.cells import HistogramPool
from query.engine.frame import Frame, milliseconds, n_steps_inside
from query.engine.histogram_selecting import (
    STATISTICS,
    WITH_BUCKETS,
    interpolate_histograms,
    with_detected_resets,
)
from query.engine.info import info_selector
from query.engine.labeling import adopt
from query.engine.values import Annotations, RangeVector, Vector
from query.promql.ast import (
    Aggregate,
    Binary,
    Call,
    Expr,
    MatrixSelector,
    Paren,
    Subquery,
    Unary,
    VectorSelector,
)

Matchers = tuple[Matcher, ...]
Place = tuple[int, int, int, int]
"""An expression, by its id, and the key of the frame at which it is evaluated."""


class Sources:
    """The samples of one query.

    First every selector says what it will read (`plan`); then all is read (`fetch`), so that selectors with equal
    matchers share one read, and the strings of all labels are known before the query adds its own.
    """

    def __init__(
        self,
        store: SeriesStore,
        budget: Budget,
        histograms: HistogramPool,
        annotations: Annotations,
        lookback_ms: int,
        subquery_step_ms: int,
    ) -> None:
        self._store = store
        self._histograms = histograms
        self._annotations = annotations
        # Selectors below a function of `STATISTICS`, and the selections as these see them.
        self._statistical: set[int] = set()
        self._with_resets: dict[int, Selection] = {}
        self._elsewhere: dict[Place, Vector] = {}
        self._budget = budget
        self._lookback_ms = lookback_ms
        self._subquery_step_ms = subquery_step_ms
        self._wanted: defaultdict[Matchers, list[tuple[int, int]]] = defaultdict(list)
        # Every selector at every frame, for who wants to know what is looked at; see `samples_at`.
        self._looks: list[tuple[VectorSelector, Frame, int | None]] = []
        self._fetched: dict[Matchers, list[tuple[int, int, Selection]]] = {}
        self._without_stale: dict[int, Selection] = {}
        # What several selectors of the query look at in the same way is worked out once.
        self._uses: Counter[tuple[VectorSelector, int, int, int]] = Counter()
        self._vectors: dict[tuple[VectorSelector, int, int, int], Vector] = {}

    def use(self, elsewhere: Mapping[Place, Vector]) -> None:
        """Vectors that storage nodes have evaluated, by expression and steps; these need no samples here."""
        self._elsewhere = dict(elsewhere)

    def evaluated_elsewhere(self, expr: Expr, frame: Frame) -> Vector | None:
        """The vector of such an expression."""
        return self._elsewhere.get((id(expr), *frame.key())) if self._elsewhere else None

    def plan(self, expr: Expr, frame: Frame, *, statistical: bool = False) -> None:
        """Note the time ranges that the selectors of `expr` look at when it is evaluated at these steps.

        statistical: whether of histograms only what `STATISTICS` give is asked for.
        """
        if not len(frame.steps) or self._is_elsewhere(expr, frame):
            return
        if statistical and isinstance(expr, VectorSelector | MatrixSelector):
            selector = expr if isinstance(expr, VectorSelector) else expr.selector
            self._statistical.add(id(selector))
        match expr:
            case VectorSelector():
                self._want(expr, frame, None)
                self._uses[expr, *frame.key()] += 1
            case MatrixSelector():
                self._want(expr.selector, frame, milliseconds(expr.range_))
            case Subquery():
                self._budget.reserve(1, n_steps_inside(frame, expr, self._subquery_step_ms))
                # As in Prometheus: what a subquery leaves out would be missed.
                self.plan(expr.expr, frame.inside(expr, self._subquery_step_ms))
            case Call(function="info"):
                self.plan(expr.args[0], frame)
                self._want(info_selector(expr), frame, None)
            case Call():
                below = expr.function in STATISTICS or (statistical and expr.function not in WITH_BUCKETS)
                for arg in expr.args:
                    self.plan(arg, frame, statistical=below)
            case Aggregate():
                self.plan(expr.expr, frame, statistical=statistical)
                if expr.param is not None:
                    self.plan(expr.param, frame)
            case Binary():
                self.plan(expr.lhs, frame, statistical=statistical)
                self.plan(expr.rhs, frame, statistical=statistical)
            case Paren() | Unary():
                self.plan(expr.expr, frame, statistical=statistical)

    def _is_elsewhere(self, expr: Expr, frame: Frame) -> bool:
        if not self._elsewhere:
            return False
        # What is the same at all steps is evaluated at the first.
        return any(self.evaluated_elsewhere(expr, at) is not None for at in (frame, frame.first()))

    def _want(self, selector: VectorSelector, frame: Frame, range_ms: int | None) -> None:
        self._wanted[selector.matchers].append(self._reach(selector, frame, range_ms))
        self._looks.append((selector, frame, range_ms))

    def _reach(self, selector: VectorSelector, frame: Frame, range_ms: int | None) -> tuple[int, int]:
        """The closed range of times that a selector touches; range_ms is None for an instant one."""
        ends = frame.ends(selector)
        before_ms = self._lookback_ms if range_ms is None else range_ms
        if range_ms is not None and (selector.extended is not None or id(selector) in self._statistical):
            before_ms += self._lookback_ms
        after_ms = self._lookback_ms if selector.extended == "smoothed" else 0
        # Windows are open on the left.
        return int(ends[0]) - before_ms + 1, int(ends[-1]) + after_ms

    def fetch(self) -> StringPool:
        """Read what was planned; returns the string pool of the query, which all labels use from now on.

        Raises:
            TooManySamples, TooManySeries: together it is more than the query may read.
        """
        selections = []
        for matchers, ranges in self._wanted.items():
            for start_ms, end_ms in _union(ranges):
                selection = self._budget.select(self._store, matchers, start_ms, end_ms)
                selections.append((matchers, start_ms, end_ms, selection))
        pools = [selection.labels.pool for *_, selection in selections]
        pools += [vector.labels.pool for vector in self._elsewhere.values()]
        if not pools:
            return StringPool()
        base = pools[0]
        pool = base.fork()
        for matchers, start_ms, end_ms, selection in selections:
            own = _in_fork(selection.labels, base, pool)
            values = selection.values
            if selection.histograms is not None:
                values = self._histograms.decoded(values, selection.histograms)
            renamed = Selection(
                own,
                for_kernels(selection.offsets),
                for_kernels(selection.timestamps),
                for_kernels(values),
            )
            self._fetched.setdefault(matchers, []).append((start_ms, end_ms, renamed))
        for place, vector in self._elsewhere.items():
            self._elsewhere[place] = replace(vector, labels=_in_fork(vector.labels, base, pool))
        return pool

    def samples_at(self, frame: Frame) -> NDArray[np.int64]:
        """How many samples the selectors look at for each step, as Prometheus counts them: int64 (n_steps,).

        A sample in several windows counts in each; an instant selector looks at one sample a series and step. What
        a subquery looks at counts at the last step.
        """
        found = np.zeros(len(frame.steps), dtype=np.int64)
        for selector, at, range_ms in self._looks:
            n_samples = looked_at(
                self._find(selector, at, range_ms), at.ends(selector), range_ms, self._lookback_ms
            )
            if at.key() == frame.key():
                found += n_samples
            else:
                found[-1] += n_samples.sum()
        return found

    def _find(self, selector: VectorSelector, frame: Frame, range_ms: int | None) -> Selection:
        start_ms, end_ms = self._reach(selector, frame, range_ms)
        for first_ms, last_ms, selection in self._fetched[selector.matchers]:
            if first_ms <= start_ms and end_ms <= last_ms:
                return self._seen_by(selector, selection)
        raise AssertionError("a selector reads outside its plan")

    def _seen_by(self, selector: VectorSelector, selection: Selection) -> Selection:
        if id(selector) not in self._statistical or not len(self._histograms):
            return selection
        seen = self._with_resets.get(id(selection))
        if seen is None:
            seen = self._with_resets[id(selection)] = with_detected_resets(selection, self._histograms)
        return seen

    def instant(self, selector: VectorSelector, frame: Frame, *, times: bool = False) -> Vector:
        """Each series' latest sample of the lookback window of each step; with `times` its time in seconds."""
        if times or id(selector) in self._statistical or self._uses[selector, *frame.key()] < 2:
            return self._look_back(selector, frame, times=times)
        key = (selector, *frame.key())
        if key not in self._vectors:
            self._vectors[key] = self._look_back(selector, frame, times=False)
        return self._vectors[key]

    def _look_back(self, selector: VectorSelector, frame: Frame, *, times: bool) -> Vector:
        ends = frame.ends(selector)
        selection = self._find(selector, frame, None)
        n_series, n_steps = len(selection.labels), len(ends)
        self._budget.reserve(n_series, n_steps)
        columns = ends[:1] if frame.fixed(selector) else ends
        out = np.empty((n_series, len(columns)), dtype=np.int64)
        present = np.empty(out.shape, dtype=np.bool_)
        if selector.extended == "smoothed" and not times:
            kept, values = self._kept(selection), out.view(np.float64)
            interpolate(kept.offsets, kept.timestamps, kept.values, columns, self._lookback_ms, values, present)
            about = (self._histograms, self._annotations, selector.span)
            interpolate_histograms(kept, columns, self._lookback_ms, values, present, *about)
        else:
            bits = selection.values.view(np.int64)
            where = (selection.timestamps, bits, columns, self._lookback_ms, times)

            def run(rows: slice) -> None:
                for part in self._budget.chunks(rows.stop - rows.start, len(columns)):
                    first, last = rows.start + part.start, min(rows.start + part.stop, rows.stop)
                    look_back(selection.offsets[first : last + 1], *where, out[first:last], present[first:last])

            in_rows(n_series, len(selection.timestamps) + out.size, run)
            values = out / 1000.0 if times else out.view(np.float64)
        if len(columns) < n_steps:
            values = np.repeat(values, n_steps, axis=1)
            present = np.repeat(present, n_steps, axis=1)
        return Vector(selection.labels, values, present, np.zeros(n_series, dtype=np.bool_))

    def _kept(self, selection: Selection) -> Selection:
        kept = self._without_stale.get(id(selection))
        if kept is None:
            kept = self._without_stale[id(selection)] = without_stale_markers(selection)
        return kept

    def ranges(self, selector: MatrixSelector, frame: Frame) -> RangeVector:
        """Each series' samples around the window of each step."""
        ends = frame.ends(selector.selector)
        range_ms = milliseconds(selector.range_)
        kept = self._kept(self._find(selector.selector, frame, range_ms))
        no_drop = np.zeros(len(kept.labels), dtype=np.bool_)
        return RangeVector(kept.labels, kept.offsets, kept.timestamps, kept.values, ends, range_ms, no_drop)


def looked_at(
    selection: Selection, ends: NDArray[np.int64], range_ms: int | None, lookback_ms: int
) -> NDArray[np.int64]:
    """Samples of a selection in the window before each of the ends; without a range, the latest of each series."""
    stale = selection.values.view(np.int64) == STALE_NAN_BITS
    times = selection.timestamps
    if range_ms is None:
        # A sample is the latest from its own time until the next one's, or as far as is looked back.
        until = times + lookback_ms
        until[:-1] = np.minimum(until[:-1], times[1:])
        last = selection.offsets[1:] - 1
        until[last] = times[last] + lookback_ms
        from_sorted, until_sorted = np.sort(times[~stale]), np.sort(until[~stale])
        return np.searchsorted(from_sorted, ends, "right") - np.searchsorted(until_sorted, ends, "right")
    in_order = np.sort(times[~stale])
    return np.searchsorted(in_order, ends, "right") - np.searchsorted(in_order, ends - range_ms, "right")


def without_stale_markers(selection: Selection) -> Selection:
    """Range vectors do not see stale markers."""
    stale = np.flatnonzero(selection.values.view(np.int64) == STALE_NAN_BITS)
    return _without(selection, stale) if len(stale) else selection


def _without(selection: Selection, places: NDArray[np.int64]) -> Selection:
    """Without the samples at these places."""
    return Selection(
        selection.labels,
        selection.offsets - np.searchsorted(places, selection.offsets),
        np.delete(selection.timestamps, places),
        np.delete(selection.values, places),
    )


def _in_fork(table: LabelTable, base: StringPool, fork: StringPool) -> LabelTable:
    # The codes of the pool that was forked are valid in the fork.
    return LabelTable(fork, table.names, table.codes) if table.pool is base else adopt(table, fork)


def _union(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Closed ranges that cover these and do not touch."""
    out: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if out and start <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((start, end))
    return out
