"""Literals, and the arithmetic that may stand where a duration is wanted.

After `offset` only one literal, one function or one pair of parentheses belongs to the duration, so that
`a offset 1m + 1m` adds 60 to `a offset 1m`. Within brackets there is no such ambiguity.
"""

from __future__ import annotations

import math
from typing import TypeAlias

from query.promql.ast import Duration, DurationExpr, NumberLiteral, Span
from query.promql.lexer import DURATION, NUMBER, PRECEDENCE, UNARY_PRECEDENCE
from query.promql.numbers import MAX_DURATION_S, parse_duration, parse_number, seconds_to_ms
from query.promql.reader import TokenReader

_Node: TypeAlias = "NumberLiteral | DurationExpr"

_OPERATORS = frozenset("+-*/%^")
_CALLS = {"step": 0, "range": 0, "min_of": 2, "max_of": 2}
_STARTS = frozenset({NUMBER, DURATION, "+", "-", "(", *_CALLS})

MAX_NESTING = 120
"""Levels of brackets, calls, signs and powers that a query may open within one another.

The parser recurses over them, and Python's stack is shared with whoever calls it.
"""

MAX_DURATION_OPERATIONS = 100
"""Operators and functions in one duration."""


class DurationParser(TokenReader):
    """Parses literals and durations."""

    def __init__(self, text: str, *, strict: bool) -> None:
        super().__init__(text, strict=strict)
        self.nesting = 0
        self._n_operations = 0

    def enter(self) -> None:
        """Count a level of nesting; whoever enters leaves by `self.nesting -= 1`."""
        self.nesting += 1
        if self.nesting > MAX_NESTING:
            message = f"expression is nested too deeply, at most {MAX_NESTING} levels are allowed"
            raise self.error(message, self.start, self.start + len(self.value))

    def number(self) -> NumberLiteral:
        """A number or a duration, which counts its seconds."""
        kind, start, value = self.kind, self.start, self.value
        if kind not in (NUMBER, DURATION):
            raise self.unexpected()
        span = Span(start, start + len(value))
        try:
            if kind == NUMBER:
                literal = NumberLiteral(parse_number(value), False, span)
            else:
                literal = NumberLiteral(parse_duration(value) / 1000, True, span)
        except ValueError as error:
            raise self.error(str(error), span.start, span.end) from None
        self.advance()
        return literal

    def signed_number(self) -> float:
        sign = self.kind
        if sign in ("+", "-"):
            self.advance()
        literal = self.number()
        return _minus(literal.value) if sign == "-" else literal.value

    def positive_duration(self, context: str, expected: str) -> Duration:
        """A range or step. Literals must be positive, expressions are looked at when they are resolved."""
        if self.kind not in _STARTS:
            raise self.unexpected(context, expected)
        self._n_operations = 0
        with self.within(context, expected):
            node = self._arithmetic(1)
        if isinstance(node, DurationExpr):
            return node
        ms = seconds_to_ms(node.value)
        if ms <= 0:
            raise self.error("duration must be greater than 0", node.span.start, node.span.end)
        return ms

    def offset_duration(self) -> Duration:
        self._n_operations = 0
        with self.within("offset", "number, duration, step(), or range()"):
            sign, start = self.kind, self.start
            if sign in ("+", "-"):
                self.advance()
            node = self._duration_primary()
            if sign == "-":
                node = negated(node, start)
        return node if isinstance(node, DurationExpr) else seconds_to_ms(node.value)

    def _arithmetic(self, min_precedence: int) -> _Node:
        self.enter()
        lhs: _Node
        sign, start = self.kind, self.start
        if sign in ("+", "-"):
            self.advance()
            lhs = self._arithmetic(UNARY_PRECEDENCE + 1)
            if sign == "-":
                lhs = negated(lhs, start)
            elif isinstance(lhs, NumberLiteral):
                lhs = NumberLiteral(lhs.value, lhs.is_duration, Span(start, lhs.span.end))
        else:
            lhs = self._duration_primary()
        while self.kind in _OPERATORS and (precedence := PRECEDENCE[self.kind]) >= min_precedence:
            op, op_start = self.kind, self.start
            self._count_operation()
            self.advance()
            rhs = self._arithmetic(precedence + (op != "^"))
            if op in ("/", "%") and isinstance(rhs, NumberLiteral) and rhs.value == 0:
                message = "division by zero" if op == "/" else "modulo by zero"
                raise self.error(message, op_start, op_start + 1)
            lhs = DurationExpr(op, lhs, rhs, Span(start, self.end))
        self.nesting -= 1
        return lhs

    def _count_operation(self) -> None:
        self._n_operations += 1
        if self._n_operations > MAX_DURATION_OPERATIONS:
            message = f"duration has too many operations, at most {MAX_DURATION_OPERATIONS} are allowed"
            raise self.error(message, self.start, self.start + len(self.value))

    def _duration_primary(self) -> _Node:
        kind, start = self.kind, self.start
        if kind == "(":
            self.advance()
            node = self._arithmetic(1)
            self.expect(")")
            return node
        if kind in _CALLS:
            self.advance()
            return self._duration_call(kind, start)
        literal = self.number()
        if not -MAX_DURATION_S < literal.value < MAX_DURATION_S:
            raise self.error("duration out of range", literal.span.start, literal.span.end)
        return literal

    def _duration_call(self, name: str, start: int) -> DurationExpr:
        self._count_operation()
        self.expect("(")
        lhs = rhs = None
        if _CALLS[name]:
            lhs = self._arithmetic(1)
            self.expect(",")
            rhs = self._arithmetic(1)
        self.expect(")")
        return DurationExpr(name.removesuffix("_of"), lhs, rhs, Span(start, self.end))


def negated(node: _Node, start: int) -> _Node:
    """The node with a minus sign, which stood at `start`, before it; literals absorb the sign."""
    span = Span(start, node.span.end)
    if isinstance(node, DurationExpr):
        return DurationExpr("-", None, node, span)
    return NumberLiteral(_minus(node.value), node.is_duration, span)


def _minus(value: float) -> float:
    # One object for all NaNs, so that equal trees compare equal.
    return math.nan if math.isnan(value) else -value
