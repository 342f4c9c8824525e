"""Types: what every function takes and gives, and what operators and aggregations may be applied to.

Functions of Prometheus 3.14. Source: https://prometheus.io/docs/prometheus/latest/querying/functions/.
"""

from __future__ import annotations

from dataclasses import dataclass

from query.promql.ast import (
    Aggregate,
    Binary,
    Call,
    Cardinality,
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
from query.promql.lexer import COMPARISONS, SET_OPERATORS

SCALAR, VECTOR, MATRIX, STRING = ValueType.SCALAR, ValueType.VECTOR, ValueType.MATRIX, ValueType.STRING

PARAMETERS: dict[str, ValueType] = {
    "topk": SCALAR,
    "bottomk": SCALAR,
    "quantile": SCALAR,
    "limitk": SCALAR,
    "limit_ratio": SCALAR,
    "count_values": STRING,
}
"""Aggregations with a parameter, and its type."""

EXPERIMENTAL_AGGREGATIONS = frozenset({"limitk", "limit_ratio"})


@dataclass(frozen=True, slots=True)
class Function:
    """args: types of the arguments; the last one counts for all further ones.

    optional: how many arguments may be given beyond all but the last of `args`; 0: exactly `args`; -1: any number.
    """

    name: str
    args: tuple[ValueType, ...]
    returns: ValueType = VECTOR
    optional: int = 0
    experimental: bool = False

    def argument_type(self, index: int) -> ValueType | None:
        """Type that argument `index` must have, None if the function has no such argument."""
        if index < len(self.args):
            return self.args[index]
        return self.args[-1] if self.optional else None

    def count_mistake(self, n_args: int) -> str | None:
        """Why it cannot be called with so many arguments, in Prometheus' words."""
        n = len(self.args)
        if self.optional == 0:
            if n_args != n:
                return f'expected {n} argument(s) in call to "{self.name}", got {n_args}'
            return None
        least, most = n - 1, n - 1 + self.optional
        if n_args < least:
            return f'expected at least {least} argument(s) in call to "{self.name}", got {n_args}'
        if 0 < self.optional < n_args - least:
            return f'expected at most {most} argument(s) in call to "{self.name}", got {n_args}'
        return None


def _functions() -> dict[str, Function]:
    table: dict[str, Function] = {}

    def add(
        names: str,
        *args: ValueType,
        returns: ValueType = VECTOR,
        optional: int = 0,
        experimental: bool = False,
    ) -> None:
        for name in names.split():
            table[name] = Function(name, args, returns, optional, experimental)

    add("abs ceil floor exp sqrt ln log2 log10 sgn deg rad", VECTOR)
    add("sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh", VECTOR)
    add("absent sort sort_desc timestamp", VECTOR)
    add("histogram_avg histogram_count histogram_sum histogram_stddev histogram_stdvar", VECTOR)
    add("minute hour day_of_week day_of_month day_of_year days_in_month month year", VECTOR, optional=1)
    add("round", VECTOR, SCALAR, optional=1)
    add("clamp", VECTOR, SCALAR, SCALAR)
    add("clamp_min clamp_max", VECTOR, SCALAR)
    add("histogram_quantile", SCALAR, VECTOR)
    add("histogram_fraction", SCALAR, SCALAR, VECTOR)
    add("label_replace", VECTOR, STRING, STRING, STRING, STRING)
    add("label_join", VECTOR, STRING, STRING, STRING, optional=-1)
    add("scalar", VECTOR, returns=SCALAR)
    add("vector", SCALAR)
    add("time pi", returns=SCALAR)

    add("rate increase irate delta idelta deriv changes resets", MATRIX)
    add("avg_over_time min_over_time max_over_time sum_over_time count_over_time", MATRIX)
    add("stddev_over_time stdvar_over_time last_over_time first_over_time", MATRIX)
    add("present_over_time absent_over_time", MATRIX)
    add("predict_linear", MATRIX, SCALAR)
    add("quantile_over_time", SCALAR, MATRIX)

    add("ts_of_first_over_time ts_of_last_over_time", MATRIX, experimental=True)
    add("ts_of_min_over_time ts_of_max_over_time mad_over_time", MATRIX, experimental=True)
    add("double_exponential_smoothing", MATRIX, SCALAR, SCALAR, experimental=True)
    add("histogram_quantiles", VECTOR, STRING, SCALAR, SCALAR, optional=9, experimental=True)
    add("info", VECTOR, VECTOR, optional=1, experimental=True)
    add("sort_by_label sort_by_label_desc", VECTOR, STRING, optional=-1, experimental=True)
    add("start_timestamp", VECTOR, experimental=True)
    add("start end step range", returns=SCALAR, experimental=True)
    add("min_of max_of", SCALAR, SCALAR, returns=SCALAR, experimental=True)
    return table


FUNCTIONS = _functions()


def type_of(expr: Expr) -> ValueType:
    """Type of a parsed expression."""
    match expr:
        case NumberLiteral():
            return SCALAR
        case StringLiteral():
            return STRING
        case VectorSelector() | Aggregate():
            return VECTOR
        case MatrixSelector() | Subquery():
            return MATRIX
        case Call():
            return FUNCTIONS[expr.function].returns
        case Paren() | Unary():
            return type_of(expr.expr)
        case Binary():
            if expr.matching is not None or VECTOR in (type_of(expr.lhs), type_of(expr.rhs)):
                return VECTOR
            return SCALAR


def binary_mistake(
    op: str, lhs: ValueType, rhs: ValueType, matching: VectorMatching, return_bool: bool
) -> tuple[str, str] | None:
    """What forbids a binary operation: (message, part it is about: 'op', 'lhs', 'rhs' or 'all'), or None."""
    if return_bool and op not in COMPARISONS:
        return "bool modifier can only be used on comparison operators", "op"
    if op in COMPARISONS and not return_bool and lhs is rhs is SCALAR:
        return "comparisons between scalars must use BOOL modifier", "op"
    if matching.on:
        for label in matching.labels:
            if label in matching.include:
                return f'label "{label}" must not occur in ON and GROUP clause at once', "op"
    for side, name in ((lhs, "lhs"), (rhs, "rhs")):
        if side not in (SCALAR, VECTOR):
            return "binary expression must contain only scalar and instant vector types", name
    fills = matching.fill_left is not None or matching.fill_right is not None
    message = None
    if lhs is SCALAR or rhs is SCALAR:
        if matching.labels:
            message = "vector matching only allowed between instant vectors"
        elif fills:
            message = "filling in missing series only allowed between instant vectors"
        elif op in SET_OPERATORS:
            message = f'set operator "{op}" not allowed in binary scalar expression'
    elif op in SET_OPERATORS:
        if matching.cardinality is not Cardinality.ONE_TO_ONE:
            message = f'no grouping allowed for "{op}" operation'
        elif fills:
            message = "filling in missing series not allowed for set operators"
    return None if message is None else (message, "all")
