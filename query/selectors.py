"""The selectors of an expression."""

from __future__ import annotations

from collections.abc import Iterator

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


def selectors(expr: Expr) -> Iterator[VectorSelector]:
    """All of them, in the order in which they are written."""
    match expr:
        case VectorSelector():
            yield expr
        case MatrixSelector():
            yield expr.selector
        case Subquery() | Paren() | Unary():
            yield from selectors(expr.expr)
        case Aggregate():
            if expr.param is not None:
                yield from selectors(expr.param)
            yield from selectors(expr.expr)
        case Binary():
            yield from selectors(expr.lhs)
            yield from selectors(expr.rhs)
        case Call():
            for arg in expr.args:
                yield from selectors(arg)
