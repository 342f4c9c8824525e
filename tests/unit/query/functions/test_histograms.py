"""Quantiles and fractions of classic histograms."""

from __future__ import annotations

import math

import pytest

from query.engine.functions.gonumbers import format_f, format_g, format_open_metrics, parse_float
from tests.unit.query.functions.build import Vector, context, one, rows, run, vector

LATENCY = {"0.1": 5.0, ".2": 7.0, "1e0": 11.0, "+Inf": 12.0}


def histogram(buckets: dict[str, float], **labels: str) -> Vector:
    return vector([({**labels, "le": bound}, [count]) for bound, count in buckets.items()])


def quantile(q: float, buckets: dict[str, float]) -> float | None:
    return one(run("histogram_quantile", q, histogram(buckets)))


def test_a_quantile_is_interpolated_within_its_bucket():
    assert quantile(0.5, LATENCY) == pytest.approx(0.15)
    assert quantile(0.2, LATENCY) == pytest.approx(0.048)


def test_a_quantile_in_the_highest_bucket_is_the_highest_bound():
    assert quantile(1, LATENCY) == 1


def test_a_lowest_bucket_below_zero_is_not_divided():
    assert quantile(0, {"-.2": 1, "-0.1": 2, "0.3": 2, "+Inf": 3}) == -0.2
    assert quantile(0, {"0": 0, "2": 1, "+Inf": 1}) == 0


@pytest.mark.parametrize("buckets", [{"1": 1, "2": 2}, {"+Inf": 3}, {"1": 0, "+Inf": 0}])
def test_without_an_open_end_or_a_second_bucket_or_observations_there_is_no_quantile(buckets):
    assert math.isnan(quantile(0.5, buckets) or 0)


def test_histograms_are_told_apart_by_all_labels_but_the_bound():
    series = [({"__name__": "h", "job": job, "le": le}, [float(n)]) for job, le, n in (
        ("a", "1", 1), ("b", "1", 2), ("b", "+Inf", 2), ("a", "+Inf", 1))]  # fmt: skip
    result = rows(run("histogram_quantile", 0.5, vector(series)))
    assert sorted(result, key=str) == [({"job": "a"}, [0.5]), ({"job": "b"}, [0.5])]


def test_spellings_of_one_bound_are_one_bucket():
    assert quantile(0.5, {"0.1": 1, "0.2": 1, "2e-1": 1, "2.0e-1": 1, "+Inf": 4}) == pytest.approx(0.15)


def test_each_step_has_the_buckets_that_are_there():
    series = [
        ({"le": "1"}, [1.0, None, None]),
        ({"le": "2"}, [2.0, 2.0, None]),
        ({"le": "+Inf"}, [2.0, 2.0, None]),
    ]
    result = rows(run("histogram_quantile", 1, vector(series), at=context([0, 1, 2], 1)))
    assert result == [({}, [2.0, 2.0, None])]


def test_counts_that_fall_are_raised_and_that_is_said():
    at = context([0], query="f(q, h)")
    falling = histogram({"0.1": 20, "1": 10, "10": 50, "100": 40, "1000": 90, "+Inf": 80}, __name__="h")
    assert one(run("histogram_quantile", 0.5, falling, at=at)) == 8.5
    assert at.annotations.infos == [
        "PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see"
        " https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)"
        ' for metric name "h", from buckets 1 to +Inf, with a max diff of 10, over 1 samples'
        " from 1970-01-01T00:00:00Z to 1970-01-01T00:00:00Z (1:6)"
    ]


def test_a_fall_within_rounding_is_not_worth_a_word():
    at = context()
    run("histogram_quantile", 0.5, histogram({"1": 100, "2": 100 * (1 - 1e-14), "+Inf": 200}), at=at)
    assert at.annotations.infos == []


@pytest.mark.parametrize(("q", "expected"), [(-0.1, -math.inf), (1.01, math.inf)])
def test_what_is_no_quantile_gives_infinity_and_a_warning(q, expected):
    at = context()
    assert one(run("histogram_quantile", q, histogram(LATENCY), at=at)) == expected
    assert at.annotations.warnings == [f"PromQL warning: quantile value should be between 0 and 1, got {q} (1:3)"]


def test_a_wrong_quantile_of_nothing_is_warned_of_too():
    at = context()
    assert rows(run("histogram_quantile", math.nan, vector([]), at=at)) == []
    assert at.annotations.warnings == ["PromQL warning: quantile value should be between 0 and 1, got NaN (1:3)"]


@pytest.mark.parametrize("bound", ["", "Hello"])
def test_a_series_without_a_bound_is_warned_of(bound):
    at = context(query="histogram_quantile(0.8, s)")
    assert rows(run("histogram_quantile", 0.8, vector([({"__name__": "s", "le": bound}, [1.0])]), at=at)) == []
    assert at.annotations.warnings == [
        f'PromQL warning: bucket label "le" is missing or has a malformed value of "{bound}"'
        ' for metric name "s" (1:6)'
    ]


def test_a_fraction_of_observations_lies_between_two_values():
    powers = {"1": 1.0, "2": 3.0, "3": 6.0, "+Inf": 100.0}
    for lower, upper, expected in (
        (0, 1.5, 0.02),
        (-math.inf, math.inf, 1),
        (4, 5, 0),
        (2, 5, 0.03),
        (400, math.inf, 0.94),
        (3, 2, 0),
    ):
        assert one(run("histogram_fraction", lower, upper, histogram(powers))) == pytest.approx(expected)
    assert math.isnan(one(run("histogram_fraction", math.nan, 1, histogram(powers))) or 0)


def test_a_bucket_without_lower_end_is_not_divided():
    below_zero = histogram({"-3": 10, "-2": 12, "-1": 15, "+Inf": 100})
    assert one(run("histogram_fraction", -4, -2, below_zero)) == pytest.approx(0.02)


def test_several_quantiles_are_told_apart_by_a_label():
    result = rows(run("histogram_quantiles", histogram(LATENCY, __name__="h", job="a"), "q", 0, 0.5, 1))
    assert [labels for labels, _ in result] == [{"job": "a", "q": q} for q in ("0.0", "0.5", "1.0")]
    assert [values[0] for _, values in result] == pytest.approx([0, 0.15, 1])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e5", 1e5),
        ("1_0", 10.0),
        ("0x1p-2", 0.25),
        ("0x_1p1", 2.0),
        ("+Inf", math.inf),
        ("-iNf", -math.inf),
        ("infinity", math.inf),
        ("", None),
        (" 1", None),
        ("+nan", None),
        ("1e999", None),
        ("0x10", None),
        ("1__0", None),
        ("0x1p99999", None),
        ("١", None),
    ],
)
def test_numbers_are_read_as_go_reads_them(text, value):
    assert parse_float(text) == value
    assert math.isnan(parse_float("nan") or 0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (100000.0, "100000"),
        (1000000.0, "1e+06"),
        (123456789.0, "1.23456789e+08"),
        (1e21, "1e+21"),
        (0.0001, "0.0001"),
        (0.00001234, "1.234e-05"),
        (-12.5, "-12.5"),
        (1000000.5, "1.0000005e+06"),
        (0.1, "0.1"),
        (-0.0, "-0"),
        (5e-324, "5e-324"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
    ],
)
def test_numbers_are_written_as_go_writes_them(value, text):
    assert format_g(value) == text


def test_numbers_as_labels_show_that_they_are_not_integers():
    assert [format_open_metrics(value) for value in (0, 1, 0.25, 1e6, math.inf)] == [
        "0.0",
        "1.0",
        "0.25",
        "1e+06",
        "+Inf",
    ]
    assert format_f(0.5) == "0.500000"
