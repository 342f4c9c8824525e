"""Functions over native histograms."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query.engine.engine import Engine, EngineConfig, QueryResult
from query.engine.values import Vector
from tests.memory_store import MemoryStore
from tests.oracles import native as oracle
from tests.oracles.histogram import NativeHistogram
from tests.unit.query.engine.answers import MINUTE, instant

Sample = NativeHistogram | float


def store(*samples: Sample, name: str = "h_total") -> MemoryStore:
    """One series with a sample a minute, the first at 0."""
    values = [value.encode() if isinstance(value, NativeHistogram) else value for value in samples]
    return MemoryStore([({"__name__": name}, [(k * MINUTE, value) for k, value in enumerate(values)])])


def counter(*counts: float, hint: int = 0) -> NativeHistogram:
    """Buckets (1, 2], (2, 4], … of schema 0."""
    return NativeHistogram(0, sum(counts), 2 * sum(counts), 0.0, 0.0, ((1, len(counts)),), counts, hint=hint)


def custom(bounds: tuple[float, ...], *counts: float) -> NativeHistogram:
    return NativeHistogram(
        -53, sum(counts), sum(counts), positive_spans=((0, len(counts)),), positive=counts, bounds=bounds
    )


def ask(memory: MemoryStore, query: str, time_ms: int) -> QueryResult:
    return Engine(memory, EngineConfig()).instant(query, time_ms)


def only(result: QueryResult) -> NativeHistogram:
    """The one histogram of a vector."""
    value = result.value
    assert isinstance(value, Vector)
    assert value.histograms is not None
    assert value.present.sum() == 1
    return oracle.row(value.histograms.rows, int(value.histograms.index[value.present][0]))


def nothing(result: QueryResult) -> bool:
    value = result.value
    assert isinstance(value, Vector)
    return not value.present.any()


COUNTS = st.lists(st.integers(0, 9).map(float), min_size=3, max_size=3)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(COUNTS, st.sampled_from([0, 0, 1, 2])), min_size=2, max_size=6))
def test_increase_is_the_difference_with_resets_added(drawn: list[tuple[list[float], int]]) -> None:
    samples = [counter(*counts, hint=hint) for counts, hint in drawn]
    window_ms = (len(samples) - 1) * MINUTE
    result = only(ask(store(*samples), f"increase(h_total[{window_ms + 1}ms])", window_ms))
    expected = oracle.increase(samples)
    # The window is a millisecond longer than what was sampled.
    assert result.count == pytest.approx(expected.count, rel=1e-4)
    assert result.sum == pytest.approx(expected.sum, rel=1e-4)
    if all(expected.positive):
        assert result.positive == pytest.approx(expected.positive, rel=1e-4)
    assert result.hint == oracle.GAUGE
    resets = sum(oracle.is_reset(*pair) for pair in pairwise(samples))
    assert instant(store(*samples), f"resets(h_total[{window_ms + 1}ms])", window_ms) == {"{}": float(resets)}


def test_anchored_and_smoothed_ranges_end_at_samples_and_between_them() -> None:
    memory = store(counter(4.0), counter(6.0), counter(3.0))
    assert only(ask(memory, "increase(h_total[2m] anchored)", 2 * MINUTE)).count == 5
    assert only(ask(memory, "delta(h_total[1m] smoothed)", MINUTE + MINUTE // 2)).count == pytest.approx(-0.5)
    # From 5, through 6, to half of what was counted after the reset.
    assert only(ask(memory, "increase(h_total[1m] smoothed)", MINUTE + MINUTE // 2)).count == pytest.approx(2.5)


def test_irate_takes_the_last_two_and_idelta_knows_no_reset() -> None:
    memory = store(counter(1.0), counter(9.0), counter(3.0))
    assert only(ask(memory, "irate(h_total[5m])", 2 * MINUTE)).count == pytest.approx(3 / 60)
    assert only(ask(memory, "idelta(h_total[5m])", 2 * MINUTE)).count == pytest.approx(-6)
    assert ask(memory, "idelta(h_total[5m])", 2 * MINUTE).warnings == [
        'PromQL warning: this native histogram metric is not a gauge: "h_total" (1:8)'
    ]


@pytest.mark.parametrize(
    "function", ["rate", "increase", "delta", "irate", "idelta", "sum_over_time", "avg_over_time"]
)
def test_floats_and_histograms_in_one_window_give_a_warning_and_no_result(function: str) -> None:
    result = ask(store(counter(1.0), 2.0), f"{function}(h_total[5m])", MINUTE)
    assert nothing(result)
    assert result.warnings == [
        'PromQL warning: encountered a mix of histograms and floats for metric name "h_total"'
        f" (1:{len(function) + 2})"
    ]


def test_exponential_and_custom_buckets_in_one_window_give_a_warning_and_no_result() -> None:
    memory = store(counter(1.0), custom((1.0,), 1.0, 1.0), counter(2.0))
    for function in ("rate", "sum_over_time"):
        result = ask(memory, f"{function}(h_total[5m])", 2 * MINUTE)
        assert nothing(result)
        assert [warning.split(":")[1] for warning in result.warnings] == [
            " vector contains a mix of histograms with exponential and custom buckets schemas for metric name"
            f' "h_total" ({1}'
        ]


def test_custom_bounds_in_common_are_kept_with_an_info() -> None:
    memory = store(custom((1.0, 2.0), 1.0, 1.0, 1.0), custom((1.0, 3.0), 2.0, 2.0, 2.0))
    result = ask(memory, "increase(h_total[1m1ms])", MINUTE)
    assert only(result).bounds == (1.0,)
    assert result.infos == ["PromQL info: mismatched custom buckets were reconciled during subtraction (1:10)"]


def test_sums_and_means_over_time_say_when_hints_contradict() -> None:
    memory = store(
        counter(1.0, 3.0), counter(3.0, 5.0, hint=oracle.RESET), counter(5.0, 1.0, hint=oracle.NOT_RESET)
    )
    result = ask(memory, "avg_over_time(h_total[5m])", 2 * MINUTE)
    assert only(result) == replace(oracle.normal(counter(3.0, 3.0)), hint=0)
    assert result.warnings == ["PromQL warning: conflicting counter resets during histogram aggregation (1:15)"]
    assert only(ask(memory, "sum_over_time(h_total[5m])", 2 * MINUTE)).positive == (9.0, 9.0)


def test_statistics_of_floats_leave_histograms_out_and_say_so() -> None:
    memory = store(5.0, counter(1.0), 7.0)
    result = ask(memory, "max_over_time(h_total[5m])", 2 * MINUTE)
    assert isinstance(result.value, Vector)
    assert result.value.values[result.value.present].tolist() == [7.0]
    assert result.infos == [
        "PromQL info: ignored histograms in a range containing both floats and histograms for metric name"
        ' "h_total" (1:15)'
    ]
    assert nothing(ask(store(counter(1.0)), "max_over_time(h_total[5m])", 0))


def test_samples_of_both_kinds_are_counted_picked_and_compared() -> None:
    memory = store(5.0, counter(1.0), counter(1.0), 7.0)
    time_ms = 3 * MINUTE
    assert instant(memory, "count_over_time(h_total[5m])", time_ms) == {"{}": 4.0}
    assert instant(memory, "changes(h_total[5m])", time_ms) == {"{}": 2.0}
    assert instant(memory, "last_over_time(h_total[5m])", time_ms) == {'{__name__="h_total"}': 7.0}
    assert only(ask(memory, "last_over_time(h_total[5m])", 2 * MINUTE)) == oracle.normal(counter(1.0))
    assert only(ask(memory, "first_over_time(h_total[90s])", 2 * MINUTE)) == oracle.normal(counter(1.0))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 9).map(float), min_size=1, max_size=5), st.floats(0.01, 0.99))
def test_a_fraction_undoes_a_quantile(counts: list[float], q: float) -> None:
    memory = store(counter(*counts))
    query = f"histogram_fraction(-Inf, scalar(histogram_quantile({q!r}, h_total)), h_total)"
    (answer,) = instant(memory, query).values()  # type: ignore[attr-defined]
    assert answer == pytest.approx(q)


def test_numbers_of_a_histogram() -> None:
    memory = store(counter(1.0, 1.0))
    assert instant(memory, "histogram_count(h_total)") == {"{}": 2.0}
    assert instant(memory, "histogram_sum(h_total)") == {"{}": 4.0}
    assert instant(memory, "histogram_avg(h_total)") == {"{}": 2.0}
    variance = ((2**0.5 - 2) ** 2 + (8**0.5 - 2) ** 2) / 2
    (found,) = instant(memory, "histogram_stdvar(h_total)").values()  # type: ignore[attr-defined]
    assert found == pytest.approx(variance)
    (deviation,) = instant(memory, "histogram_stddev(h_total)").values()  # type: ignore[attr-defined]
    assert deviation == pytest.approx(variance**0.5)


def test_quantiles_of_classic_and_native_histograms_of_one_name_are_not_given() -> None:
    memory = store(counter(1.0, 1.0), name="h")
    for le, count in (("1", 1.0), ("+Inf", 4.0)):
        memory.add({"__name__": "h", "le": le}, [(0, count)])
    result = ask(memory, "histogram_quantile(0.5, h)", 0)
    assert nothing(result)
    message = 'vector contains a mix of classic and native histograms for metric name "h" (1:25)'
    assert result.warnings == [f"PromQL warning: {message}"]


_CODE = """
import numpy as np
np.seterr(all="ignore")
from tests.unit.query.engine import test_native_functions as tests
memory = tests.store(tests.counter(1.0, 2.0), tests.counter(3.0, 4.0), tests.counter(1.0, 1.0))
assert tests.only(tests.ask(memory, "increase(h_total[2m1ms])", 120000)).count > 5
assert tests.only(tests.ask(memory, "avg_over_time(h_total[5m])", 120000)).count == 4
tests.test_quantiles_of_classic_and_native_histograms_of_one_name_are_not_given()
tests.test_numbers_of_a_histogram()
tests.test_custom_bounds_in_common_are_kept_with_an_info()
"""


def test_functions_give_the_same_without_compiled_kernels() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CODE], env=os.environ | {"NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
