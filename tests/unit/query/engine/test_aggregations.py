"""Aggregation operators."""

from __future__ import annotations

from itertools import permutations

import pytest

from query.engine.engine import Engine, EngineConfig
from query.engine.values import EvalError
from tests.memory_store import MemoryStore
from tests.unit.query.engine.answers import MINUTE, instant, over_range, series

M = series(
    """
    m{g="a",i="1"} 1
    m{g="a",i="2"} nan
    m{g="a",i="3"} 5
    m{g="b",i="1"} 3
    m{i="4"} 4
    """
)


def vector(*values: float) -> MemoryStore:
    return MemoryStore([({"__name__": "m", "i": str(i)}, [(0, v)]) for i, v in enumerate(values)])


def test_by_keeps_and_without_removes_labels() -> None:
    assert instant(M, "count by (g, none) (m)") == {'{g="a"}': 3.0, '{g="b"}': 1.0, "{}": 1.0}
    assert instant(M, "count without (i) (m)") == {'{g="a"}': 3.0, '{g="b"}': 1.0, "{}": 1.0}
    assert instant(M, "count(m)") == {"{}": 5.0}


def test_a_group_is_there_only_at_steps_with_a_member() -> None:
    store = series('m{g="a"} 1 stale 3\nm{g="b"} _ 2 2')
    assert over_range(store, "sum by (g) (m)", 2 * MINUTE) == {
        '{g="a"}': [1.0, None, 3.0],
        '{g="b"}': [None, 2.0, 2.0],
    }


def test_min_and_max_take_nan_only_if_there_is_nothing_else() -> None:
    assert instant(M, "max by (g) (m)") == {'{g="a"}': 5.0, '{g="b"}': 3.0, "{}": 4.0}
    assert instant(M, 'min(m{g="a"})') == {"{}": 1.0}
    assert instant(vector(float("nan")), "min(m)") == {"{}": "NaN"}


def test_sums_are_compensated() -> None:
    assert instant(vector(1.0, 1e100, 1.0, -1e100), "sum(m)") == {"{}": 2.0}
    assert instant(vector(1.0, 1e100, 1.0, -1e100), "avg(m)") == {"{}": 0.5}


def test_an_average_does_not_overflow() -> None:
    assert instant(vector(1.5e308, 1.5e308, 1.5e308), "avg(m)") == {"{}": 1.5e308}
    assert instant(vector(1.5e308, 1.5e308), "sum(m)") == {"{}": float("inf")}


def test_infinities_follow_ieee_754() -> None:
    inf = float("inf")
    assert instant(vector(inf, 1.0), "avg(m)") == {"{}": inf}
    assert instant(vector(inf, -inf), "sum(m)") == {"{}": "NaN"}
    assert instant(vector(inf, 1.0), "stddev(m)") == {"{}": "NaN"}


def test_deviation_of_equal_values_is_exactly_zero() -> None:
    assert instant(vector(13.3, 13.3, 13.3), "stddev(m)") == {"{}": 0.0}


def test_topk_is_in_order_with_nan_last() -> None:
    assert list(instant(M, 'topk(9, m{g="a"})').values()) == [5.0, 1.0, "NaN"]
    assert list(instant(M, 'bottomk(9, m{g="a"})').values()) == [1.0, 5.0, "NaN"]
    assert list(instant(M, "topk(2, m)").values()) == [5.0, 4.0]


def test_topk_by_keeps_all_labels() -> None:
    assert instant(M, "topk by (g) (1, m)") == {
        '{__name__="m", g="a", i="3"}': 5.0,
        '{__name__="m", g="b", i="1"}': 3.0,
        '{__name__="m", i="4"}': 4.0,
    }


def test_k_may_differ_from_step_to_step() -> None:
    store = series("k 0 1 2\nm{i='1'} 1 1 1\nm{i='2'} 2 2 2")
    assert over_range(store, "topk(scalar(k), m)", 2 * MINUTE) == {
        '{__name__="m", i="1"}': [None, None, 1.0],
        '{__name__="m", i="2"}': [None, 2.0, 2.0],
    }
    assert over_range(store, "count(limitk(scalar(k), m))", 2 * MINUTE) == {"{}": [None, 1.0, 2.0]}


def test_k_must_be_a_number_that_an_int64_holds() -> None:
    for query, message in (
        ("topk(NaN, m)", "Parameter value is NaN"),
        ("limitk(1e30, m)", r"Scalar value 1e\+30 overflows int64"),
        ("limit_ratio(NaN, m)", "Ratio value is NaN"),
    ):
        with pytest.raises(EvalError, match=message):
            instant(M, query)
    assert instant(M, "topk(0.9, m)") == {}


def test_quantile_interpolates_and_takes_nan_as_lowest() -> None:
    assert instant(vector(1.0, 2.0, 4.0), "quantile(0.75, m)") == {"{}": 3.0}
    assert instant(vector(float("nan"), 2.0, 4.0), "quantile(0.75, m)") == {"{}": 3.0}
    assert instant(vector(float("nan"), 2.0), "quantile(0, m)") == {"{}": "NaN"}


def test_a_quantile_does_not_depend_on_the_order_of_zeros_of_both_signs() -> None:
    for values in permutations((-1.0, -0.0, -0.0, 0.0)):
        found = instant(vector(*values), "1 / quantile(1 / 3, m)")
        assert found == {"{}": -float("inf")}, values


def test_a_quantile_out_of_range_is_infinite_and_warned_of() -> None:
    result = Engine(M, EngineConfig()).instant("quantile(1.5, m)", 0)
    assert result.value.values.tolist() == [[float("inf")]]
    assert result.warnings == ["PromQL warning: quantile value should be between 0 and 1, got 1.5 (1:10)"]


def test_count_values_writes_floats_without_exponent() -> None:
    store = vector(1e21, 0.1, -0.0, float("inf"), float("nan"), 0.1)
    assert instant(store, 'count_values("v", m)') == {
        '{v="1000000000000000000000"}': 1.0,
        '{v="0.1"}': 2.0,
        '{v="-0"}': 1.0,
        '{v="+Inf"}': 1.0,
        '{v="NaN"}': 1.0,
    }


def test_count_values_overwrites_a_label_and_without_removes_it() -> None:
    assert instant(M, 'count_values by (g) ("i", m{g="a"} > 0)') == {'{g="a", i="1"}': 1.0, '{g="a", i="5"}': 1.0}
    assert instant(M, 'count_values without (i) ("i", m{g="a"})') == {'{g="a"}': 3.0}


def test_limit_ratio_and_its_complement_share_the_series() -> None:
    store = vector(*map(float, range(200)))
    some = instant(store, "limit_ratio(0.3, m)")
    rest = instant(store, "limit_ratio(-0.7, m)")
    assert 30 < len(some) < 90
    assert len(some) + len(rest) == 200
    assert not some.keys() & rest.keys()


def test_limit_ratio_caps_with_a_warning() -> None:
    result = Engine(M, EngineConfig()).instant("limit_ratio(-1.5, m)", 0)
    assert len(result.value.labels) == 5
    assert result.warnings == [
        "PromQL warning: ratio value should be between -1 and 1, got -1.5, capping to -1 (1:13)"
    ]


def test_a_group_by_name_loses_a_name_that_is_to_go() -> None:
    store = series('x{i="1"} 1\nx{i="2"} 2')
    assert instant(store, "sum by (__name__) (x)") == {'{__name__="x"}': 3.0}
    assert instant(store, "sum by (__name__) (-x)") == {"{}": -3.0}


def test_aggregating_nothing_gives_nothing() -> None:
    for query in (
        "sum(none)",
        "topk(1, none)",
        "quantile(0.5, none)",
        'count_values("v", none)',
        "limitk(1, none)",
    ):
        assert instant(M, query) == {}
