"""Functions of native histograms in instant vectors: their numbers, quantiles and fractions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from common.histograms import Histograms
from common.kernels import native_stats as kernels
from query.engine.functions.native_windows import names_of
from query.engine.functions.registry import Function, renamed, vector_of
from query.engine.native import ops
from query.engine.values import Context, Value, Vector
from query.promql.ast import Call, Span
from query.promql.quoting import quote

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Natives:
    """The native histograms of a vector. cells: bool (n_series, n_steps), where there is one."""

    vector: Vector
    cells: NDArray[np.bool_]

    @classmethod
    def of(cls, vector: Vector) -> Natives:
        assert vector.histograms is not None
        return cls(vector, vector.present & (vector.histograms.index >= 0))

    def quantiles(self, context: Context, q: Floats, span: Span) -> Vector:
        """q: (n_steps,)."""
        return self._each(context, kernels.quantiles, (q,), span)

    def fractions(self, context: Context, low: Floats, high: Floats, span: Span) -> Vector:
        """low, high: (n_steps,)."""
        return self._each(context, kernels.fractions, (low, high), span)

    def _each(
        self, context: Context, function: Callable[..., None], numbers: tuple[Floats, ...], span: Span
    ) -> Vector:
        cells = self.vector.histograms
        assert cells is not None
        rows = cells.index[self.cells].astype(np.int64)
        steps = np.nonzero(self.cells)[1]
        out, flags = np.empty(len(rows)), np.zeros(len(rows), dtype=np.uint8)
        function(ops.table(cells.rows), rows, *(number[steps] for number in numbers), out, flags)
        values, said = np.zeros(self.cells.shape), np.zeros(self.cells.shape, dtype=np.uint8)
        values[self.cells] = out
        said[self.cells] = flags
        self._tell(context, said, span)
        return renamed(self.vector, values, self.cells)

    def _tell(self, context: Context, said: NDArray[np.uint8], span: Span) -> None:
        if not said.any():
            return
        quantile = "input to histogram_quantile has NaN observations, result is"
        for flag, message in (
            (kernels.NAN_RESULT, f"{quantile} NaN"),
            (kernels.NAN_SKEW, f"{quantile} skewed higher"),
            (
                kernels.NAN_LEFT_OUT,
                "input to histogram_fraction has NaN observations, which are excluded from all fractions",
            ),
        ):
            for name in names_of(self.vector.labels, ((said & flag) != 0).any(axis=1)):
                context.annotations.info(message + (f" for metric name {quote(name)}" if name else ""), span)


def _variances(rows: Histograms) -> Floats:
    out = np.empty(len(rows))
    kernels.variances(ops.table(rows), out)
    return out


def _numbers(
    function: Callable[[Histograms], Floats], context: Context, args: tuple[Value, ...], call: Call
) -> Value:
    vector = vector_of(args[0])
    if vector.histograms is None:
        return renamed(vector, vector.values, np.zeros_like(vector.present))
    natives = Natives.of(vector)
    values = np.zeros(vector.values.shape)
    with np.errstate(all="ignore"):
        # One histogram may stand in many cells: each is computed once.
        values[natives.cells] = function(vector.histograms.rows)[vector.histograms.index[natives.cells]]
    return renamed(vector, values, natives.cells)


FUNCTIONS: dict[str, Function] = {
    "histogram_avg": partial(_numbers, lambda rows: rows.sums / rows.counts),
    "histogram_count": partial(_numbers, lambda rows: rows.counts),
    "histogram_stddev": partial(_numbers, lambda rows: np.sqrt(_variances(rows))),
    "histogram_stdvar": partial(_numbers, _variances),
    "histogram_sum": partial(_numbers, lambda rows: rows.sums),
}
