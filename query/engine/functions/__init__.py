"""The functions of PromQL (Prometheus 3.14) over floats, by name.

The parser checks names and types of arguments; the evaluator evaluates the arguments, calls
`FUNCTIONS[name](context, arguments, call)`, and looks for equal label sets in the result. `info` is not here: it
reads the store, so it is the evaluator's.
"""

from __future__ import annotations

from query.engine.functions import absence, elementwise, histograms, relabel, scalars, sorting, windows
from query.engine.functions.registry import Function

__all__ = ["FUNCTIONS", "Function"]

FUNCTIONS: dict[str, Function] = {
    **absence.FUNCTIONS,
    **elementwise.FUNCTIONS,
    **histograms.FUNCTIONS,
    **relabel.FUNCTIONS,
    **scalars.FUNCTIONS,
    **sorting.FUNCTIONS,
    **windows.FUNCTIONS,
}
