"""Random PromQL expressions, for Debian's Prometheus 2.42 and Tabor to be asked over the same data.

Tabor answers as Prometheus 3.14. What 2.42 answers otherwise does not come up:

- Ranges and the lookback are open on the left, in 2.42 closed. Samples lie 250 ms behind the second,
  evaluation times and `@` 370 ms behind it, and durations are whole seconds, so no sample lies on an edge. Ranges
  of subqueries have 3 ms more, so that no step of theirs does.
- The name of a metric goes at the end, in 2.42 at once. An expression has series of one name only, none is matched
  or grouped by, and `or` has names on both sides, or on both sides none, or on both those that are going.
- Rates near zero, and those of series that begin within the window, are extrapolated otherwise. So rates are of
  counters that are far from zero, and those that are reset have no gaps.
- atan2 keeps names in 2.42 (https://github.com/prometheus/prometheus/pull/12595), so it is given what has none.
- 2.42 has another calendar of what is not a number, and stddev and stdvar of a NaN are 0; they are given samples.
- A comparison that filters refuses many elements on one side in 2.42 only if it keeps them; it has no matching.
- predict_linear with `@` slides along in 2.42.
- Functions that 2.42 does not have or calls otherwise are left out, and native histograms.

Besides, the last bits of a mean or a logarithm are nobody's promise: what compares, rounds, counts or takes a
remainder is given expressions on whose every bit two implementations agree, and topk samples that all differ.
"""

from __future__ import annotations

import random
import re
from enum import Enum
from typing import NamedTuple

BEGIN_MS = 1_790_000_000_250
"""Time of the first sample."""
INTERVAL_S = 15
N_SAMPLES = 160
EVALUATION_MS = 370
STALE_BITS = 0x7FF0000000000002

COUNTERS = ("c", "r")
NAMES = (*COUNTERS, "g", "s", "h_bucket")


class Series(NamedTuple):
    """Labels, and samples as (timestamp, value); None is a stale marker."""

    labels: dict[str, str]
    samples: list[tuple[int, float | None]]


def data(seed: int) -> list[Series]:
    """Series of all names, with gaps and stale markers but for `r`; values are quarters, so that sums are exact.

    c: counters that begin at any time. r: counters that are reset. g: gauges, no two samples alike. s: small whole
    numbers. h_bucket: classic histograms.
    """
    dice = random.Random(f"data {seed}")
    different = iter(dice.sample(range(-200_000, 200_000), 9 * N_SAMPLES))
    out = []
    for name in ("c", "r", "g", "s"):
        for x in ("1", "2", ""):
            for y in ("1", "2", "3"):
                value, samples = dice.randrange(40_000, 80_000) / 4, []
                present = True
                first = 0 if name == "r" else dice.choice((0, 0, 30, 80))
                for n in range(first, N_SAMPLES):
                    value += dice.randrange(40) / 4
                    if name == "r" and dice.random() < 0.02:
                        value = 10_000.0
                    taken = value
                    if name in "gs":
                        taken = next(different) / 4 if name == "g" else float(dice.randrange(-2, 5))
                    was, present = present, name == "r" or dice.random() < (0.95 if present else 0.3)
                    if present or (was and dice.random() < 0.5):
                        samples.append((BEGIN_MS + n * INTERVAL_S * 1000, taken if present else None))
                out.append(Series({"__name__": name, "x": x, "y": y}, samples))
    for y in ("1", "2"):
        totals = [0.0, 0.0, 0.0, 0.0]
        rows: list[list[tuple[int, float | None]]] = [[], [], [], []]
        for n in range(N_SAMPLES):
            for i in range(dice.randrange(4), 4):
                totals[i] += float(dice.randrange(1, 6)) * (i + 1)
            for row, total in zip(rows, totals, strict=True):
                row.append((BEGIN_MS + n * INTERVAL_S * 1000, 40_000 + 10_000 * rows.index(row) + total))
        for le, row in zip(("0.5", "1", "2.5", "+Inf"), rows, strict=True):
            out.append(Series({"__name__": "h_bucket", "y": y, "le": le}, row))
    return [Series({k: v for k, v in one.labels.items() if v}, one.samples) for one in out if one.samples]


class Named(Enum):
    """Whether the elements of a vector have the name of their metric."""

    YES = 1
    GOING = 2
    NO = 3


class Vector(NamedTuple):
    text: str
    named: Named


ARITHMETIC = ("+", "-", "*", "/")
INEXACT_ARITHMETIC = (*ARITHMETIC, "^", "atan2")
COMPARISONS = ("==", "!=", "<", ">", "<=", ">=")
EXACT_FUNCTIONS = ("abs", "ceil", "floor", "sgn", "timestamp")
INEXACT_FUNCTIONS = (
    *("sqrt", "exp", "ln", "log2", "log10", "deg", "rad", "sin", "cos", "tan", "asin", "acos", "atan"),
    *("sinh", "cosh", "tanh", "asinh", "acosh", "atanh"),
)
DATES = ("minute", "hour", "day_of_week", "day_of_month", "day_of_year", "days_in_month", "month", "year")
KEEPING = ("last_over_time",)
EXACT_WINDOWS = tuple(f"{what}_over_time" for what in ("min", "max", "count", "sum", "present", "last"))
INEXACT_WINDOWS = (
    *("avg_over_time", "stddev_over_time", "stdvar_over_time", "quantile_over_time", "deriv", "predict_linear"),
    *("delta", "idelta", "changes", "resets", "rate", "irate", "increase"),
)
RANGES = ("40s", "1m", "2m", "5m", "11m")


class Expressions:
    """Makes expressions; those that have the same seed and number are the same."""

    def __init__(self, seed: int, number: int) -> None:
        self._dice = random.Random(f"expression {seed} {number}")

    def any(self) -> tuple[str, bool]:
        """An expression of any type, mostly a vector, and whether it may be asked for at many times."""
        kind = self._dice.random()
        if kind < 0.04:
            return self.scalar(2), True
        if kind < 0.08:
            return self.window(self._one(NAMES), 1, exact=False)[0], False
        return self.vector(self._dice.choice((1, 2, 2, 3, 3, 4)), exact=False).text, True

    def _one(self, of: tuple[str, ...] | list[str]) -> str:
        return self._dice.choice(of)

    def _chance(self, probability: float) -> bool:
        return self._dice.random() < probability

    def modifiers(self) -> str:
        """`offset` and `@`, or nothing."""
        text = ""
        if self._chance(0.15):
            text += f" offset {self._one(('47s', '-90s', '3m', '13s', '8m'))}"
        if self._chance(0.1):
            at = (BEGIN_MS // 1000 + self._dice.randrange(N_SAMPLES * INTERVAL_S)) + EVALUATION_MS / 1000
            text += f" @ {self._one((f'{at:.3f}', 'start()', 'end()'))}"
        return text

    def matchers(self) -> str:
        label, value = self._one(("x", "y")), self._one(("1", "2", "", "1|2", ".+", "[13]"))
        plain = value.isalnum() or not value
        op = self._one(("=", "!=", "=~", "!~")) if plain else self._one(("=~", "!~"))
        return "{" + f'{label}{op}"{value}"' + "}" if self._chance(0.4) else ""

    def selector(self, name: str) -> str:
        return name + self.matchers() + self.modifiers()

    def window(self, name: str, depth: int, *, exact: bool, plain: bool = False) -> tuple[str, Named]:
        """A range vector; a plain one is of samples or of a selector."""
        if depth == 0 or self._chance(0.6):
            return f"{name}{self.matchers()}[{self._one(RANGES)}]{self.modifiers()}", Named.YES
        inner = Vector(self.selector(name), Named.YES) if plain else self.vector(depth - 1, exact, name)
        step = self._one(("", "10s", "30s", "1m", "45s"))
        # A range below the step may have no step in it; 2.42 then takes one behind it for what has an `@`.
        range_ = self._one(("2m", "5m", "11m"))
        return f"({inner.text})[{range_}3ms:{step}]{self.modifiers()}", inner.named

    def scalar(self, depth: int) -> str:
        """Numbers, of which few are zero."""
        kind = self._dice.randrange(6) if depth else 0
        if kind == 1:
            return f"scalar({self.vector(depth - 1, exact=True).text})"
        if kind == 2:
            return f"({self.scalar(depth - 1)} {self._one(ARITHMETIC)} {self.scalar(depth - 1)})"
        if kind == 3:
            return f"({self.scalar(depth - 1)} {self._one(COMPARISONS)} bool {self.scalar(depth - 1)})"
        return self._one(("1", "2", "-0.5", "0.25", "1e3", "0", "3", "100", "-7", "time()", "pi()"))

    def labels(self) -> str:
        return ", ".join(self._dice.sample(("x", "y", "z"), self._dice.randrange(3)))

    def vector(self, depth: int, exact: bool, name: str | None = None) -> Vector:
        """An instant vector; see the module for `exact`."""
        name = name or self._one(NAMES)
        if depth == 0:
            return Vector(self.selector(name), Named.YES)
        makers = [self._call, self._windowed, self._fold, self._with_scalar, self._vectors, self._set, self._other]
        return self._dice.choice(makers)(depth - 1, exact, name)

    def _call(self, depth: int, exact: bool, name: str) -> Vector:
        inner = self.vector(depth, True, name)
        kind = self._dice.randrange(7)
        if kind == 0:
            return Vector(f"-{inner.text}" if depth == 0 else f"-({inner.text})", gone(inner))
        if kind == 1:
            low, high = sorted(self._dice.sample(range(-100, 100), 2))
            call = self._one(
                (f"clamp({{}}, {low}, {high})", f"clamp_min({{}}, {low})", f"clamp_max({{}}, {high})")
            )
            return Vector(call.format(inner.text), gone(inner))
        if kind == 2:
            return Vector(f"round({inner.text}{self._one(('', ', 0.5', ', 4', ', -2'))})", gone(inner))
        if kind == 3:
            return Vector(f"{self._one(DATES)}({self.selector(name)})", Named.GOING)
        if kind == 4 and not exact:
            return Vector(f"{self._one(INEXACT_FUNCTIONS)}({inner.text})", gone(inner))
        return Vector(f"{self._one(EXACT_FUNCTIONS)}({inner.text})", gone(inner))

    def _windowed(self, depth: int, exact: bool, name: str) -> Vector:
        function = self._one(EXACT_WINDOWS if exact else EXACT_WINDOWS + INEXACT_WINDOWS)
        rate = function in ("rate", "irate", "increase")
        window, named = self.window(self._one(COUNTERS) if rate else name, depth, exact=True, plain=rate)
        if function == "predict_linear":
            # Its own one alone; within a subquery another may stand at the end of what is in brackets.
            window = re.sub(r" @ [^ \]]*$", "", window)
        arguments = {
            "quantile_over_time": f"{self._one(('0', '0.3', '0.5', '1', '1.5', '-1'))}, {window}",
            "predict_linear": f"{window}, {self._one(('0', '60', '3600', '-5'))}",
        }.get(function, window)
        going = named if function in KEEPING or named is Named.NO else Named.GOING
        return Vector(f"{function}({arguments})", going)

    def _fold(self, depth: int, exact: bool, name: str) -> Vector:
        grouping = f" {self._one(('by', 'without'))} ({self.labels()})" if self._chance(0.8) else ""
        kind = self._dice.randrange(6)
        if kind == 0:
            operation = f"{self._one(('topk', 'bottomk'))}{grouping} ({self._one(('0', '1', '2', '5'))}, "
            return Vector(f"{operation}{self.selector('g')})", Named.YES)
        if kind == 1:
            return Vector(f'count_values{grouping} ("{self._one(("v", "x"))}", {self.selector("s")})', Named.NO)
        inner = self.vector(depth, True, name).text
        if kind == 2 and not exact:
            parameter = self._one(("0", "0.3", "0.5", "1", "2", "-0.1"))
            return Vector(f"quantile{grouping} ({parameter}, {inner})", Named.NO)
        if kind == 3 and not exact:
            function = self._one(("avg", "stddev", "stdvar"))
            return Vector(
                f"{function}{grouping} ({inner if function == 'avg' else self.selector(name)})", Named.NO
            )
        # The order of what is added is nobody's promise either, so that only sums of samples are exact.
        if kind == 4:
            return Vector(f"sum{grouping} ({self.selector(name) if exact else inner})", Named.NO)
        return Vector(f"{self._one(('min', 'max', 'count', 'group'))}{grouping} ({inner})", Named.NO)

    def _with_scalar(self, depth: int, exact: bool, name: str) -> Vector:
        compares, keeps = self._chance(0.4), self._chance(0.6)
        inner = self.vector(depth, True, name)
        op = self._one(COMPARISONS if compares else (*ARITHMETIC, "%") if exact else (*INEXACT_ARITHMETIC, "%"))
        sides = [nameless(inner) if op == "atan2" else f"({inner.text})", self.scalar(1)]
        if self._chance(0.4):
            sides.reverse()
        text = f"{sides[0]} {op}{' bool' if compares and not keeps else ''} {sides[1]}"
        return Vector(text, inner.named if compares and keeps else gone(inner))

    def matching(self, *, many: bool) -> str:
        matching = self._one((f"on ({self.labels()})", f"ignoring ({self.labels()})", "", "ignoring (le)"))
        if not many or not matching or self._chance(0.5):
            return matching
        include = [label for label in ("x", "y", "z") if label not in matching and self._chance(0.3)]
        return f"{matching} {self._one(('group_left', 'group_right'))} ({', '.join(include)})"

    def _vectors(self, depth: int, exact: bool, name: str) -> Vector:
        compares = self._chance(0.3)
        lhs, rhs = (self.vector(depth, True, name if compares else self._one(NAMES)) for _ in range(2))
        if not compares:
            op = self._one(ARITHMETIC if exact else INEXACT_ARITHMETIC)
            sides = [nameless(side) if op == "atan2" else f"({side.text})" for side in (lhs, rhs)]
            return Vector(f"{sides[0]} {op} {self.matching(many=True)} {sides[1]}", Named.NO)
        if lhs.named is rhs.named and self._chance(0.7):
            return Vector(f"({lhs.text}) {self._one(COMPARISONS)} ({rhs.text})", lhs.named)
        matching = self.matching(many=True)
        many = rhs if "group_right" in matching else lhs
        named = Named.NO if matching.startswith("on") and "group" not in matching else gone(many)
        return Vector(f"({lhs.text}) {self._one(COMPARISONS)} bool {matching} ({rhs.text})", named)

    def _set(self, depth: int, exact: bool, name: str) -> Vector:
        lhs, rhs = self.vector(depth, exact, name), self.vector(depth, exact, name)
        op = self._one(("and", "unless", "or") if lhs.named is rhs.named else ("and", "unless"))
        return Vector(f"({lhs.text}) {op} {self.matching(many=False)} ({rhs.text})", lhs.named)

    def _other(self, depth: int, exact: bool, name: str) -> Vector:
        inner = self.vector(depth, exact, name)
        kind = self._dice.randrange(7)
        if kind == 0:
            return Vector(f"vector({self.scalar(1)})", Named.NO)
        if kind == 1:
            return Vector(f"absent({inner.text})", Named.NO)
        if kind == 2:
            window, _ = self.window(name, depth, exact=True)
            return Vector(f"absent_over_time({window})", Named.NO)
        if kind == 3 and not exact:
            q = self._one(("0.5", "0.9", "0", "1", "-1", "0.99"))
            inner = self._one(
                ("rate(h_bucket[5m])", "sum by (le) (h_bucket)", "h_bucket", "increase(h_bucket[2m])")
            )
            return Vector(f"histogram_quantile({q}, {inner})", Named.GOING if "sum" not in inner else Named.NO)
        if kind == 4:
            return Vector(f'label_join({inner.text}, "z", "-", "x", "y")', inner.named)
        if kind == 5:
            to, replacement = self._one(("z", "x", "y")), self._one(("$1", "a$1", ""))
            pattern = self._one(("(.*)", "1", "(2)|3", "(.+)"))
            return Vector(f'label_replace({inner.text}, "{to}", "{replacement}", "y", "{pattern}")', inner.named)
        return Vector(f"{self._one(('sort', 'sort_desc'))}({inner.text})", inner.named)


def nameless(vector: Vector) -> str:
    """The same without names, in 2.42."""
    return f"(({vector.text}) * 1)"


def gone(vector: Vector) -> Named:
    """What is there of the names after an operation that drops them."""
    return Named.NO if vector.named is Named.NO else Named.GOING
