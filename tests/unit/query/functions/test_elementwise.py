"""Functions of one value at a time, dates and scalars."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query.engine.values import Scalar
from tests.unit.query.functions.build import cells, context, one, rows, run, vector

nan, inf = math.nan, math.inf


def apply(name: str, value: float, *more: float) -> float | None:
    return one(run(name, vector([({}, [value])]), *more))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("abs", -2.5, 2.5),
        ("ceil", -2.5, -2),
        ("floor", -2.5, -3),
        ("exp", 1, math.e),
        ("ln", 0, -inf),
        ("log2", 8, 3),
        ("log10", 1000, 3),
        ("sqrt", 9, 3),
        ("sgn", -50, -1),
        ("sgn", inf, 1),
        ("deg", math.pi, 180),
        ("rad", 180, math.pi),
        ("asin", 1, math.pi / 2),
        ("acosh", 1, 0),
        ("atanh", 1, inf),
        ("cosh", 0, 1),
        ("round", 2.5, 3),
        ("round", -2.5, -2),
        ("round", inf, inf),
    ],
)
def test_mathematics(name, value, expected):
    assert apply(name, value) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(("name", "value"), [("ln", -1), ("sqrt", -1), ("acos", 2), ("acosh", 0), ("sgn", nan)])
def test_what_is_not_defined_is_nan(name, value):
    assert math.isnan(apply(name, value) or 0)


def test_rounding_goes_to_the_nearest_multiple_and_upwards_from_the_middle():
    assert apply("round", 0.25, 0.1) == pytest.approx(0.3, rel=1e-15)
    assert apply("round", 12, 5) == 10
    assert apply("round", 12.5, 5) == 15


def test_values_lose_their_name_but_not_their_gaps():
    argument = vector([({"__name__": "x", "a": "1"}, [4.0, None])])
    assert rows(run("sqrt", argument, at=context([0, 1], 1))) == [({"a": "1"}, [2.0, None])]


def test_a_clamp_keeps_values_between_its_bounds():
    assert [apply("clamp", value, -25, 75) for value in (-50, 0, 100)] == [-25, 0, 75]
    assert apply("clamp_min", -50, -20) == -20
    assert apply("clamp_max", 100, 70) == 70
    assert math.isnan(apply("clamp", nan, 0, 1) or 0)


def test_a_clamp_whose_bounds_are_crossed_gives_nothing():
    bounds = Scalar(np.array([0.0, 5.0])), Scalar(np.array([1.0, -5.0]))
    assert cells(run("clamp", vector([({}, [7.0, 7.0])]), *bounds, at=context([0, 1], 1))) == [[1.0, None]]


def test_a_clamp_by_nan_is_nan():
    assert math.isnan(apply("clamp_max", 3, nan) or 0)


@pytest.mark.parametrize("name", ["histogram_avg", "histogram_count", "histogram_sum", "start_timestamp"])
def test_floats_have_nothing_of_a_native_histogram(name):
    assert apply(name, 1) is None


def test_the_timestamp_of_a_calculated_value_is_that_of_the_step():
    assert cells(run("timestamp", vector([({}, [1.0, 1.0])]), at=context([1500, 3000], 1500))) == [[1.5, 3.0]]


@settings(deadline=None, max_examples=200)
@given(seconds=st.integers(-62135596800, 253402300799))
def test_dates_agree_with_the_calendar(seconds):
    date = datetime.fromtimestamp(seconds, UTC)
    next_month = datetime(
        date.year + date.month // 12 if date.year < 9999 else 1, date.month % 12 + 1, 1, tzinfo=UTC
    )
    expected = {
        "year": date.year,
        "month": date.month,
        "day_of_month": date.day,
        "day_of_week": date.isoweekday() % 7,
        "day_of_year": date.timetuple().tm_yday,
        "hour": date.hour,
        "minute": date.minute,
        "days_in_month": 31
        if date.month == 12
        else (next_month - datetime(date.year, date.month, 1, tzinfo=UTC)).days,
    }
    assert {name: apply(name, float(seconds)) for name in expected} == expected


def test_a_date_without_argument_is_that_of_the_step():
    assert rows(run("year", at=context([0, 1230768000000], 1))) == [({}, [1970, 2009])]


def test_a_scalar_is_the_only_value_of_a_vector_or_nan():
    argument = vector([({"a": "1"}, [1.0, None, 3.0]), ({"a": "2"}, [None, None, 4.0])])
    result = run("scalar", argument, at=context([0, 1, 2], 1))
    assert isinstance(result, Scalar)
    assert str(result.values.tolist()) == "[1.0, nan, nan]"
    empty = run("scalar", vector([]), at=context([0]))
    assert isinstance(empty, Scalar)
    assert math.isnan(empty.values[0])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("time", [10, 15, 20]),
        ("start", [10] * 3),
        ("end", [20] * 3),
        ("range", [10] * 3),
        ("step", [5] * 3),
        ("pi", [math.pi] * 3),
    ],
)
def test_scalars_of_the_query(name, expected):
    result = run(name, at=context([10_000, 15_000, 20_000], 5000))
    assert isinstance(result, Scalar)
    assert result.values.tolist() == expected


def test_a_scalar_becomes_a_vector_without_labels():
    assert rows(run("vector", 3)) == [({}, [3.0])]


@pytest.mark.parametrize(("a", "b"), [(nan, 3.0), (3.0, nan)])
def test_the_greater_of_nan_and_a_number_is_nan(a, b):
    for name in ("min_of", "max_of"):
        result = run(name, a, b)
        assert isinstance(result, Scalar)
        assert math.isnan(result.values[0])


def test_infinity_beats_nan_as_in_go():
    result = run("max_of", nan, inf)
    assert isinstance(result, Scalar)
    assert result.values[0] == inf
