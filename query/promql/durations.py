"""Durations that depend on the query: computes them when its range and step are known.

`step()` and `range()` are those of the whole query, within subqueries too; for an instant query both are 0. The
arithmetic is Prometheus': floats, in seconds, with Go's `math.Mod` and `math.Pow`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from query.promql.ast import (
    Aggregate,
    AtEdge,
    Binary,
    Call,
    Duration,
    DurationExpr,
    Expr,
    MatrixSelector,
    NumberLiteral,
    Paren,
    Subquery,
    Unary,
    VectorSelector,
)
from query.promql.errors import DurationError
from query.promql.numbers import MAX_DURATION_S, seconds_to_ms


def resolve(expr: Expr, start_ms: int, end_ms: int, step_ms: int) -> Expr:
    """The tree with every Duration an int (ms) and every `@ start()`, `@ end()` an int (Unix ms).

    start_ms, end_ms, step_ms: the evaluation times of the query; step_ms is 0 for an instant query. Parts of the
    tree that need no change are shared with `expr`.

    Raises:
        DurationError: a range or step is not positive, or a duration is out of range or divides by zero.
    """
    return _Resolver(start_ms, end_ms, step_ms).visit(expr)


@dataclass(frozen=True, slots=True)
class _Resolver:
    start_ms: int
    end_ms: int
    step_ms: int

    def visit(self, expr: Expr) -> Expr:
        match expr:
            case VectorSelector():
                return self._selector(expr)
            case MatrixSelector():
                selector, range_ = self._selector(expr.selector), self._positive(expr.range_)
                if selector is expr.selector and range_ is expr.range_:
                    return expr
                return replace(expr, selector=selector, range_=range_)
            case Subquery():
                return self._subquery(expr)
            case Call():
                args = tuple(self.visit(arg) for arg in expr.args)
                changed = any(new is not old for new, old in zip(args, expr.args, strict=True))
                return replace(expr, args=args) if changed else expr
            case Aggregate():
                inner = self.visit(expr.expr)
                param = None if expr.param is None else self.visit(expr.param)
                if inner is expr.expr and param is expr.param:
                    return expr
                return replace(expr, expr=inner, param=param)
            case Binary():
                lhs, rhs = self.visit(expr.lhs), self.visit(expr.rhs)
                return expr if lhs is expr.lhs and rhs is expr.rhs else replace(expr, lhs=lhs, rhs=rhs)
            case Unary() | Paren():
                inner = self.visit(expr.expr)
                return expr if inner is expr.expr else replace(expr, expr=inner)
            case _:
                return expr

    def _selector(self, selector: VectorSelector) -> VectorSelector:
        offset, at = self._duration(selector.offset), self._at(selector.at)
        if offset is selector.offset and at is selector.at:
            return selector
        return replace(selector, offset=offset, at=at)

    def _subquery(self, subquery: Subquery) -> Subquery:
        return replace(
            subquery,
            expr=self.visit(subquery.expr),
            range_=self._positive(subquery.range_),
            step=None if subquery.step is None else self._positive(subquery.step),
            offset=self._duration(subquery.offset),
            at=self._at(subquery.at),
        )

    def _at(self, at: int | AtEdge | None) -> int | None:
        if isinstance(at, AtEdge):
            return self.start_ms if at is AtEdge.START else self.end_ms
        return at

    def _positive(self, duration: Duration) -> int:
        ms = self._duration(duration)
        if ms <= 0:
            assert isinstance(duration, DurationExpr)
            raise DurationError("duration must be greater than 0", duration.span)
        return ms

    def _duration(self, duration: Duration) -> int:
        if isinstance(duration, int):
            return duration
        seconds = self._seconds(duration)
        if not -MAX_DURATION_S < seconds < MAX_DURATION_S:
            raise DurationError("duration is out of range", duration.span)
        return seconds_to_ms(seconds)

    def _seconds(self, duration: Duration | None) -> float:
        match duration:
            case None:
                return 0.0  # the left side of a sign
            case int():
                return duration / 1000
            case NumberLiteral():
                return duration.value
            case DurationExpr(op="step"):
                return self.step_ms / 1000
            case DurationExpr(op="range"):
                return (self.end_ms - self.start_ms) / 1000
            case DurationExpr():
                return _apply(duration, self._seconds(duration.lhs), self._seconds(duration.rhs))


def _apply(duration: DurationExpr, lhs: float, rhs: float) -> float:
    op = duration.op
    if op in ("/", "%") and rhs == 0:
        raise DurationError("division by zero" if op == "/" else "modulo by zero", duration.span)
    try:
        match op:
            case "+":
                return lhs + rhs
            case "-":
                return lhs - rhs
            case "*":
                return lhs * rhs
            case "/":
                return lhs / rhs
            case "%":
                return math.fmod(lhs, rhs)
            case "^":
                return math.pow(lhs, rhs)
            case "min":
                return min(lhs, rhs)
            case "max":
                return max(lhs, rhs)
            case _:
                raise AssertionError(op)
    except (ValueError, OverflowError):
        # Where Go has NaN or an infinity, neither of which is a duration.
        return math.nan
