"""Parses PromQL as of Prometheus 3.14: `parse` for queries, `parse_selector` for the API's `match[]`.

Recursive descent, with precedence climbing for the operators. Types are checked on the way, but a mistake in them
is raised only when the whole query is known to be well-formed: Prometheus reports errors of form first.

Source of the grammar: https://prometheus.io/docs/prometheus/latest/querying/basics/ and the public tests of
Prometheus' parser, which also settle the wording of errors.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, TypeAlias

from common.store import Matcher
from query.promql.ast import (
    Aggregate,
    AtEdge,
    Binary,
    Call,
    Cardinality,
    Expr,
    MatrixSelector,
    NumberLiteral,
    Paren,
    Span,
    StringLiteral,
    Subquery,
    Unary,
    ValueType,
    VectorMatching,
    VectorSelector,
)
from query.promql.duration_parser import negated
from query.promql.errors import ParseError
from query.promql.lexer import (
    AGGREGATORS,
    DURATION,
    EOF,
    IDENTIFIER,
    NUMBER,
    PRECEDENCE,
    PREPROCESSORS,
    SET_OPERATORS,
    STRING,
    UNARY_PRECEDENCE,
)
from query.promql.quoting import quote, unquote
from query.promql.selector_parser import METRIC_KINDS, SelectorParser
from query.promql.signatures import (
    EXPERIMENTAL_AGGREGATIONS,
    FUNCTIONS,
    PARAMETERS,
    Function,
    binary_mistake,
)

MAX_QUERY_LENGTH = 1 << 18
"""Code points. Long queries are mostly regular expressions that list values; this leaves room for thousands."""

MAX_DEPTH = 200
"""Levels of the tree. A chain of n operators is n levels deep, so this also bounds `a or b or c ...`."""

_SUFFIXES = frozenset({"[", "@", "offset", "smoothed", "anchored"})
_FUNCTION_KINDS = PREPROCESSORS | {IDENTIFIER}
_SELECTORS = (VectorSelector, MatrixSelector, Subquery)
_NEEDS_SELECTOR = "modifier must be preceded by an instant vector selector or range vector selector or a subquery"
_MAX_AT_S = 2**63
_MAX_AT_MS = 2**63 - 1

_Typed: TypeAlias = tuple[Expr, ValueType, int]
"""A node, its type and the depth of its tree."""
_Selector: TypeAlias = VectorSelector | MatrixSelector | Subquery


def parse(text: str, *, strict: bool = False) -> Expr:
    """The tree of a query, checked.

    strict: refuse what Prometheus 3.14 has behind a feature flag, as Prometheus without flags does.

    Raises:
        ParseError: the text is not a query that can be evaluated.
    """
    return _parser(text, strict=strict).query()


def parse_selector(text: str) -> tuple[Matcher, ...]:
    """Matchers of a selector without modifiers; they may be all empty, see `has_non_empty_matcher`.

    Raises:
        ParseError: the text is not a selector.
    """
    parser = _parser(text, strict=False)
    selector = parser.selector()
    if parser.kind != EOF:
        raise parser.unexpected()
    return selector.matchers


def _parser(text: str, *, strict: bool) -> _Parser:
    if len(text) > MAX_QUERY_LENGTH:
        message = f"query is too long: {len(text)} characters, at most {MAX_QUERY_LENGTH} are allowed"
        raise ParseError(message, text, Span(0, 0))
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ParseError("invalid UTF-8 rune", text, Span(error.start, error.end)) from None
    return _Parser(text, strict=strict)


class _Parser(SelectorParser):
    def __init__(self, text: str, *, strict: bool) -> None:
        super().__init__(text, strict=strict)
        self.type_error: ParseError | None = None

    def query(self) -> Expr:
        if self.kind == EOF:
            raise self.error("no expression found in input", 0, 0)
        expr, _, _ = self._expr(1)
        if self.kind != EOF:
            raise self.unexpected()
        if self.type_error is not None:
            raise self.type_error
        return expr

    def _mistake(self, message: str, span: Span) -> None:
        """Note a mistake in types; the first one counts."""
        if self.type_error is None:
            self.type_error = ParseError(message, self.text, span)

    def _deeper(self, *depths: int) -> int:
        depth = 1 + max(depths, default=0)
        if depth > MAX_DEPTH:
            message = f"expression has too many levels, at most {MAX_DEPTH} operations may depend on one another"
            raise self.error(message, self.start, self.start + len(self.value))
        return depth

    # Operators

    def _expr(self, min_precedence: int) -> _Typed:
        self.enter()
        node = self._unary() if self.kind in ("+", "-") else self._operand()
        while (precedence := PRECEDENCE.get(self.kind, 0)) >= min_precedence:
            node = self._binary(node, precedence)
        self.nesting -= 1
        return node

    def _unary(self) -> _Typed:
        op, start = self.kind, self.start
        self.advance()
        expr, type_, depth = self._expr(UNARY_PRECEDENCE + 1)
        span = Span(start, expr.span.end)
        if isinstance(expr, NumberLiteral):
            literal = negated(expr, start) if op == "-" else replace(expr, span=span)
            assert isinstance(literal, NumberLiteral)
            return literal, type_, depth
        if type_ not in (ValueType.SCALAR, ValueType.VECTOR):
            allowed = "unary expression only allowed on expressions of type scalar or instant vector"
            self._mistake(f'{allowed}, got "{type_.value}"', span)
        return Unary(op, expr, span), type_, self._deeper(depth)

    def _binary(self, left: _Typed, precedence: int) -> _Typed:
        lhs, lhs_type, lhs_depth = left
        op, op_start, op_end = self.kind, self.start, self.start + len(self.value)
        self.advance()
        return_bool = self.kind == "bool"
        if return_bool:
            self.advance()
        matching = self._matching()
        rhs, rhs_type, rhs_depth = self._expr(precedence + (op != "^"))
        span = Span(lhs.span.start, rhs.span.end)
        fills = matching.fill_left is not None or matching.fill_right is not None
        if fills and self.strict:
            raise self.error("binop fill modifiers are experimental and not enabled", span.start, span.end)
        mistake = binary_mistake(op, lhs_type, rhs_type, matching, return_bool)
        if mistake is not None:
            parts = {"op": Span(op_start, op_end), "lhs": lhs.span, "rhs": rhs.span, "all": span}
            self._mistake(mistake[0], parts[mistake[1]])
        of_vectors = lhs_type is rhs_type is ValueType.VECTOR
        if of_vectors and op in SET_OPERATORS:
            matching = replace(matching, cardinality=Cardinality.MANY_TO_MANY)
        type_ = ValueType.VECTOR if ValueType.VECTOR in (lhs_type, rhs_type) else ValueType.SCALAR
        node = Binary(op, lhs, rhs, return_bool, matching if of_vectors else None, span)
        return node, type_, self._deeper(lhs_depth, rhs_depth)

    def _matching(self) -> VectorMatching:
        if self.kind not in ("on", "ignoring", "fill", "fill_left", "fill_right"):
            return _DEFAULT_MATCHING
        cardinality = Cardinality.ONE_TO_ONE
        on = self.kind == "on"
        labels: tuple[str, ...] = ()
        include: tuple[str, ...] = ()
        if self.kind in ("on", "ignoring"):
            self.advance()
            labels = self.labels()
            if self.kind in ("group_left", "group_right"):
                left = self.kind == "group_left"
                cardinality = Cardinality.MANY_TO_ONE if left else Cardinality.ONE_TO_MANY
                self.advance()
                if self.kind == "(":
                    include = self.labels()
        fills: dict[str, float] = {}
        if self.kind == "fill":
            fills["fill_left"] = fills["fill_right"] = self._fill()
        else:
            while self.kind in ("fill_left", "fill_right") and self.kind not in fills:
                side = self.kind
                fills[side] = self._fill()
        return VectorMatching(cardinality, on, labels, include, fills.get("fill_left"), fills.get("fill_right"))

    def _fill(self) -> float:
        self.advance()
        self.expect("(")
        value = self.signed_number()
        self.expect(")")
        return value

    # Operands

    def _operand(self) -> _Typed:
        node = self._primary()
        while self.kind in _SUFFIXES:
            node = self._suffix(node)
        return node

    def _primary(self) -> _Typed:
        kind, start = self.kind, self.start
        if kind in (NUMBER, DURATION):
            return self.number(), ValueType.SCALAR, 1
        if kind in _FUNCTION_KINDS and self.next_kind() == "(":
            return self._call()
        if kind in AGGREGATORS and self.next_kind() in ("(", "by", "without"):
            return self._aggregate()
        if kind in METRIC_KINDS or kind == "{":
            selector = self.selector()
            mistake = self.selector_mistake(selector)
            if mistake is not None:
                self._mistake(mistake, selector.span)
            return selector, ValueType.VECTOR, 1
        if kind == "(":
            self.advance()
            expr, type_, depth = self._expr(1)
            self.expect(")")
            return Paren(expr, Span(start, self.end)), type_, self._deeper(depth)
        if kind == STRING:
            value = unquote(self.value)
            self.advance()
            return StringLiteral(value, Span(start, self.end)), ValueType.STRING, 1
        raise self.unexpected()

    def _aggregate(self) -> _Typed:
        op, start = self.kind, self.start
        self.advance()
        with self.within("aggregation", ""):
            grouping: tuple[str, ...] | None = None
            without = False
            if self.kind in ("by", "without"):
                grouping, without = self._grouping()
            args = self._arguments()
            if grouping is None and self.kind in ("by", "without"):
                grouping, without = self._grouping()
        span = Span(start, self.end)
        if not args:
            raise self.error("no arguments for aggregate expression provided", *_bounds(span))
        if self.strict and op in EXPERIMENTAL_AGGREGATIONS:
            flag = "--enable-feature=promql-experimental-functions"
            raise self.error(f"{op}() is experimental and must be enabled with {flag}", *_bounds(span))
        wanted = 1 + (op in PARAMETERS)
        if len(args) != wanted:
            message = "wrong number of arguments for aggregate expression provided"
            raise self.error(f"{message}, expected {wanted}, got {len(args)}", *_bounds(span))
        self._check_type(args[-1], ValueType.VECTOR, "aggregation expression")
        param = None
        if wanted == 2:
            self._check_type(args[0], PARAMETERS[op], "aggregation parameter")
            param = args[0][0]
        node = Aggregate(op, args[-1][0], param, grouping or (), without, span)
        return node, ValueType.VECTOR, self._deeper(*(arg[2] for arg in args))

    def _grouping(self) -> tuple[tuple[str, ...], bool]:
        without = self.kind == "without"
        self.advance()
        return self.labels(), without

    def _call(self) -> _Typed:
        name, start, name_end = self.value, self.start, self.start + len(self.value)
        self.advance()
        earlier = self.type_error
        args = self._arguments(of_info=name == "info")
        function = FUNCTIONS.get(name)
        if function is None:
            raise self.error(f"unknown function with name {quote(name)}", start, name_end)
        if self.strict and function.experimental:
            raise self.error(f'function "{name}" is not enabled', start, name_end)
        span = Span(start, self.end)
        mistake = self._call_mistake(function, args, span)
        if mistake is not None:
            # Comes before mistakes within the arguments.
            self.type_error = earlier
            self._mistake(*mistake)
        for i, arg in enumerate(args):
            wanted = function.argument_type(i)
            if wanted is not None:
                self._check_type(arg, wanted, f'call to function "{name}"')
        node = Call(name, tuple(arg[0] for arg in args), span)
        return node, function.returns, self._deeper(*(arg[2] for arg in args))

    def _call_mistake(self, function: Function, args: list[_Typed], span: Span) -> tuple[str, Span] | None:
        message = function.count_mistake(len(args))
        if message is not None:
            return message, span
        if function.name == "info" and len(args) > 1:
            expr, type_, _ = args[1]
            if type_ is not ValueType.VECTOR:
                return f'expected type instant vector in call to function "info", got {type_.value}', span
            if not isinstance(expr, VectorSelector):
                return "expected label selectors only", expr.span
            if expr.name is not None:
                return "expected label selectors only, got vector selector instead", expr.span
        return None

    def _check_type(self, arg: _Typed, wanted: ValueType, where: str) -> None:
        expr, type_, _ = arg
        if type_ is not wanted:
            self._mistake(f"expected type {wanted.value} in {where}, got {type_.value}", expr.span)

    def _arguments(self, *, of_info: bool = False) -> list[_Typed]:
        """Expressions in parentheses. The second one of `info` may be a selector of everything."""
        self.expect("(")
        args: list[_Typed] = []
        while self.kind != ")" or args:
            earlier = self.type_error
            args.append(self._expr(1))
            if of_info and len(args) == 2 and isinstance(args[1][0], VectorSelector):
                self.type_error = earlier
            if self.kind == ")":
                break
            comma = self.start
            self.expect(",")
            if self.kind == ")":
                raise self.error("trailing commas not allowed in function call args", comma, comma + 1)
        self.advance()
        return args

    # Brackets and modifiers

    def _suffix(self, node: _Typed) -> _Typed:
        expr, type_, depth = node
        kind = self.kind
        if kind == "[":
            return self._brackets(node)
        self.advance()
        if kind in ("smoothed", "anchored"):
            return self._extended(expr, kind), type_, depth
        if kind == "offset":
            return self._offset(expr), type_, depth
        return self._at(expr), type_, depth

    def _brackets(self, node: _Typed) -> _Typed:
        expr, type_, depth = node
        start = self.start
        self.advance()
        range_ = self.positive_duration("subquery or range selector", "number, duration, step(), or range()")
        if self.kind == ":":
            self.advance()
            step = None
            if self.kind != "]":
                expected = 'number, duration, step(), range(), or "]"'
                step = self.positive_duration("subquery selector", expected)
            if self.kind != "]":
                raise self.unexpected("subquery selector", '"]"')
            self.advance()
            span = Span(expr.span.start, self.end)
            if type_ is not ValueType.VECTOR:
                got = {ValueType.MATRIX: "matrix"}.get(type_, type_.value)
                self._mistake(f"subquery is only allowed on instant vector, got {got} instead", span)
            return Subquery(expr, range_, step, span=span), ValueType.MATRIX, self._deeper(depth)
        if self.kind != "]":
            raise self.unexpected("subquery or range", '":" or "]"')
        self.advance()
        if not isinstance(expr, VectorSelector):
            raise self.error("ranges only allowed for vector selectors", start, self.end)
        # As in Prometheus, an offset or @ that is not a plain number is let through here.
        if isinstance(expr.offset, int) and expr.offset != 0:
            raise self.error("no offset modifiers allowed before range", start, self.end)
        if isinstance(expr.at, int):
            raise self.error("no @ modifiers allowed before range", start, self.end)
        span = Span(expr.span.start, self.end)
        return MatrixSelector(expr, range_, span), ValueType.MATRIX, self._deeper(depth)

    def _offset(self, expr: Expr) -> Expr:
        offset = self.offset_duration()
        if not isinstance(expr, _SELECTORS):
            raise self.error(f"offset {_NEEDS_SELECTOR}", *_bounds(expr.span))
        if _modified(expr).offset != 0:
            raise self.error("offset may not be set multiple times", *_bounds(expr.span))
        return _with(expr, self.end, offset=offset)

    def _at(self, expr: Expr) -> Expr:
        with self.within("@", "timestamp"):
            at: int | AtEdge
            if self.kind in ("start", "end"):
                at = AtEdge(self.kind)
                self.advance()
                self.expect("(")
                self.expect(")")
            else:
                at = self._at_ms(self.signed_number(), expr)
        if not isinstance(expr, _SELECTORS):
            raise self.error(f"@ {_NEEDS_SELECTOR}", *_bounds(expr.span))
        if _modified(expr).at is not None:
            raise self.error("@ <timestamp> may not be set multiple times", *_bounds(expr.span))
        return _with(expr, self.end, at=at)

    def _at_ms(self, seconds: float, expr: Expr) -> int:
        if not -_MAX_AT_S < seconds < _MAX_AT_S:
            shown = "NaN" if math.isnan(seconds) else f"{seconds:+f}"
            shown = {"+inf": "+Inf", "-inf": "-Inf"}.get(shown, shown.removeprefix("+"))
            message = f"timestamp out of bounds for @ modifier: {shown}"
            raise self.error(message, *_bounds(expr.span))
        ms = math.floor(abs(seconds) * 1000 + 0.5)
        return max(-_MAX_AT_MS, -ms) if seconds < 0 else min(_MAX_AT_MS, ms)

    def _extended(self, expr: Expr, kind: str) -> Expr:
        bounds = _bounds(expr.span)
        if self.strict:
            raise self.error(f"{kind} modifier is experimental and not enabled", *bounds)
        if isinstance(expr, Subquery):
            raise self.error(f"{kind} modifier is not supported for subqueries", *bounds)
        if not isinstance(expr, VectorSelector | MatrixSelector):
            raise self.error(f"{kind} modifier not implemented", *bounds)
        selector = expr.selector if isinstance(expr, MatrixSelector) else expr
        if selector.extended not in (None, kind):
            raise self.error("anchored and smoothed modifiers cannot be used together", *bounds)
        return _with(expr, self.end, extended=kind)


_DEFAULT_MATCHING = VectorMatching()


def _modified(expr: _Selector) -> VectorSelector | Subquery:
    """The node that holds the modifiers."""
    return expr.selector if isinstance(expr, MatrixSelector) else expr


def _with(expr: _Selector, end: int, **changes: Any) -> _Selector:
    """The selector with changed modifiers, the last of which ends at `end`."""
    span = Span(expr.span.start, end)
    if isinstance(expr, MatrixSelector):
        return replace(expr, selector=replace(expr.selector, **changes), span=span)
    return replace(expr, span=span, **changes)


def _bounds(span: Span) -> tuple[int, int]:
    return span.start, span.end
