"""A fold put together from parts is that of the whole, whatever the parts are, and both are right."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.labels import LabelTable
from query.engine.budget import Budget
from query.engine.folding import COLUMNS, Folded, finished, fold, merge, nothing
from query.engine.values import Vector

BUDGET = Budget(1 << 40, 1 << 40, 3600.0)
SPECIAL = st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf])
HUGE = st.sampled_from([1.7e308, -1.7e308, 9e307])
PLAIN = st.one_of(st.integers(-5, 5).map(float), st.floats(1e-3, 1e6), st.floats(-1e6, -1e-3))


def folded(op: str, values: list[float]) -> Folded:
    """Of one group at one step."""
    matrix = np.array(values).reshape(-1, 1)
    labels = LabelTable.of([{"i": str(i)} for i in range(len(values))])
    vector = Vector(labels, matrix, np.ones(matrix.shape, np.bool_), np.zeros(len(values), np.bool_))
    return fold(op, vector, np.zeros(len(values), dtype=np.int64), 1, BUDGET)


def from_parts(op: str, parts: list[list[float]]) -> float:
    total = nothing(op, 1, 1)
    for part in parts:
        if part:
            merge(total, np.zeros(1, dtype=np.int64), folded(op, part))
    return float(finished(total)[0][0, 0])


def bits(value: float) -> object:
    return "NaN" if math.isnan(value) else (value, math.copysign(1.0, value))


@pytest.mark.parametrize("op", sorted(COLUMNS))
@settings(deadline=None, max_examples=150)
@given(st.data())
def test_the_order_and_the_parts_make_no_difference(op: str, data: st.DataObject) -> None:
    kinds = [PLAIN, PLAIN | SPECIAL] + [HUGE, HUGE | SPECIAL] * (op not in ("stddev", "stdvar"))
    parts = data.draw(st.lists(st.lists(data.draw(st.sampled_from(kinds)), max_size=5), min_size=1, max_size=5))
    values = [value for part in parts for value in part]
    if not values:
        return
    whole = float(finished(folded(op, values))[0][0, 0])
    assert bits(from_parts(op, parts)) == bits(whole)
    assert bits(float(finished(folded(op, data.draw(st.permutations(values))))[0][0, 0])) == bits(whole)


@settings(deadline=None, max_examples=300)
@given(st.lists(PLAIN, min_size=1, max_size=9) | st.lists(HUGE, min_size=1, max_size=9))
def test_sums_are_rounded_once(values: list[float]) -> None:
    exact = sum(map(Fraction, values))
    try:
        nearest = float(exact)
    except OverflowError:
        nearest = math.inf if exact > 0 else -math.inf
    assert finished(folded("sum", values))[0][0, 0] == nearest
    mean = float(exact / len(values))
    assert math.isclose(finished(folded("avg", values))[0][0, 0], mean, rel_tol=2**-52, abs_tol=0.0)


@settings(deadline=None, max_examples=300)
@given(st.lists(PLAIN, min_size=1, max_size=9), st.sampled_from([0.0, 1e6, -1e12]))
def test_variances_are_right_to_the_last_bits(values: list[float], moved_by: float) -> None:
    values = [value + moved_by for value in values]
    mean = sum(map(Fraction, values)) / len(values)
    exact = float(sum((Fraction(value) - mean) ** 2 for value in values) / len(values))
    assert math.isclose(finished(folded("stdvar", values))[0][0, 0], exact, rel_tol=2**-51, abs_tol=0.0)


def test_equal_values_do_not_vary_whatever_their_size() -> None:
    for value in (13.3, 1e200, 1e-200):
        assert from_parts("stddev", [[value] * 3, [value] * 5, [value]]) == 0.0
    assert from_parts("stddev", [[1e200, -1e200], [1.0]]) == math.inf
