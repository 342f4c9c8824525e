"""The functions of PromQL (Prometheus 3.14), by name.

The parser checks names and types of arguments; the evaluator evaluates the arguments, calls
`FUNCTIONS[name](context, arguments, call)`, and looks for equal label sets in the result. `info` is not here: it
reads the store, so it is the evaluator's.
"""

from __future__ import annotations

from query.engine.functions import (
    absence,
    elementwise,
    histograms,
    native_vectors,
    relabel,
    scalars,
    sorting,
    windows,
)
from query.engine.functions.native_windows import ignored
from query.engine.functions.registry import Function

__all__ = ["FUNCTIONS", "TAKES_HISTOGRAMS", "Function", "ignored"]

TAKES_HISTOGRAMS = frozenset(
    (
        "absent",
        "absent_over_time",
        "avg_over_time",
        "changes",
        "count_over_time",
        "delta",
        "first_over_time",
        "histogram_avg",
        "histogram_count",
        "histogram_fraction",
        "histogram_quantile",
        "histogram_quantiles",
        "histogram_stddev",
        "histogram_stdvar",
        "histogram_sum",
        "idelta",
        "increase",
        "info",
        "irate",
        "label_join",
        "label_replace",
        "last_over_time",
        "present_over_time",
        "rate",
        "resets",
        "sort_by_label",
        "sort_by_label_desc",
        "sum_over_time",
        "timestamp",
        "ts_of_first_over_time",
        "ts_of_last_over_time",
    )
)
"""Functions that see native histograms; others are given `ignored` arguments."""

FUNCTIONS: dict[str, Function] = {
    **absence.FUNCTIONS,
    **elementwise.FUNCTIONS,
    **histograms.FUNCTIONS,
    **native_vectors.FUNCTIONS,
    **relabel.FUNCTIONS,
    **scalars.FUNCTIONS,
    **sorting.FUNCTIONS,
    **windows.FUNCTIONS,
}
