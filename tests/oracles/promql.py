"""A slow, obvious PromQL: one step at a time, one sample at a time, over plain dicts and lists.

It knows nothing of matrices, so its answers are evidence for those of the engine. A function gets its evaluated
arguments (see `Value`) and the time, and returns a value; `functions` says which there are.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

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
    StringLiteral,
    Subquery,
    Unary,
    VectorMatching,
    VectorSelector,
)
from tests.memory_store import matches

NAME = "__name__"
METADATA = (NAME, "__type__", "__unit__")
STALE = struct.pack("<Q", 0x7FF0000000000002)

Labels: TypeAlias = dict[str, str]
Samples: TypeAlias = list[tuple[int, float]]


@dataclass
class Element:
    """One element of an instant vector."""

    labels: Labels
    value: float
    drop_name: bool = False


@dataclass
class Window:
    """One element of a range vector: its samples in (end - range_, end]."""

    labels: Labels
    samples: Samples
    end: int
    range_: int
    drop_name: bool = False


Value: TypeAlias = "list[Element] | list[Window] | float | str"


class OracleError(Exception):
    """The query cannot be evaluated."""


class Oracle:
    def __init__(
        self,
        series: Iterable[tuple[Mapping[str, str], Iterable[tuple[int, float]]]],
        *,
        lookback_ms: int = 300_000,
        subquery_step_ms: int = 60_000,
        functions: Mapping[str, Callable[[Sequence[Value], int, Call], Value]] | None = None,
    ) -> None:
        self.series = [({k: v for k, v in labels.items() if v}, sorted(samples)) for labels, samples in series]
        self.lookback_ms = lookback_ms
        self.subquery_step_ms = subquery_step_ms
        self.functions = functions or {}
        self.start = self.end = 0

    def instant(self, expr: Expr, time: int) -> Value:
        """The answer at one time."""
        self.start = self.end = time
        return _final(self.value(expr, time))

    def range(self, expr: Expr, start: int, end: int, step: int) -> dict[frozenset[tuple[str, str]], Samples]:
        """The answer at start, start + step ... end: samples by label set."""
        self.start, self.end = start, end
        out: dict[frozenset[tuple[str, str]], Samples] = {}
        for time in range(start, end + 1, step):
            value = _final(self.value(expr, time))
            if isinstance(value, float):
                value = [Element({}, value)]
            for element in value:
                out.setdefault(frozenset(element.labels.items()), []).append((time, element.value))
        return out

    def value(self, expr: Expr, time: int) -> Value:
        match expr:
            case NumberLiteral():
                return expr.value
            case StringLiteral():
                return expr.value
            case Paren():
                return self.value(expr.expr, time)
            case VectorSelector():
                return self._instant_selector(expr, time)
            case MatrixSelector():
                return self._range_selector(expr, time)
            case Subquery():
                return self._subquery(expr, time)
            case Unary():
                return _unary(expr.op, self.value(expr.expr, time))
            case Aggregate():
                parameter = None if expr.param is None else self.value(expr.param, time)
                return _aggregate(expr, self.value(expr.expr, time), parameter)
            case Binary():
                return _binary(expr, self.value(expr.lhs, time), self.value(expr.rhs, time))
            case Call():
                return self.functions[expr.function]([self.value(arg, time) for arg in expr.args], time, expr)
        raise AssertionError(expr)

    def _reference(self, node: VectorSelector | Subquery, time: int) -> int:
        if node.at is AtEdge.START:
            time = self.start
        elif node.at is AtEdge.END:
            time = self.end
        elif node.at is not None:
            time = node.at
        return time - node.offset

    def _matching(self, selector: VectorSelector) -> list[tuple[Labels, Samples]]:
        return [s for s in self.series if all(matches(m, s[0]) for m in selector.matchers)]

    def _instant_selector(self, selector: VectorSelector, time: int) -> list[Element]:
        end = self._reference(selector, time)
        out = []
        for labels, samples in self._matching(selector):
            seen = [value for t, value in samples if end - self.lookback_ms < t <= end]
            if seen and not _is_stale(seen[-1]):
                out.append(Element(labels, seen[-1]))
        return out

    def _range_selector(self, selector: MatrixSelector, time: int) -> list[Window]:
        end = self._reference(selector.selector, time)
        out = []
        for labels, samples in self._matching(selector.selector):
            window = [(t, v) for t, v in samples if end - selector.range_ < t <= end and not _is_stale(v)]
            if window:
                out.append(Window(labels, window, end, selector.range_))
        return out

    def _subquery(self, node: Subquery, time: int) -> list[Window]:
        end = self._reference(node, time)
        step = node.step or self.subquery_step_ms
        out: dict[frozenset[tuple[str, str]], Window] = {}
        after_left_edge = ((end - node.range_) // step + 1) * step
        for inner in range(after_left_edge, end + 1, step):
            elements = self.value(node.expr, inner)
            _refuse_duplicates(elements)
            for element in elements:
                key = frozenset(element.labels.items())
                window = out.setdefault(key, Window(element.labels, [], end, node.range_, element.drop_name))
                window.samples.append((inner, element.value))
        return list(out.values())


def _is_stale(value: float) -> bool:
    return struct.pack("<d", value) == STALE


def _final(value: Value) -> Value:
    if isinstance(value, list):
        for element in value:
            if element.drop_name:
                element.labels = {k: v for k, v in element.labels.items() if k not in METADATA}
        _refuse_duplicates(value)
    return value


def _refuse_duplicates(elements: Sequence[Element | Window]) -> None:
    keys = [frozenset(element.labels.items()) for element in elements]
    if len(set(keys)) < len(keys):
        raise OracleError("vector cannot contain metrics with the same labelset")


def _unary(op: str, value: Value) -> Value:
    if op == "+":
        return value
    if isinstance(value, float):
        return -value
    return [Element(e.labels, -e.value, True) for e in value]


# ---- aggregation ---------------------------------------------------------------------------------------------


def _aggregate(node: Aggregate, elements: list[Element], parameter: Value | None) -> list[Element]:
    groups: dict[frozenset[tuple[str, str]], list[Element]] = {}
    for element in elements:
        labels = dict(element.labels)
        if node.op == "count_values":
            labels[parameter] = _positional(element.value)
        grouping = node.grouping if node.without or node.op != "count_values" else (*node.grouping, parameter)
        if node.without:
            labels = {k: v for k, v in labels.items() if k not in (*grouping, NAME)}
        else:
            labels = {k: v for k, v in labels.items() if k in grouping}
        groups.setdefault(frozenset(labels.items()), []).append(element)
    out = []
    for key, members in groups.items():
        if node.op in ("topk", "bottomk", "limitk"):
            out += _pick(node.op, members, int(parameter))
        else:
            value = _fold(node.op, [e.value for e in members], parameter)
            dropped = node.op != "count_values" and any(e.drop_name for e in members)
            out.append(Element(dict(key), value, dropped))
    return out


def _fold(op: str, values: list[float], parameter: Value | None) -> float:
    real = [v for v in values if not math.isnan(v)]
    match op:
        case "sum":
            return math.fsum(values) if all(map(math.isfinite, values)) else sum(values)
        case "avg":
            return _fold("sum", values, None) / len(values)
        case "count" | "count_values":
            return float(len(values))
        case "group":
            return 1.0
        case "min":
            return min(real) if real else math.nan
        case "max":
            return max(real) if real else math.nan
        case "stdvar":
            mean = _fold("avg", values, None)
            return sum((v - mean) ** 2 for v in values) / len(values)
        case "stddev":
            return math.sqrt(_fold("stdvar", values, None))
        case "quantile":
            return quantile(parameter, values)
    raise AssertionError(op)


def quantile(q: float, values: list[float]) -> float:
    """Linear interpolation between ranks; NaN is the lowest value."""
    if math.isnan(q) or not values:
        return math.nan
    if q < 0 or q > 1:
        return math.copysign(math.inf, q)
    ordered = sorted(values, key=lambda v: (not math.isnan(v), v))
    rank = q * (len(ordered) - 1)
    lower = math.floor(rank)
    upper = min(len(ordered) - 1, lower + 1)
    weight = rank - lower
    return ordered[lower] * (1 - weight) + ordered[upper] * weight


def _pick(op: str, members: list[Element], k: int) -> list[Element]:
    members = sorted(members, key=lambda e: sorted(e.labels.items()))
    if op != "limitk":
        sign = -1 if op == "topk" else 1
        members = sorted(members, key=lambda e: (math.isnan(e.value), sign * e.value))
    return members[: max(k, 0)]


def _positional(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = format(Decimal(repr(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


# ---- binary operators ------------------------------------------------------------------------------------------

ARITHMETIC = ("+", "-", "*", "/", "%", "^", "atan2")


def arithmetic(op: str, a: float, b: float) -> float:
    """IEEE 754, where Python would raise."""
    match op:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "/":
            if b == 0:
                return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1, b)
            return a / b
        case "%":
            return math.nan if b == 0 or math.isinf(a) else math.fmod(a, b)
        case "atan2":
            return math.atan2(a, b)
    return _power(a, b)


def _power(a: float, b: float) -> float:
    try:
        return math.pow(a, b)
    except OverflowError:
        return -math.inf if a < 0 and b % 2 == 1 else math.inf
    except ValueError:
        if a == 0:
            return math.copysign(math.inf, a) if b % 2 == 1 else math.inf
        return math.nan


def compare(op: str, a: float, b: float) -> bool:
    return {"==": a == b, "!=": a != b, ">": a > b, "<": a < b, ">=": a >= b, "<=": a <= b}[op]


def _binary(node: Binary, lhs: Value, rhs: Value) -> Value:
    op = node.op
    if isinstance(lhs, float) and isinstance(rhs, float):
        return arithmetic(op, lhs, rhs) if op in ARITHMETIC else float(compare(op, lhs, rhs))
    if isinstance(lhs, float) or isinstance(rhs, float):
        return _with_scalar(node, lhs, rhs)
    if op in ("and", "or", "unless"):
        mine, others = ({_group(node.matching, e.labels) for e in side} for side in (lhs, rhs))
        if op == "or":
            return lhs + [e for e in rhs if _group(node.matching, e.labels) not in mine]
        return [e for e in lhs if (_group(node.matching, e.labels) in others) == (op == "and")]
    return _vectors(node, lhs, rhs)


def _with_scalar(node: Binary, lhs: Value, rhs: Value) -> list[Element]:
    out = []
    for element in rhs if isinstance(lhs, float) else lhs:
        a = lhs if isinstance(lhs, float) else element.value
        b = rhs if isinstance(rhs, float) else element.value
        if node.op in ARITHMETIC:
            out.append(Element(element.labels, arithmetic(node.op, a, b), True))
        elif node.return_bool:
            out.append(Element(element.labels, float(compare(node.op, a, b)), True))
        elif compare(node.op, a, b):
            out.append(element)
    return out


def _match_labels(matching: VectorMatching, labels: Labels) -> Labels:
    if matching.on:
        return {k: v for k, v in labels.items() if k in matching.labels}
    return {k: v for k, v in labels.items() if k not in (*matching.labels, NAME)}


def _group(matching: VectorMatching, labels: Labels) -> frozenset[tuple[str, str]]:
    return frozenset(_match_labels(matching, labels).items())


def _vectors(node: Binary, lhs: list[Element], rhs: list[Element]) -> list[Element]:
    matching = node.matching
    fill_many, fill_one = matching.fill_left, matching.fill_right
    if (not lhs and not rhs) or ((not lhs or not rhs) and fill_many is None and fill_one is None):
        return []
    swapped = matching.cardinality is Cardinality.ONE_TO_MANY
    many, one = (rhs, lhs) if swapped else (lhs, rhs)
    ones: dict[frozenset[tuple[str, str]], Element] = {}
    for element in one:
        key = _group(matching, element.labels)
        if key in ones:
            raise OracleError("found duplicate series for the match group")
        ones[key] = element
    matched: dict[frozenset[tuple[str, str]], set[frozenset[tuple[str, str]]]] = {}
    out: list[Element] = []

    def combine(key: frozenset[tuple[str, str]], on_many: Element, on_one: Element) -> None:
        a, b = (on_one.value, on_many.value) if swapped else (on_many.value, on_one.value)
        labels = _result_labels(node, on_many.labels, on_one.labels)
        seen = matched.setdefault(key, set())
        if seen and matching.cardinality is Cardinality.ONE_TO_ONE:
            raise OracleError("multiple matches for labels: many-to-one matching must be explicit")
        if frozenset(labels.items()) in seen:
            raise OracleError("multiple matches for labels: grouping labels must ensure unique matches")
        seen.add(frozenset(labels.items()))
        if node.op in ARITHMETIC:
            out.append(Element(labels, arithmetic(node.op, a, b)))
        elif node.return_bool:
            out.append(Element(labels, float(compare(node.op, a, b)), True))
        elif compare(node.op, a, b):
            out.append(Element(labels, a, on_many.drop_name))

    for element in many:
        key = _group(matching, element.labels)
        if key in ones:
            combine(key, element, ones[key])
        elif fill_one is not None:
            combine(key, element, Element(_match_labels(matching, element.labels), fill_one))
    for key, element in ones.items():
        if fill_many is not None and key not in matched:
            combine(key, Element(_match_labels(matching, element.labels), fill_many), element)
    return out


def _result_labels(node: Binary, many: Labels, one: Labels) -> Labels:
    matching = node.matching
    labels = {k: v for k, v in many.items() if node.op not in ARITHMETIC or k not in METADATA}
    if matching.cardinality is Cardinality.ONE_TO_ONE:
        labels = {k: v for k, v in labels.items() if (k in matching.labels) == matching.on}
    for name in matching.include:
        labels.pop(name, None)
        if one.get(name):
            labels[name] = one[name]
    return labels
