"""Functions of an instant vector that look at one value at a time, and those of dates."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from query.engine.functions.registry import Function, renamed, scalar_of, single_series, vector_of
from query.engine.values import Context, Value, Vector
from query.promql.ast import Call

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_SECONDS_PER_DAY = 86_400
_DAYS_PER_ERA = 146_097  # 400 years


def go_min(a: Floats, b: Floats) -> Floats:
    """The smaller; NaN if either is, unless the other is -Inf (Go's math.Min)."""
    return np.where(np.isneginf(a) | np.isneginf(b), -np.inf, np.minimum(a, b))


def go_max(a: Floats, b: Floats) -> Floats:
    """The greater; NaN if either is, unless the other is +Inf (Go's math.Max)."""
    return np.where(np.isposinf(a) | np.isposinf(b), np.inf, np.maximum(a, b))


def _map(function: Callable[[Floats], Floats], context: Context, args: tuple[Value, ...], call: Call) -> Value:
    vector = vector_of(args[0])
    with np.errstate(all="ignore"):
        return renamed(vector, function(vector.values))


def _sgn(values: Floats) -> Floats:
    return np.where(values == 0, values, np.sign(values))


def _rad(values: Floats) -> Floats:
    return values * np.pi / 180


def _deg(values: Floats) -> Floats:
    return values * 180 / np.pi


def _round(context: Context, args: tuple[Value, ...], call: Call) -> Value:
    vector = vector_of(args[0])
    with np.errstate(all="ignore"):
        # Ties go up, and the inverse loses fewer digits than the number itself (0.1, 0.01).
        inverse = 1.0 / scalar_of(args[1]) if len(args) > 1 else np.float64(1.0)
        return renamed(vector, np.floor(vector.values * inverse + 0.5) / inverse)


def _clamped(vector: Vector, low: Floats, high: Floats) -> Vector:
    with np.errstate(all="ignore"):
        values = go_max(low, go_min(high, vector.values))
        return renamed(vector, values, vector.present & ~(high < low))


def _clamp(context: Context, args: tuple[Value, ...], call: Call) -> Value:
    return _clamped(vector_of(args[0]), scalar_of(args[1]), scalar_of(args[2]))


def _clamp_min(context: Context, args: tuple[Value, ...], call: Call) -> Value:
    low = scalar_of(args[1])
    return _clamped(vector_of(args[0]), low, np.full(low.shape, np.inf))


def _clamp_max(context: Context, args: tuple[Value, ...], call: Call) -> Value:
    high = scalar_of(args[1])
    return _clamped(vector_of(args[0]), np.full(high.shape, -np.inf), high)


def _timestamp(context: Context, args: tuple[Value, ...], call: Call) -> Value:
    """Time of the evaluation. Of a plain selector the evaluator gives the samples' own times itself."""
    vector = vector_of(args[0])
    return renamed(vector, np.broadcast_to(context.steps / 1000, vector.values.shape))


def _nothing(context: Context, args: tuple[Value, ...], call: Call) -> Value:
    """Samples are kept without the times at which they started."""
    vector = vector_of(args[0])
    return renamed(vector, vector.values, np.zeros_like(vector.present))


def _civil(seconds: Integers) -> tuple[Integers, Integers, Integers, Integers]:
    """Year, month, day and days since 1970 of Unix seconds, in the proleptic Gregorian calendar.

    Source: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days: years begin on March 1.
    """
    days = seconds // _SECONDS_PER_DAY
    shifted = days + 719_468
    era = shifted // _DAYS_PER_ERA
    day_of_era = shifted - era * _DAYS_PER_ERA
    year_of_era = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month + 2) // 5 + 1
    month = np.where(month < 10, month + 3, month - 9)
    return year_of_era + era * 400 + (month <= 2), month, day, days


def _is_leap(year: Integers) -> NDArray[np.bool_]:
    leap: NDArray[np.bool_] = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    return leap


_DAYS_BEFORE_MONTH = np.cumsum([0, 0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30])
_DAYS_IN_MONTH = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])


def _year(seconds: Integers) -> Integers:
    return _civil(seconds)[0]


def _month(seconds: Integers) -> Integers:
    return _civil(seconds)[1]


def _day_of_month(seconds: Integers) -> Integers:
    return _civil(seconds)[2]


def _day_of_week(seconds: Integers) -> Integers:
    return (seconds // _SECONDS_PER_DAY + 4) % 7


def _day_of_year(seconds: Integers) -> Integers:
    year, month, day, _ = _civil(seconds)
    return _DAYS_BEFORE_MONTH[month] + day + (_is_leap(year) & (month > 2))


def _days_in_month(seconds: Integers) -> Integers:
    year, month, _, _ = _civil(seconds)
    days: Integers = _DAYS_IN_MONTH[month] + (_is_leap(year) & (month == 2))
    return days


def _hour(seconds: Integers) -> Integers:
    return seconds % _SECONDS_PER_DAY // 3600


def _minute(seconds: Integers) -> Integers:
    return seconds % 3600 // 60


def _date(part: Callable[[Integers], Integers], context: Context, args: tuple[Value, ...], call: Call) -> Value:
    if not args:
        # Go divides towards zero.
        seconds = np.trunc(context.steps / 1000).astype(np.int64)
        return single_series(context.pool, {}, part(seconds).astype(np.float64))
    vector = vector_of(args[0])
    with np.errstate(all="ignore"):
        return renamed(vector, part(vector.values.astype(np.int64)).astype(np.float64))


_MATH: dict[str, Callable[[Floats], Floats]] = {
    "abs": np.abs,
    "acos": np.arccos,
    "acosh": np.arccosh,
    "asin": np.arcsin,
    "asinh": np.arcsinh,
    "atan": np.arctan,
    "atanh": np.arctanh,
    "ceil": np.ceil,
    "cos": np.cos,
    "cosh": np.cosh,
    "deg": _deg,
    "exp": np.exp,
    "floor": np.floor,
    "ln": np.log,
    "log10": np.log10,
    "log2": np.log2,
    "rad": _rad,
    "sgn": _sgn,
    "sin": np.sin,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "tan": np.tan,
    "tanh": np.tanh,
}

_DATES: dict[str, Callable[[Integers], Integers]] = {
    "day_of_month": _day_of_month,
    "day_of_week": _day_of_week,
    "day_of_year": _day_of_year,
    "days_in_month": _days_in_month,
    "hour": _hour,
    "minute": _minute,
    "month": _month,
    "year": _year,
}

FUNCTIONS: dict[str, Function] = {
    **{name: partial(_map, function) for name, function in _MATH.items()},
    **{name: partial(_date, part) for name, part in _DATES.items()},
    "clamp": _clamp,
    "clamp_max": _clamp_max,
    "clamp_min": _clamp_min,
    "round": _round,
    "start_timestamp": _nothing,
    "timestamp": _timestamp,
}
