"""Which expressions have the same value at every step; these are evaluated once."""

from __future__ import annotations

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
    VectorSelector,
)

_READS_THE_CLOCK = frozenset(
    (
        "days_in_month",
        "day_of_month",
        "day_of_week",
        "day_of_year",
        "hour",
        "minute",
        "month",
        "year",
        "predict_linear",
        "time",
        "timestamp",
    )
)
"""Functions whose result depends on the step even if their arguments do not."""


class Constancy:
    """Remembers the answer for each node of a tree that stays alive."""

    def __init__(self) -> None:
        self._known: dict[int, bool] = {}

    def of(self, expr: Expr) -> bool:
        """Whether the value is the same at every step."""
        known = self._known.get(id(expr))
        if known is None:
            known = self._known[id(expr)] = self._compute(expr)
        return known

    def _compute(self, expr: Expr) -> bool:
        match expr:
            case VectorSelector() | Subquery():
                return expr.at is not None
            case MatrixSelector():
                return expr.selector.at is not None
            case NumberLiteral() | StringLiteral():
                return True
            case Paren() | Unary():
                return self.of(expr.expr)
            case Binary():
                return self.of(expr.lhs) and self.of(expr.rhs)
            case Aggregate():
                return self.of(expr.expr) and (expr.param is None or self.of(expr.param))
            case Call():
                return expr.function not in _READS_THE_CLOCK and all(map(self.of, expr.args))
