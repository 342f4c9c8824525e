"""Answers are the same up to a part in a million."""

from __future__ import annotations

from typing import Any

import pytest

from bench.answers import difference


def vector(*series: tuple[str, str]) -> dict[str, Any]:
    rows = [{"metric": {"i": name}, "value": [1.0, text]} for name, text in series]
    return {"resultType": "vector", "result": rows}


def test_order_and_the_last_digits_do_not_matter() -> None:
    assert difference(vector(("a", "1"), ("b", "NaN")), vector(("b", "NaN"), ("a", "1.0000005"))) is None


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (vector(("a", "1.00001")), "1.00001 instead of 1.0"),
        (vector(("a", "NaN")), "nan instead of 1.0"),
        (vector(), "missing"),
        (vector(("a", "1"), ("b", "1")), "too much"),
        ({"resultType": "scalar", "result": [1.0, "1"]}, "a scalar instead of a vector"),
        ({"resultType": "vector", "result": [{"metric": {"i": "a"}, "value": [2.0, "1"]}]}, "other times"),
    ],
)
def test_any_other_difference_is_told(found: dict[str, Any], said: str) -> None:
    text = difference(vector(("a", "1")), found)
    assert text is not None
    assert said in text
