"""A syntax tree as JSON, in the layout of Prometheus' `/api/v1/parse_query`."""

from __future__ import annotations

from typing import Any

from common.labels import METRIC_NAME
from common.store import Matcher, MatchOp
from query.promql.ast import (
    Aggregate,
    AtEdge,
    Binary,
    Call,
    Duration,
    Expr,
    MatrixSelector,
    NumberLiteral,
    Paren,
    StringLiteral,
    Subquery,
    Unary,
    ValueType,
    VectorMatching,
    VectorSelector,
)
from query.promql.printer import format_expr
from query.promql.signatures import FUNCTIONS

_TYPES = {
    ValueType.SCALAR: "scalar",
    ValueType.VECTOR: "vector",
    ValueType.MATRIX: "matrix",
    ValueType.STRING: "string",
}


def json_tree(expr: Expr) -> dict[str, Any]:
    """The tree, of an expression whose durations may still be expressions; those are given as text."""
    match expr:
        case NumberLiteral():
            return {"type": "numberLiteral", "val": format_expr(expr)}
        case StringLiteral():
            return {
                "type": "stringLiteral",
                "val": expr.value.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
            }
        case Paren():
            return {"type": "parenExpr", "expr": json_tree(expr.expr)}
        case Unary():
            return {"type": "unaryExpr", "op": expr.op, "expr": json_tree(expr.expr)}
        case VectorSelector():
            return {"type": "vectorSelector", **_selector(expr)}
        case MatrixSelector():
            return {"type": "matrixSelector", **_selector(expr.selector), "range": _duration(expr.range_)}
        case Subquery():
            return {
                "type": "subquery",
                "expr": json_tree(expr.expr),
                "range": _duration(expr.range_),
                "step": 0 if expr.step is None else _duration(expr.step),
                "offset": _duration(expr.offset),
                **_at(expr.at),
            }
        case Call():
            return {
                "type": "call",
                "func": _function(expr.function),
                "args": [json_tree(arg) for arg in expr.args],
            }
        case Aggregate():
            return {
                "type": "aggregation",
                "op": expr.op,
                "expr": json_tree(expr.expr),
                "param": None if expr.param is None else json_tree(expr.param),
                "grouping": list(expr.grouping),
                "without": expr.without,
            }
        case Binary():
            return {
                "type": "binaryExpr",
                "op": expr.op,
                "lhs": json_tree(expr.lhs),
                "rhs": json_tree(expr.rhs),
                "matching": None if expr.matching is None else _matching(expr.matching),
                "bool": expr.return_bool,
            }


def _selector(selector: VectorSelector) -> dict[str, Any]:
    return {
        "name": selector.name or "",
        "matchers": [_matcher(matcher) for matcher in selector.matchers],
        "offset": _duration(selector.offset),
        "anchored": selector.extended == "anchored",
        "smoothed": selector.extended == "smoothed",
        **_at(selector.at),
    }


def _matcher(matcher: Matcher) -> dict[str, str]:
    return {"name": matcher.name, "type": matcher.op.value, "value": matcher.value}


def _at(at: int | AtEdge | None) -> dict[str, Any]:
    if isinstance(at, AtEdge):
        return {"timestamp": None, "startOrEnd": at.value}
    return {"timestamp": at, "startOrEnd": None}


def _duration(duration: Duration) -> int | str:
    if isinstance(duration, int):
        return duration
    metric = VectorSelector("x", (Matcher(MatchOp.EQUAL, METRIC_NAME, "x"),))
    return format_expr(MatrixSelector(metric, duration))[2:-1]


def _function(name: str) -> dict[str, Any]:
    function = FUNCTIONS[name]
    return {
        "name": name,
        "argTypes": [_TYPES[arg] for arg in function.args],
        "variadic": function.optional,
        "returnType": _TYPES[function.returns],
    }


def _matching(matching: VectorMatching) -> dict[str, Any]:
    return {
        "card": matching.cardinality.value,
        "labels": list(matching.labels),
        "on": matching.on,
        "include": list(matching.include),
        "fillValues": {"lhs": matching.fill_left, "rhs": matching.fill_right},
    }
