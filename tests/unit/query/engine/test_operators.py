"""Binary operators, their matching, and what becomes of metric names."""

from __future__ import annotations

import pytest

from query.engine.values import EvalError
from tests.memory_store import MemoryStore
from tests.unit.query.engine.answers import MINUTE, instant, over_range, series

NOTHING = MemoryStore()
CPU = series(
    """
    cpu{host="a",mode="idle"} 6
    cpu{host="a",mode="user"} 2
    cpu{host="b",mode="idle"} 8
    role{host="a",role="db"} 1
    role{host="b",role="web"} 2
    """
)


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("7 % 3", 1.0),
        ("-7 % 3", -1.0),
        ("2 ^ -1", 0.5),
        ("-2 ^ 2", -4.0),
        ("(-1) ^ Inf", 1.0),
        ("1 ^ NaN", 1.0),
        ("NaN ^ 0", 1.0),
        ("0 ^ -1", float("inf")),
        ("1 / 0", float("inf")),
        ("5 % Inf", 5.0),
        ("1 atan2 0", 1.5707963267948966),
        ("NaN == bool NaN", 0.0),
        ("NaN != bool NaN", 1.0),
        ("2 >= bool 2", 1.0),
        ("- - 3", 3.0),
    ],
)
def test_scalar_arithmetic_is_that_of_ieee_754(query: str, value: float) -> None:
    assert instant(NOTHING, query) == value


def test_arithmetic_with_a_scalar_drops_the_name_and_keeps_the_sides() -> None:
    assert instant(CPU, "10 - role", 0) == {'{host="a", role="db"}': 9.0, '{host="b", role="web"}': 8.0}


def test_a_comparison_filters_and_keeps_name_and_vector_value() -> None:
    assert instant(CPU, "1 < role") == {'{__name__="role", host="b", role="web"}': 2.0}


def test_bool_gives_zero_or_one_without_the_name() -> None:
    assert instant(CPU, "role > bool 1") == {'{host="a", role="db"}': 0.0, '{host="b", role="web"}': 1.0}


def test_one_to_one_matching_ignores_the_name_and_what_it_is_told() -> None:
    store = series('x{a="1",b="1"} 6\ny{a="1"} 2\nz{a="2"} 2')
    assert instant(store, "x / ignoring (b) y") == {'{a="1"}': 3.0}
    assert instant(store, "x / on (a) y") == {'{a="1"}': 3.0}
    assert instant(store, "x / z") == {}


def test_group_left_takes_labels_of_the_one_side() -> None:
    assert instant(CPU, "cpu * on (host) group_left (role) role") == {
        '{host="a", mode="idle", role="db"}': 6.0,
        '{host="a", mode="user", role="db"}': 2.0,
        '{host="b", mode="idle", role="web"}': 16.0,
    }


def test_group_right_keeps_the_operands_on_their_sides() -> None:
    assert instant(CPU, "role - on (host) group_right cpu") == {
        '{host="a", mode="idle"}': -5.0,
        '{host="a", mode="user"}': -1.0,
        '{host="b", mode="idle"}': -6.0,
    }


def test_duplicates_on_the_one_side_are_named() -> None:
    with pytest.raises(EvalError) as caught:
        instant(CPU, "role * on (host) cpu")
    assert str(caught.value) == (
        'found duplicate series for the match group {host="a"} on the right hand-side of the operation: '
        '[{__name__="cpu", host="a", mode="idle"}, {__name__="cpu", host="a", mode="user"}]'
        ";many-to-many matching not allowed: matching labels must be unique on one side"
    )


def test_many_to_one_must_be_asked_for_even_if_the_comparison_drops_all() -> None:
    with pytest.raises(EvalError, match="multiple matches for labels: many-to-one matching must be explicit"):
        instant(CPU, "cpu > on (host) role * 100")


def test_grouping_labels_must_tell_results_apart() -> None:
    store = series('many{a="1",b="1"} 1\nmany{a="1",b="2"} 1\none{a="1",b="3"} 1')
    with pytest.raises(EvalError, match="multiple matches for labels: grouping labels must ensure unique matches"):
        instant(store, "many * on (a) group_left (b) one")


def test_a_match_group_may_have_other_series_at_other_steps() -> None:
    store = series('many{a="1"} 1 1 1\none{a="1",v="old"} 10 stale _\none{a="1",v="new"} _ 20 30')
    assert over_range(store, "many * on (a) one", 2 * MINUTE) == {'{a="1"}': [10.0, 20.0, 30.0]}
    assert over_range(store, "many * on (a) group_left (v) one", 2 * MINUTE) == {
        '{a="1", v="old"}': [10.0, None, None],
        '{a="1", v="new"}': [None, 20.0, 30.0],
    }


def test_duplicates_do_no_harm_while_the_other_side_is_empty() -> None:
    store = series('x _ 1\ny{a="1"} 1 stale\ny{a="2"} 2 2')
    assert over_range(store, "x + on () y", MINUTE) == {"{}": [None, 3.0]}


def test_set_operators_decide_at_each_step() -> None:
    store = series('x{a="1"} 1 stale 3\ny{a="1"} stale 20 30')
    assert over_range(store, "x and y", 2 * MINUTE) == {'{__name__="x", a="1"}': [None, None, 3.0]}
    assert over_range(store, "x unless y", 2 * MINUTE) == {'{__name__="x", a="1"}': [1.0, None, None]}
    assert over_range(store, "x or y", 2 * MINUTE) == {
        '{__name__="x", a="1"}': [1.0, None, 3.0],
        '{__name__="y", a="1"}': [None, 20.0, None],
    }


def test_fill_stands_in_for_the_missing_side() -> None:
    store = series('x{a="1"} 1\nx{a="2"} 2\ny{a="2"} 20\ny{a="3"} 30')
    assert instant(store, "x + fill (0) y") == {'{a="1"}': 1.0, '{a="2"}': 22.0, '{a="3"}': 30.0}
    assert instant(store, "x + fill_right (5) y") == {'{a="1"}': 6.0, '{a="2"}': 22.0}


def test_negation_drops_the_name_at_the_end_and_clashes_are_errors() -> None:
    store = series('x{a="1"} 1\ny{a="1"} 2')
    assert instant(store, "-x") == {'{a="1"}': -1.0}
    with pytest.raises(EvalError, match="vector cannot contain metrics with the same labelset"):
        instant(store, '-{a="1"}')


def test_series_that_lose_their_name_are_one_if_they_never_meet() -> None:
    store = series('x{a="1"} 1 stale\ny{a="1"} _ 2')
    assert over_range(store, '-{a="1"}', MINUTE) == {'{a="1"}': [-1.0, -2.0]}


def test_a_name_that_is_to_go_can_still_be_matched_and_kept() -> None:
    store = series('x_total{a="1"} 1\ny_total{a="1"} 2')
    query = 'label_replace(-{a="1"}, "was", "$1", "__name__", "(.)_total")'
    assert instant(store, query) == {'{a="1", was="x"}': -1.0, '{a="1", was="y"}': -2.0}


def test_a_comparison_of_unnamed_series_does_not_bring_the_name_back() -> None:
    store = series('x{a="1"} 1\ny{a="1"} 2')
    assert instant(store, "-x > -y") == {'{a="1"}': -1.0}


def test_a_series_whose_name_goes_at_some_steps_does_as_at_the_first() -> None:
    store = series('x{a="1"} 1 -1 -1')
    assert over_range(store, "(-x < 0) or x", 2 * MINUTE) == {'{a="1"}': [-1.0, -1.0, -1.0]}
    assert over_range(store, "(-x > 0) or x", 2 * MINUTE) == {'{__name__="x", a="1"}': [1.0, 1.0, 1.0]}
