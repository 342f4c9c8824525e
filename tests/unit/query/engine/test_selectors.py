"""What instant selectors, range selectors and subqueries see of the samples."""

from __future__ import annotations

import threading

import pytest

from common.store import TooManySamples
from query.engine.budget import Budget
from query.engine.engine import Engine, EngineConfig, QueryCancelled, QueryTimeout, WrongRange
from tests.memory_store import MemoryStore
from tests.unit.query.engine.answers import MINUTE, STALE, instant, over_range, series

COUNTER = MemoryStore([({"__name__": "m"}, [(k * 10_000, float(k)) for k in range(100)])])


def test_an_instant_selector_takes_the_latest_sample() -> None:
    assert instant(COUNTER, "m", 19_999) == {'{__name__="m"}': 1.0}
    assert instant(COUNTER, "m", 20_000) == {'{__name__="m"}': 2.0}


def test_the_lookback_window_is_open_on_the_left() -> None:
    store = series("m 7")
    assert instant(store, "m", 299_999) == {'{__name__="m"}': 7.0}
    assert instant(store, "m", 300_000) == {}


def test_the_lookback_of_a_query_overrides_the_default() -> None:
    result = Engine(series("m 7"), EngineConfig()).instant("m", 5_000, lookback_ms=5_000)
    assert len(result.value.labels) == 0


def test_a_stale_marker_ends_a_series_until_the_next_sample() -> None:
    store = series("m 1 stale 3")
    assert over_range(store, "m", 3 * MINUTE) == {'{__name__="m"}': [1.0, None, 3.0, 3.0]}


def test_an_ordinary_nan_is_a_value() -> None:
    assert instant(series("m nan"), "m") == {'{__name__="m"}': "NaN"}


def test_a_range_selector_is_open_on_the_left_and_leaves_stale_markers_out() -> None:
    store = series("m 1 2 stale 4")
    assert instant(store, "m[3m]", 3 * MINUTE) == {'{__name__="m"}': [(MINUTE, 2.0), (3 * MINUTE, 4.0)]}


def test_a_series_with_stale_markers_only_is_not_in_a_range() -> None:
    assert instant(MemoryStore([({"__name__": "m"}, [(5, STALE)])]), "m[1m]", 10) == {}


def test_an_offset_looks_back_and_a_negative_one_ahead() -> None:
    assert instant(COUNTER, "m offset 50s", 100_000) == {'{__name__="m"}': 5.0}
    assert instant(COUNTER, "m offset -50s", 100_000) == {'{__name__="m"}': 15.0}


def test_at_fixes_the_time_for_all_steps() -> None:
    assert over_range(COUNTER, "m @ 100", 2 * MINUTE) == {'{__name__="m"}': [10.0, 10.0, 10.0]}
    assert over_range(COUNTER, "m @ end() offset 20s", 2 * MINUTE) == {'{__name__="m"}': [10.0, 10.0, 10.0]}


def test_start_and_end_in_a_subquery_are_those_of_the_query() -> None:
    assert over_range(COUNTER, "max_over_time((m @ end())[1m:10s])", MINUTE) == {"{}": [6.0, 6.0]}


def test_subquery_steps_are_multiples_of_the_step_and_leave_the_left_edge_out() -> None:
    found = instant(COUNTER, "m[30s:10s]", 105_000)
    assert found == {'{__name__="m"}': [(80_000, 8.0), (90_000, 9.0), (100_000, 10.0)]}
    assert instant(COUNTER, "m[30s:10s]", 100_000) == {
        '{__name__="m"}': [(80_000, 8.0), (90_000, 9.0), (100_000, 10.0)]
    }


def test_subquery_steps_before_the_epoch_are_multiples_too() -> None:
    store = MemoryStore([({"__name__": "m"}, [(-60_000, 1.0)])])
    assert instant(store, "m[25s:10s]", -30_000) == {
        '{__name__="m"}': [(-50_000, 1.0), (-40_000, 1.0), (-30_000, 1.0)]
    }


def test_a_subquery_without_a_step_uses_the_default() -> None:
    assert instant(COUNTER, "m[2m:]", 130_000) == {'{__name__="m"}': [(60_000, 6.0), (120_000, 12.0)]}


def test_a_subquery_that_holds_no_step_gives_nothing() -> None:
    assert instant(COUNTER, "sum_over_time(m[5s:10s])", 8_000) == {}


def test_timestamp_of_a_selector_is_that_of_the_sample() -> None:
    assert instant(COUNTER, "timestamp(m)", 15_000) == {"{}": 10.0}
    assert instant(COUNTER, "timestamp((m @ 25))", 90_000) == {"{}": 20.0}
    assert instant(COUNTER, "timestamp(-m)", 15_000) == {"{}": 15.0}


def test_selectors_with_equal_matchers_share_one_read() -> None:
    store = series("m 1 2 3")
    instant(store, "sum_over_time(m[2m]) + m + m offset 1m", 2 * MINUTE)
    ((_, start_ms, end_ms),) = store.selects
    assert (start_ms, end_ms) == (2 * MINUTE - MINUTE - 300_000 + 1, 2 * MINUTE)


def test_times_far_apart_are_read_apart() -> None:
    store = series("m 1")
    instant(store, "m + m offset 1y", 0)
    assert len(store.selects) == 2


def test_a_query_that_reads_too_much_is_refused() -> None:
    engine = Engine(COUNTER, EngineConfig(max_samples=99))
    with pytest.raises(TooManySamples):
        engine.instant("m[1h]", 1_000_000)
    with pytest.raises(TooManySamples):
        engine.instant("m[10y:1ms]", 1_000_000)


def test_a_query_past_its_deadline_says_so() -> None:
    with pytest.raises(QueryTimeout, match="query timed out in expression evaluation"):
        Engine(COUNTER, EngineConfig()).instant("m", 0, budget=Budget(10, 10, 1e-9))


def test_a_cancelled_query_says_so() -> None:
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(QueryCancelled):
        Engine(COUNTER, EngineConfig()).instant("m", 0, budget=Budget(10, 10, 60.0, cancelled))


def test_a_range_query_for_a_string_or_a_range_vector_is_refused() -> None:
    engine = Engine(COUNTER, EngineConfig())
    for query, found in (("('a')", "string"), ("m[5m]", "range vector"), ("m[5m:]", "range vector")):
        with pytest.raises(WrongRange, match=f'invalid expression type "{found}" for range query'):
            engine.range(query, 0, 60_000, 60_000)


def test_a_range_query_without_steps_is_refused() -> None:
    engine = Engine(COUNTER, EngineConfig())
    for end_ms, step_ms in ((-1, 60_000), (60_000, 0)):
        with pytest.raises(WrongRange, match="needs a positive step"):
            engine.range("m", 0, end_ms, step_ms)


def test_scalars_and_strings_are_answers() -> None:
    assert instant(COUNTER, "1 + 2") == 3.0
    assert instant(COUNTER, "'a'") == "a"
    assert over_range(COUNTER, "2", MINUTE) == {"{}": [2.0, 2.0]}


def test_start_end_range_and_step_are_about_the_query() -> None:
    query = "vector(start()) + end() * 10 + range() * 100 + step() * 1000"
    result = Engine(COUNTER, EngineConfig()).range(query, 1_000, 3_000, 1_000)
    assert result.value.values.tolist() == [[1231.0, 1231.0, 1231.0]]


def test_the_answer_of_a_range_query_is_sorted_by_labels() -> None:
    store = series(
        """
        m{b="1"} 1
        m{a="2"} 1
        m 1
        a{z="1"} 1
        m{a="1",c="1"} 1
        m{a="1"} 1
        """
    )
    assert list(over_range(store, '{__name__=~".+"}', 0)) == [
        '{__name__="a", z="1"}',
        '{__name__="m"}',
        '{__name__="m", a="1"}',
        '{__name__="m", a="1", c="1"}',
        '{__name__="m", a="2"}',
        '{__name__="m", b="1"}',
    ]


def test_what_reads_the_clock_is_evaluated_at_every_step() -> None:
    assert over_range(COUNTER, "time() + 0", 2 * MINUTE) == {"{}": [0.0, 60.0, 120.0]}
    assert over_range(COUNTER, "timestamp(-m @ 10)", MINUTE) == {"{}": [0.0, 60.0]}
