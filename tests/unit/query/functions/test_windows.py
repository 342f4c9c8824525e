"""Functions of a range vector, rule by rule."""

from __future__ import annotations

import math

import pytest

from query.engine.values import EvalError
from query.promql.ast import MatrixSelector, Paren, Span, VectorSelector
from tests.unit.query.functions.build import call, cells, context, one, range_vector, rows, run

MINUTE = 60_000


def regular(*values: float, start: int = 0, step: int = 5 * MINUTE) -> list[tuple[int, float]]:
    return [(start + i * step, value) for i, value in enumerate(values)]


def over(name: str, samples: list[tuple[int, float]], end: int, range_ms: int, *more: float) -> float | None:
    return one(run(name, range_vector([({}, samples)], [end], range_ms), *more, at=context([end])))


def test_a_window_is_open_on_the_left_and_closed_on_the_right():
    samples = regular(1, 2, 3)
    assert over("count_over_time", samples, 10 * MINUTE, 5 * MINUTE) == 1
    assert over("count_over_time", samples, 10 * MINUTE, 5 * MINUTE + 1) == 2
    assert over("sum_over_time", samples, 5 * MINUTE - 1, 5 * MINUTE) == 1


def test_an_empty_window_gives_nothing():
    assert over("sum_over_time", regular(1), 60 * MINUTE, MINUTE) is None
    assert over("count_over_time", regular(1), -MINUTE, MINUTE) is None


@pytest.mark.parametrize("name", ["rate", "increase", "delta", "irate", "idelta", "deriv"])
def test_what_needs_two_samples_gives_nothing_for_one(name):
    assert over(name, regular(1, 2), 5 * MINUTE, 5 * MINUTE) is None


def test_windows_may_all_be_the_same():
    argument = range_vector([({}, regular(0, 10, 20))], [10 * MINUTE] * 3, 15 * MINUTE)
    assert cells(run("increase", argument, at=context([0, 1, 2]))) == [[20.0] * 3]


def test_an_increase_reaches_to_edges_that_are_near():
    assert over("increase", regular(*range(0, 110, 10)), 50 * MINUTE, 50 * MINUTE) == pytest.approx(100)


def test_an_increase_reaches_half_an_interval_towards_edges_that_are_far():
    assert over("increase", regular(*range(10, 120, 10)), 50 * MINUTE, 100 * MINUTE) == pytest.approx(105)


def test_a_counter_is_not_taken_back_beyond_zero():
    assert over("increase", regular(*range(1, 111, 10)), 50 * MINUTE, 100 * MINUTE) == pytest.approx(101)
    assert over("delta", regular(*range(1, 111, 10)), 50 * MINUTE, 100 * MINUTE) == pytest.approx(105)


def test_a_fall_of_a_counter_counts_as_a_start_from_zero():
    assert over("increase", regular(0, 1, 2, 3, 2, 3, 4), 30 * MINUTE, 30 * MINUTE) == pytest.approx(7)
    assert over("irate", regular(50, 20, step=MINUTE), MINUTE, 2 * MINUTE) == pytest.approx(20 / 60)


def test_a_reset_before_the_window_does_not_count():
    huge_reset = regular(1e15, 0, 1, 2, 3)
    assert over("increase", huge_reset, 20 * MINUTE, 20 * MINUTE) == 3
    assert over("resets", huge_reset, 20 * MINUTE, 20 * MINUTE) == 0


def test_a_gauge_may_fall():
    assert over("delta", regular(200, 150, 100, 50, 0), 20 * MINUTE, 25 * MINUTE) == pytest.approx(-250)
    assert over("idelta", regular(0, 50, 100, 50), 20 * MINUTE, 20 * MINUTE) == -50


def test_a_change_from_nan_to_nan_is_none():
    nan = math.nan
    assert over("changes", regular(nan, nan, nan), 15 * MINUTE, 20 * MINUTE) == 0
    assert over("changes", regular(0, nan, 0), 15 * MINUTE, 20 * MINUTE) == 2


def test_sums_keep_small_terms_beside_large_ones():
    assert over("sum_over_time", regular(1, 1e100, 1, -1e100), 15 * MINUTE, 20 * MINUTE) == 2
    assert over("avg_over_time", regular(1, 1e100, 1, -1e100), 15 * MINUTE, 20 * MINUTE) == 0.5


def test_a_mean_survives_the_overflow_of_its_sum():
    huge = 9.988465674311579e307
    assert over("avg_over_time", regular(huge, huge), 15 * MINUTE, 20 * MINUTE) == huge
    assert over("avg_over_time", regular(-huge, -huge, -huge), 15 * MINUTE, 20 * MINUTE) == -huge
    assert over("sum_over_time", regular(huge, huge), 15 * MINUTE, 20 * MINUTE) == math.inf


def test_equal_values_have_no_variance():
    assert over("stdvar_over_time", regular(*[1.5990505637277868] * 3), 15 * MINUTE, 20 * MINUTE) == 0


def test_extremes_pass_over_nan():
    samples = regular(math.nan, 0, 1)
    assert over("min_over_time", samples, 15 * MINUTE, 20 * MINUTE) == 0
    assert over("max_over_time", samples, 15 * MINUTE, 20 * MINUTE) == 1
    assert math.isnan(over("max_over_time", regular(math.nan), 0, MINUTE) or 0)


def test_of_equal_extremes_the_last_one_tells_the_time():
    assert over("ts_of_max_over_time", regular(3, 1, 3, 2), 15 * MINUTE, 20 * MINUTE) == 600


def test_a_nan_makes_the_median_deviation_nan():
    assert math.isnan(over("mad_over_time", regular(1, 2, math.nan, 4), 15 * MINUTE, 20 * MINUTE) or 0)
    assert math.isnan(over("mad_over_time", regular(1, 2, 3, 4, 5, 6, 7, math.nan), 35 * MINUTE, 60 * MINUTE) or 0)
    assert over("mad_over_time", regular(4, 6, 2, 1, 999, 1, 2), 30 * MINUTE, 40 * MINUTE) == 1


def test_names_stay_with_the_first_and_the_last_sample_only():
    argument = range_vector([({"__name__": "x", "a": "b"}, regular(1))], [0], MINUTE)
    for name in ("first_over_time", "last_over_time"):
        assert rows(run(name, argument)) == [({"__name__": "x", "a": "b"}, [1.0])]
    for name in ("sum_over_time", "ts_of_last_over_time", "changes"):
        assert rows(run(name, argument))[0][0] == {"a": "b"}


def test_a_line_through_constant_values_is_flat():
    assert over("deriv", regular(5, 5, 5), 10 * MINUTE, 20 * MINUTE) == 0
    assert math.isnan(over("deriv", regular(math.inf, math.inf), 10 * MINUTE, 20 * MINUTE) or 0)


def test_a_prediction_counts_from_the_step_and_not_from_the_windows_end():
    samples = regular(0, 10, 20, 30, 40, 0, 10, 20, 30, 40, 50)
    argument = range_vector([({}, samples)], [50 * MINUTE], 55 * MINUTE)
    at_end = run("predict_linear", argument, 3600.0, at=context([50 * MINUTE]))
    later = run("predict_linear", argument, 3600.0, at=context([70 * MINUTE]))
    assert one(at_end) == pytest.approx(76.81818181818181)
    assert one(later) == pytest.approx(89.54545454545455)


def test_smoothing_factors_lie_between_zero_and_one():
    argument = range_vector([({}, regular(1))], [0], MINUTE)
    with pytest.raises(EvalError, match=r"^invalid smoothing factor. Expected: 0 < sf < 1, got: 1\.000000$"):
        run("double_exponential_smoothing", argument, 1.0, 0.5)
    with pytest.raises(EvalError, match=r"^invalid trend factor. Expected: 0 < tf < 1, got: \+Inf$"):
        run("double_exponential_smoothing", argument, 0.5, math.inf)
    nothing = range_vector([({}, regular(1))], [60 * MINUTE], MINUTE)
    assert one(run("double_exponential_smoothing", nothing, 1.0, 0.5)) is None


def test_what_is_no_quantile_gives_infinity_and_a_warning():
    at = context(query="quantile_over_time(2, x[5m])")
    argument = range_vector([({}, regular(1, 2))], [5 * MINUTE], 10 * MINUTE)
    assert one(run("quantile_over_time", 2, argument, at=at)) == math.inf
    assert one(run("quantile_over_time", -0.5, argument, at=at)) == -math.inf
    assert [warning.split(" (")[0] for warning in at.annotations.warnings] == [
        "PromQL warning: quantile value should be between 0 and 1, got 2",
        "PromQL warning: quantile value should be between 0 and 1, got -0.5",
    ]


def test_no_window_no_warning():
    at = context()
    run("quantile_over_time", 2, range_vector([({}, regular(1))], [60 * MINUTE], MINUTE), at=at)
    assert at.annotations.warnings == []


def test_a_rate_of_what_is_named_like_a_gauge_is_remarked_upon():
    names = ("temperature", "x_total", "x_sum", "x_count", "x_bucket", "")
    argument = range_vector(
        [({"__name__": name, "i": str(i)}, regular(1, 2)) for i, name in enumerate(names)],
        [5 * MINUTE],
        10 * MINUTE,
    )
    at = context(query="rate((temperature[5m]))")
    selector = MatrixSelector(VectorSelector("temperature", ()), 300_000, span=Span(6, 21))
    run("rate", argument, at=at, written=call("rate", Paren(selector, span=Span(5, 22))))
    assert at.annotations.infos == [
        "PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket:"
        ' "temperature" (1:7)'
    ]


def test_nothing_is_remarked_where_there_is_no_rate_or_it_is_not_one():
    at = context()
    argument = range_vector([({"__name__": "temperature"}, regular(1, 2))], [0], MINUTE)
    run("rate", argument, at=at)
    run("delta", range_vector([({"__name__": "t"}, regular(1, 2))], [5 * MINUTE], 10 * MINUTE), at=at)
    assert at.annotations.infos == []
