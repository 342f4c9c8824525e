"""The syntax tree of PromQL: small, typed, immutable; the engine depends on it alone.

Every node knows the half-open range of code points that it was parsed from, for error messages. Durations are
integers in ms. An expression that stands where a duration may (`rate(x[step() * 2])`) is kept as a DurationExpr
until the query's range and step are known, see `query.promql.durations`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from common.store import Matcher


class ValueType(Enum):
    SCALAR = "scalar"
    VECTOR = "instant vector"
    MATRIX = "range vector"
    STRING = "string"


@dataclass(frozen=True, slots=True)
class Span:
    """Half-open range of code points of the query."""

    start: int
    end: int


NO_SPAN = Span(0, 0)


@dataclass(frozen=True, slots=True)
class NumberLiteral:
    value: float
    is_duration: bool = False
    span: Span = field(default=NO_SPAN, compare=False)


@dataclass(frozen=True, slots=True)
class StringLiteral:
    """Bytes that are not UTF-8, as in `"\\xff"`, are lone surrogates in the value (PEP 383)."""

    value: str
    span: Span = field(default=NO_SPAN, compare=False)


@dataclass(frozen=True, slots=True)
class DurationExpr:
    """Arithmetic over durations, resolved before evaluation.

    op: '+', '-', '*', '/', '%', '^' (two operands, or '-' with lhs None), 'step', 'range' (none),
    'min', 'max' (two; written `min_of`, `max_of`).
    """

    op: str
    lhs: Duration | None = None
    rhs: Duration | None = None
    span: Span = field(default=NO_SPAN, compare=False)


Duration: TypeAlias = "int | NumberLiteral | DurationExpr"
"""Milliseconds once resolved; NumberLiteral (seconds) only inside a DurationExpr."""


class AtEdge(Enum):
    """`@ start()` and `@ end()`."""

    START = "start"
    END = "end"


@dataclass(frozen=True, slots=True)
class VectorSelector:
    """name is the metric name as written before the braces, or None; `matchers` contains it too as a matcher.

    at: Unix ms of the @ modifier, or an edge of the query's range. extended: 'smoothed', 'anchored' or None.
    """

    name: str | None
    matchers: tuple[Matcher, ...]
    offset: Duration = 0
    at: int | AtEdge | None = None
    extended: str | None = None
    span: Span = field(default=NO_SPAN, compare=False)


@dataclass(frozen=True, slots=True)
class MatrixSelector:
    """The selector carries offset, at and extended."""

    selector: VectorSelector
    range_: Duration
    span: Span = field(default=NO_SPAN, compare=False)


@dataclass(frozen=True, slots=True)
class Subquery:
    """step None: the evaluation interval's default."""

    expr: Expr
    range_: Duration
    step: Duration | None = None
    offset: Duration = 0
    at: int | AtEdge | None = None
    span: Span = field(default=NO_SPAN, compare=False)


@dataclass(frozen=True, slots=True)
class Call:
    """A function call whose name and argument types the parser has checked."""

    function: str
    args: tuple[Expr, ...]
    span: Span = field(default=NO_SPAN, compare=False)


@dataclass(frozen=True, slots=True)
class Aggregate:
    """op: sum, avg, count, min, max, group, stddev, stdvar, topk, bottomk, count_values, quantile, limitk,
    limit_ratio."""

    op: str
    expr: Expr
    param: Expr | None = None
    grouping: tuple[str, ...] = ()
    without: bool = False
    span: Span = field(default=NO_SPAN, compare=False)


class Cardinality(Enum):
    ONE_TO_ONE = "one-to-one"
    MANY_TO_ONE = "many-to-one"
    ONE_TO_MANY = "one-to-many"
    MANY_TO_MANY = "many-to-many"


@dataclass(frozen=True, slots=True)
class VectorMatching:
    """How a binary operator pairs the series of its sides.

    on: True for `on (labels)`, False for `ignoring (labels)`, which with no labels is the default.
    include: labels of group_left/group_right. fill_left, fill_right: values for a missing side, or None.
    """

    cardinality: Cardinality = Cardinality.ONE_TO_ONE
    on: bool = False
    labels: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    fill_left: float | None = None
    fill_right: float | None = None


@dataclass(frozen=True, slots=True)
class Binary:
    """op: + - * / % ^ atan2 == != > < >= <= and or unless, and the native-histogram trims `</` and `>/`.

    matching is set exactly if both sides are instant vectors.
    """

    op: str
    lhs: Expr
    rhs: Expr
    return_bool: bool = False
    matching: VectorMatching | None = None
    span: Span = field(default=NO_SPAN, compare=False)


@dataclass(frozen=True, slots=True)
class Unary:
    op: str
    expr: Expr
    span: Span = field(default=NO_SPAN, compare=False)


@dataclass(frozen=True, slots=True)
class Paren:
    expr: Expr
    span: Span = field(default=NO_SPAN, compare=False)


Expr: TypeAlias = (
    "NumberLiteral | StringLiteral | VectorSelector | MatrixSelector | Subquery | Call | Aggregate | Binary"
    " | Unary | Paren"
)


def children(expr: Expr) -> tuple[Expr, ...]:
    """The expressions that a node is made of."""
    match expr:
        case Subquery() | Paren() | Unary():
            return (expr.expr,)
        case MatrixSelector():
            return (expr.selector,)
        case Call():
            return expr.args
        case Aggregate():
            return (expr.expr,) if expr.param is None else (expr.expr, expr.param)
        case Binary():
            return expr.lhs, expr.rhs
    return ()
