"""Writes a tree as text, in one line, so that parsing the text gives the same tree.

A tree that does not come from the parser may lack the Paren nodes that its text needs; they are then added, and
the text means the tree but parses to one with them.
"""

from __future__ import annotations

import math
import re

from common.labels import METRIC_NAME
from common.store import Matcher, MatchOp
from query.promql.ast import (
    Aggregate,
    AtEdge,
    Binary,
    Call,
    Cardinality,
    Duration,
    DurationExpr,
    Expr,
    MatrixSelector,
    NumberLiteral,
    Paren,
    StringLiteral,
    Subquery,
    Unary,
    VectorMatching,
    VectorSelector,
)
from query.promql.lexer import PRECEDENCE
from query.promql.quoting import quote

_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_METRIC = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*\Z")
_NOT_METRICS = frozenset({"bool", "on", "ignoring", "group_left", "group_right", "atan2", "inf", "nan"})
_SIGN = PRECEDENCE["*"]
_POWER = PRECEDENCE["^"]
_OPERAND = _POWER + 1
_UNITS_MS = [("y", 31_536_000_000), ("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000)]
_UNITS_MS += [("m", 60_000), ("s", 1000), ("ms", 1)]


def format_expr(expr: Expr) -> str:
    """The canonical text of an expression."""
    match expr:
        case NumberLiteral():
            return _number(expr)
        case StringLiteral():
            return quote(expr.value)
        case VectorSelector():
            return _selector(expr, "")
        case MatrixSelector():
            return _selector(expr.selector, f"[{_duration(expr.range_, 0)}]")
        case Subquery():
            step = "" if expr.step is None else _duration(expr.step, 0)
            brackets = f"[{_duration(expr.range_, 0)}:{step}]"
            return _wrapped(expr.expr, _OPERAND) + brackets + _modifiers(expr.at, expr.offset)
        case Call():
            return f"{expr.function}({', '.join(map(format_expr, expr.args))})"
        case Aggregate():
            return _aggregate(expr)
        case Binary():
            return _binary(expr)
        case Unary():
            if isinstance(expr.expr, NumberLiteral):
                # Without parentheses the sign would become part of the number.
                return f"{expr.op}({_number(expr.expr)})"
            signs = isinstance(expr.expr, Unary)
            return expr.op + (format_expr(expr.expr) if signs else _wrapped(expr.expr, _POWER))
        case Paren():
            return f"({format_expr(expr.expr)})"


def format_duration(ms: int) -> str:
    """`1h30m`; years and weeks only where they come out even."""
    if ms == 0:
        return "0s"
    out = "-" if ms < 0 else ""
    rest = abs(ms)
    for unit, size in _UNITS_MS:
        if rest >= size and (unit not in ("y", "w") or rest % size == 0):
            out += f"{rest // size}{unit}"
            rest %= size
    return out


def _wrapped(expr: Expr, least: int) -> str:
    """The text, in parentheses if it binds weaker than an operator of precedence `least` would need."""
    text = format_expr(expr)
    if isinstance(expr, Binary):
        strength = PRECEDENCE[expr.op]
    elif isinstance(expr, Unary | NumberLiteral) and text[0] in "+-":
        strength = _SIGN
    else:
        return text
    return text if strength >= least else f"({text})"


def _number(literal: NumberLiteral) -> str:
    value = literal.value
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    if literal.is_duration:
        # Durations are of a size that milliseconds can say.
        ms = round(value * 1000)
        if ms / 1000 == value:
            return format_duration(ms)
    if value == int(value) and abs(value) < 1e15:
        return f"{value:.0f}"
    return repr(value)


def _label(name: str) -> str:
    """A label in a list; all keywords may stand there, but not the words for numbers."""
    is_plain = _LABEL.match(name) and name.lower() not in ("inf", "nan")
    return name if is_plain else quote(name)


def _labels(names: tuple[str, ...]) -> str:
    return "(" + ", ".join(map(_label, names)) + ")"


def _matcher(matcher: Matcher) -> str:
    name = matcher.name if _LABEL.match(matcher.name) else quote(matcher.name)
    return f"{name}{matcher.op.value}{quote(matcher.value)}"


def _selector(selector: VectorSelector, brackets: str) -> str:
    name = selector.name or ""
    matchers = list(selector.matchers)
    if _METRIC.match(name) and name.lower() not in _NOT_METRICS:
        by_name = Matcher(MatchOp.EQUAL, METRIC_NAME, name)
        if by_name in matchers:
            matchers.remove(by_name)
    else:
        name = ""
    braces = "{" + ", ".join(map(_matcher, matchers)) + "}" if matchers or not name else ""
    extended = f" {selector.extended}" if selector.extended else ""
    return name + braces + brackets + extended + _modifiers(selector.at, selector.offset)


def _modifiers(at: int | AtEdge | None, offset: Duration) -> str:
    out = ""
    if isinstance(at, AtEdge):
        out += f" @ {at.value}()"
    elif at is not None:
        seconds, ms = divmod(abs(at), 1000)
        out += f" @ {'-' if at < 0 else ''}{seconds}.{ms:03d}"
    if offset != 0:
        out += f" offset {_offset(offset)}"
    return out


def _offset(offset: Duration) -> str:
    text = _duration(offset, 0)
    if isinstance(offset, DurationExpr) and offset.op not in ("step", "range", "min", "max"):
        return f"({text})"
    return text


def _duration(duration: Duration | None, least: int) -> str:
    if duration is None:
        return ""
    if isinstance(duration, int):
        return format_duration(duration)
    if isinstance(duration, NumberLiteral):
        text = _number(duration)
        return f"({text})" if text.startswith("-") and least > _SIGN else text
    op, lhs, rhs = duration.op, duration.lhs, duration.rhs
    if op in ("step", "range"):
        return f"{op}()"
    if op in ("min", "max"):
        return f"{op}_of({_duration(lhs, 0)}, {_duration(rhs, 0)})"
    if lhs is None:
        # A sign is never alone before a number: the parser makes them one.
        inner = _duration(rhs, _POWER)
        text = f"{op}({inner})" if isinstance(rhs, int | NumberLiteral) else op + inner
        strength = _SIGN
    else:
        strength = PRECEDENCE[op]
        right = op == "^"
        text = f"{_duration(lhs, strength + right)} {op} {_duration(rhs, strength + (not right))}"
    return text if strength >= least else f"({text})"


def _aggregate(expr: Aggregate) -> str:
    grouping = ""
    if expr.without or expr.grouping:
        grouping = f" {'without' if expr.without else 'by'} {_labels(expr.grouping)} "
    args = [expr.expr] if expr.param is None else [expr.param, expr.expr]
    return f"{expr.op}{grouping}({', '.join(map(format_expr, args))})"


def _binary(expr: Binary) -> str:
    strength = PRECEDENCE[expr.op]
    right = expr.op == "^"
    words = [_wrapped(expr.lhs, strength + right), expr.op]
    if expr.return_bool:
        words.append("bool")
    if expr.matching is not None:
        words += _matching(expr.matching)
    # A sign on the right needs no parentheses: it cannot reach back.
    plain = isinstance(expr.rhs, Unary | NumberLiteral)
    words.append(format_expr(expr.rhs) if plain else _wrapped(expr.rhs, strength + (not right)))
    return " ".join(words)


def _matching(matching: VectorMatching) -> list[str]:
    words = []
    grouped = matching.cardinality in (Cardinality.MANY_TO_ONE, Cardinality.ONE_TO_MANY)
    if matching.on or matching.labels or grouped:
        words.append(f"{'on' if matching.on else 'ignoring'} {_labels(matching.labels)}")
    if grouped:
        side = "left" if matching.cardinality is Cardinality.MANY_TO_ONE else "right"
        words.append(f"group_{side} {_labels(matching.include)}")
    left, right = matching.fill_left, matching.fill_right
    if left is not None:
        words.append(f"fill_left ({_number(NumberLiteral(left))})")
    if right is not None:
        words.append(f"fill_right ({_number(NumberLiteral(right))})")
    return words
