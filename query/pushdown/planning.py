"""Which parts of a query storage nodes evaluate.

A part is pushed down if it can be computed from each series by itself, or if it is an aggregation of such a part
whose results over some of the series can be merged. The largest such parts are taken:

- (series) selectors; functions of a series' samples or values, of subqueries over such; operations with scalars
  that need no series; `limit_ratio`. Pushed down if that is likely to move less than the samples would.
- aggregations over these. Always pushed down.

What puts series together, that is everything else, is evaluated where the pieces arrive.
"""

from __future__ import annotations

from dataclasses import dataclass

from query.engine.budget import Budget
from query.engine.constancy import Constancy
from query.engine.folding import COLUMNS
from query.engine.frame import Frame, milliseconds, n_steps_inside
from query.promql.ast import (
    Aggregate,
    Binary,
    Call,
    Expr,
    MatrixSelector,
    NumberLiteral,
    Paren,
    StringLiteral,
    Subquery,
    Unary,
    ValueType,
    VectorSelector,
    children,
)
from query.promql.signatures import FUNCTIONS, type_of

ASSUMED_INTERVAL_MS = 15_000
"""How far apart samples are thought to be when it is weighed what would have to travel."""

_ACROSS_SERIES = frozenset(
    (
        *("absent", "absent_over_time", "histogram_fraction", "histogram_quantile", "histogram_quantiles", "info"),
        *("label_join", "label_replace", "scalar", "sort", "sort_by_label", "sort_by_label_desc", "sort_desc"),
        "vector",
    )
)
"""Functions that look at several series, or change labels or their order; all others take one at a time."""
_SCALARS = frozenset(("end", "max_of", "min_of", "pi", "range", "start", "step", "time"))
_PICKS = ("topk", "bottomk")


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """An expression that nodes evaluate, at the steps of its frame. path: see `common.wire.evaluation`."""

    expr: Expr
    frame: Frame
    path: tuple[int, ...]


def pieces(expr: Expr, frame: Frame, budget: Budget, lookback_ms: int, subquery_step_ms: int) -> list[Piece]:
    """What to push down of a query, each expression once for each frame."""
    planner = _Planner(budget, lookback_ms, subquery_step_ms)
    planner.walk(expr, frame, ())
    return planner.found


def columns_of(expr: Expr) -> int | None:
    """How many numbers the nodes send of each cell of an expression; None if it is not for them to evaluate."""
    if isinstance(expr, Aggregate) and expr.op != "limit_ratio":
        if not is_of_each_series(expr.expr):
            return None
        if expr.op in _PICKS:
            assert expr.param is not None
            return 1 if _is_free(expr.param) else None
        return 1 if expr.op == "count_values" else COLUMNS.get(expr.op)
    return 1 if is_of_each_series(expr) else None


def is_of_each_series(expr: Expr) -> bool:
    """Whether an instant vector has one series for each of one selector's, computed from it alone."""
    match expr:
        case VectorSelector():
            return True
        case Paren() | Unary():
            return is_of_each_series(expr.expr)
        case Binary():
            sides = (expr.lhs, expr.rhs) if type_of(expr.rhs) is ValueType.SCALAR else (expr.rhs, expr.lhs)
            return expr.matching is None and is_of_each_series(sides[0]) and _is_free(sides[1])
        case Aggregate():
            free = expr.op == "limit_ratio" and expr.param is not None and _is_free(expr.param)
            return free and is_of_each_series(expr.expr)
        case Call():
            return _is_call_of_each_series(expr)
    return False


def _is_call_of_each_series(call: Call) -> bool:
    if call.function in _ACROSS_SERIES or FUNCTIONS[call.function].returns is not ValueType.VECTOR:
        return False
    bound = [arg for arg in map(_unwrap, call.args) if not _is_free(arg)]
    if len(bound) != 1:
        return False
    below = bound[0].expr if isinstance(bound[0], Subquery) else bound[0]
    return isinstance(below, MatrixSelector) or is_of_each_series(below)


def _is_free(expr: Expr) -> bool:
    """Whether it is a scalar for which no series has to be known."""
    match expr:
        case NumberLiteral():
            return True
        case Paren() | Unary():
            return _is_free(expr.expr)
        case Binary():
            return expr.matching is None and _is_free(expr.lhs) and _is_free(expr.rhs)
        case Call():
            return expr.function in _SCALARS and all(map(_is_free, expr.args))
    return False


def _unwrap(expr: Expr) -> Expr:
    while isinstance(expr, Paren):
        expr = expr.expr
    return expr


class _Planner:
    def __init__(self, budget: Budget, lookback_ms: int, subquery_step_ms: int) -> None:
        self.found: list[Piece] = []
        self._seen: set[tuple[int, tuple[int, int, int]]] = set()
        self._constancy = Constancy()
        self._budget = budget
        self._lookback_ms = lookback_ms
        self._subquery_step_ms = subquery_step_ms

    def walk(self, expr: Expr, frame: Frame, path: tuple[int, ...]) -> None:
        if not len(frame.steps):
            return None
        if isinstance(expr, Paren):
            return self.walk(expr.expr, frame, (*path, 0))
        if isinstance(expr, MatrixSelector | NumberLiteral | StringLiteral):
            return None
        if len(frame.steps) > 1 and self._constancy.of(expr):
            # As the evaluator has it.
            frame = frame.first()
        if isinstance(expr, Aggregate | VectorSelector | Unary | Binary | Call) and self._take(expr, frame, path):
            return None
        if isinstance(expr, Subquery):
            frame = self._inside(expr, frame)
        below = children(expr)
        if isinstance(expr, Call) and expr.function == "info":
            # The second argument says what to look for.
            below = below[:1]
        for i, child in enumerate(below):
            self.walk(child, frame, (*path, i))
        return None

    def _take(self, expr: Expr, frame: Frame, path: tuple[int, ...]) -> bool:
        """Whether nothing below has to be looked at."""
        if columns_of(expr) is None:
            return False
        is_fold = isinstance(expr, Aggregate) and expr.op != "limit_ratio"
        place = id(expr), frame.key()
        if (is_fold or self._is_worth(expr, frame)) and place not in self._seen:
            self._seen.add(place)
            self.found.append(Piece(expr, frame, path))
        return True

    def _is_worth(self, expr: Expr, frame: Frame) -> bool:
        """Whether a series has no more values at these steps than samples that they are computed from.

        It is so at few or wide steps, and with long ranges, if the samples are `ASSUMED_INTERVAL_MS` apart.
        """
        return len(frame.steps) * ASSUMED_INTERVAL_MS <= self._reach_ms(expr, frame)

    def _reach_ms(self, expr: Expr, frame: Frame) -> int:
        """How much time the selectors of an expression look at."""
        if not len(frame.steps):
            return 0
        match expr:
            case VectorSelector():
                ends = frame.ends(expr)
                return int(ends[-1] - ends[0]) + self._lookback_ms
            case MatrixSelector():
                ends = frame.ends(expr.selector)
                return int(ends[-1] - ends[0]) + milliseconds(expr.range_)
            case Subquery():
                return self._reach_ms(expr.expr, self._inside(expr, frame))
        return sum(self._reach_ms(child, frame) for child in children(expr))

    def _inside(self, expr: Subquery, frame: Frame) -> Frame:
        self._budget.reserve(1, n_steps_inside(frame, expr, self._subquery_step_ms))
        return frame.inside(expr, self._subquery_step_ms)
