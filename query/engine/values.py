"""The values that expressions evaluate to: whole matrices, one column for each evaluation step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.histograms import Histograms
from common.labels import LabelTable, StringPool
from query.promql.ast import Span


@dataclass(frozen=True, slots=True, eq=False)
class HistogramCells:
    """Native histograms among the cells of a Vector or the samples of a RangeVector.

    index: int32, of the shape of the values: the row of `rows` in the cell, -1 where it is a float or absent.
    rows: may have rows that no cell refers to, and one row may stand in several cells.
    """

    index: NDArray[np.int32]
    rows: Histograms


@dataclass(frozen=True, slots=True, eq=False)
class Vector:
    """Instant vectors at every step. Series with no present cell may remain; results leave them out.

    labels: one row a series.
    values: float64 (n_series, n_steps), C-contiguous; meaningless where not present.
    present: bool (n_series, n_steps), C-contiguous.
    drop_name: bool (n_series,); the metric name is to be removed, which is delayed until it matters (aggregation,
        matching, result), so that label functions can still see it.
    histograms: which of the present cells are histograms; their values mean nothing. None if none is.
    """

    labels: LabelTable
    values: NDArray[np.float64]
    present: NDArray[np.bool_]
    drop_name: NDArray[np.bool_]
    histograms: HistogramCells | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Scalar:
    """values: float64 (n_steps,)."""

    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class String:
    value: str


@dataclass(frozen=True, slots=True, eq=False)
class RangeVector:
    """Range vectors at every step: the samples of series i in the window (ends[k] - range_ms, ends[k]].

    offsets, timestamps, values: samples as in `common.store.Selection`, stale markers already removed.
    ends: int64 (n_steps,), ms; right edge of each step's window, offset and @ applied (then not ascending in time
        with the steps: constant for @).
    drop_name: bool (n_series,), as in Vector.
    histograms: which of the samples are histograms; their values mean nothing. None if none is.
    """

    labels: LabelTable
    offsets: NDArray[np.int64]
    timestamps: NDArray[np.int64]
    values: NDArray[np.float64]
    ends: NDArray[np.int64]
    range_ms: int
    drop_name: NDArray[np.bool_]
    histograms: HistogramCells | None = None


Value: TypeAlias = "Vector | Scalar | String | RangeVector"


def samples_of(
    value: Vector | RangeVector, steps: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.int32] | None]:
    """The samples, series after series: offsets (n_series + 1,), timestamps, values, and the index of histograms.

    steps: int64 (n_steps,), ms, of the columns of a Vector.
    """
    histograms = value.histograms
    if isinstance(value, RangeVector):
        return value.offsets, value.timestamps, value.values, None if histograms is None else histograms.index
    counts = np.count_nonzero(value.present, axis=1)
    offsets = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)))
    timestamps = np.broadcast_to(steps, value.present.shape)[value.present]
    index = None if histograms is None else histograms.index[value.present]
    return offsets, timestamps, value.values[value.present], index


class EvalError(Exception):
    """The query cannot be evaluated (errorType 'execution'); the message is Prometheus' own."""


@dataclass(slots=True)
class Annotations:
    """Warnings and infos of one query, each once, in order of appearance."""

    query: str
    _warnings: dict[str, None] = field(default_factory=dict)
    _infos: dict[str, None] = field(default_factory=dict)

    def warn(self, message: str, span: Span) -> None:
        self._warnings[f"PromQL warning: {message} ({self._position(span)})"] = None

    def info(self, message: str, span: Span) -> None:
        self._infos[f"PromQL info: {message} ({self._position(span)})"] = None

    def extend(self, warnings: Sequence[str], infos: Sequence[str]) -> None:
        """Those of a part of the same query that was evaluated elsewhere."""
        self._warnings.update(dict.fromkeys(warnings))
        self._infos.update(dict.fromkeys(infos))

    def _position(self, span: Span) -> str:
        """Line and column, both from 1, as Prometheus prints them."""
        before = self.query[: span.start]
        return f"{before.count(chr(10)) + 1}:{span.start - (before.rfind(chr(10)) + 1) + 1}"

    @property
    def warnings(self) -> Sequence[str]:
        return list(self._warnings)

    @property
    def infos(self) -> Sequence[str]:
        return list(self._infos)


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """What an evaluation knows besides its arguments.

    steps: int64 (n_steps,), Unix ms, ascending: the times the query asks for.
    step_ms: their distance; 0 for an instant query.
    pool: strings of the query, shared by all its label tables; for values that have no table to start from.
    check: raises if the query has to end; to be called between pieces of long work.
    """

    steps: NDArray[np.int64]
    step_ms: int
    lookback_ms: int
    annotations: Annotations
    pool: StringPool = field(default_factory=StringPool)
    check: Callable[[], None] = lambda: None
