"""Native histograms in operators, aggregations, set operators, selectors and subqueries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from query.engine.engine import Engine, EngineConfig, QueryResult
from query.engine.values import EvalError
from query.json_result import encode_result
from tests.memory_store import MemoryStore
from tests.oracles.histogram import NativeHistogram

MINUTE = 60_000
ONE = NativeHistogram(0, 4, 8.0, 0.5, 1, ((1, 2),), (1, 2))
CUSTOM = NativeHistogram(-53, 3, 2.5, positive_spans=((0, 2),), positive=(1, 2), bounds=(0.5,))
RESET = replace(ONE, hint=1)


def doubled(histogram: NativeHistogram, factor: float = 2.0) -> NativeHistogram:
    return replace(
        histogram,
        count=histogram.count * factor,
        sum=histogram.sum * factor,
        zero_count=histogram.zero_count * factor,
        positive=tuple(count * factor for count in histogram.positive),
    )


@pytest.fixture
def engine() -> Engine:
    store = MemoryStore()
    store.add({"__name__": "h", "a": "1"}, [(0, ONE.encode()), (MINUTE, doubled(ONE).encode())])
    store.add({"__name__": "h", "a": "2"}, [(0, ONE.encode()), (MINUTE, ONE.encode())])
    store.add({"__name__": "h", "a": "float"}, [(0, 5.0)])
    store.add({"__name__": "custom", "a": "1"}, [(0, CUSTOM.encode()), (MINUTE, CUSTOM.encode())])
    store.add({"__name__": "two", "a": "1"}, [(0, 2.0), (MINUTE, 2.0)])
    store.add({"__name__": "falls", "a": "1"}, [(0, doubled(ONE).encode()), (MINUTE, ONE.encode())])
    store.add({"__name__": "marked", "a": "1"}, [(0, ONE.encode()), (MINUTE, RESET.encode())])
    return Engine(store, EngineConfig())


def answer(result: QueryResult) -> Any:
    return orjson.loads(b"".join(encode_result(result)))["data"]["result"]


def ask(engine: Engine, query: str, time_ms: int = MINUTE) -> dict[str, Any]:
    """The samples of an instant query by label a: a float's text, or the count of a histogram as a number."""
    found = {}
    for series in answer(engine.instant(query, time_ms)):
        value = series["value"][1] if "value" in series else float(series["histogram"][1]["count"])
        found[series["metric"].get("a", "")] = value
    return found


def said(engine: Engine, query: str, time_ms: int = MINUTE) -> list[str]:
    result = engine.instant(query, time_ms)
    return [text.split(": ", 1)[1].rsplit(" (", 1)[0] for text in [*result.warnings, *result.infos]]


def test_histograms_are_added_and_subtracted_series_by_series(engine: Engine) -> None:
    assert ask(engine, "h + h") == {"1": 16.0, "2": 8.0, "float": "10"}
    assert ask(engine, 'h{a!="float"} - h') == {"1": 0.0, "2": 0.0}
    assert ask(engine, "h + custom") == {}
    assert said(engine, "h + custom") == ["incompatible bucket layout encountered for binary operator +"]


def test_histograms_are_scaled_by_numbers_from_either_side_as_far_as_that_means_something(engine: Engine) -> None:
    assert ask(engine, 'h{a="1"} * 3') == ask(engine, '3 * h{a="1"}') == {"1": 24.0}
    assert ask(engine, 'h{a="1"} / two') == {"1": 4.0}
    assert ask(engine, '-h{a="1"}') == {"1": -8.0}
    assert ask(engine, '2 / h{a="1"}') == {}
    message = 'incompatible sample types encountered for binary operator "{0}": {1} {0} {2}'
    assert said(engine, '2 / h{a="1"}') == [message.format("/", "float", "histogram")]
    assert said(engine, 'h{a="1"} + 2') == [message.format("+", "histogram", "float")]
    assert said(engine, "two </ 1") == [message.format("</", "float", "float")]


def test_histograms_are_compared_for_equality_only(engine: Engine) -> None:
    assert ask(engine, 'h{a="1"} == h{a="1"}') == {"1": 8.0}
    assert ask(engine, 'h{a="1"} != h{a="1"}') == {}
    assert ask(engine, 'h{a="1"} == bool ignoring(a) h{a="2"}') == {"": "0"}
    assert ask(engine, 'h{a="1"} > h') == {}


def test_a_histogram_is_cut_at_a_number(engine: Engine) -> None:
    assert ask(engine, 'h{a="2"} </ 0.5') == {"2": 1.0}
    assert ask(engine, 'h{a="2"} >/ 2') == {"2": 2.0}


def test_sums_and_means_of_histograms_do_not_mix_with_floats(engine: Engine) -> None:
    assert ask(engine, 'sum(h{a!="float"})') == {"": 12.0}
    assert ask(engine, 'avg(h{a!="float"})') == {"": 6.0}
    assert ask(engine, "sum by (a) (h)") == {"1": 8.0, "2": 4.0, "float": "5"}
    assert ask(engine, "sum(h)") == {}
    assert said(engine, "sum(h)") == ["encountered a mix of histograms and floats for aggregation"]
    assert ask(engine, "sum({a='1', __name__=~'h|custom'})") == {}
    (text,) = said(engine, "sum({a='1', __name__=~'h|custom'})")
    assert text.startswith("vector contains a mix of histograms with exponential and custom buckets")


def test_other_aggregations_count_choose_or_ignore_histograms(engine: Engine) -> None:
    assert ask(engine, "count(h)") == {"": "3"}
    assert ask(engine, "group(h)") == {"": "1"}
    assert len(ask(engine, "limitk(3, h)")) == 3
    assert ask(engine, "max(h)") == ask(engine, "quantile(0.5, h)") == {"": "5"}
    assert ask(engine, "topk(3, h)") == {"float": "5"}
    assert said(engine, "topk(3, h)") == ["ignored histogram in topk aggregation"]
    values = [series["metric"]["v"] for series in answer(engine.instant('count_values("v", h)', MINUTE))]
    texts = [f"{{count:{n}, sum:{2 * n}, [-0.5,0.5]:{n // 4}, (1,2]:{n // 4}, (2,4]:{n // 2}}}" for n in (4, 8)]
    assert sorted(values) == ["5", *texts]


def test_set_operators_and_subqueries_keep_histograms(engine: Engine) -> None:
    assert ask(engine, "h and two") == {"1": 8.0}
    assert ask(engine, "two or h") == {"1": "2", "2": 4.0, "float": "5"}
    assert ask(engine, "last_over_time(h[2m:1m])") == {"1": 8.0, "2": 4.0, "float": "5"}
    assert ask(engine, "h @ 0") == {"1": 4.0, "2": 4.0, "float": "5"}
    assert ask(engine, "h offset 1m") == {"1": 4.0, "2": 4.0, "float": "5"}


def test_a_smoothed_selector_lies_between_two_histograms(engine: Engine) -> None:
    assert ask(engine, 'h{a="1"} smoothed', MINUTE // 2) == {"1": 6.0}
    assert ask(engine, 'h{a="1"} smoothed', 0) == {"1": 4.0}
    assert ask(engine, 'h{a="1"} smoothed', 2 * MINUTE) == {"1": 8.0}
    # A counter that was reset begins anew at zero.
    assert ask(engine, "falls smoothed", MINUTE // 2) == {"1": 2.0}


def test_a_reset_is_found_by_comparison_where_buckets_are_not_needed(engine: Engine) -> None:
    clash = ["conflicting counter resets during histogram aggregation"]
    query = "({a='1', __name__=~'h|falls'})"
    assert said(engine, f"histogram_count(sum{query})") == clash
    assert said(engine, f"sum{query}") == []
    assert said(engine, f"histogram_quantile(0.5, sum{query})") == []


def test_a_reset_that_a_subquery_repeats_counts_once(engine: Engine) -> None:
    once = ask(engine, "increase(marked[2m:1m])", MINUTE)
    often = ask(engine, "resets(marked[2m:15s])", 2 * MINUTE - 1)
    assert once.keys() == {"1"}
    assert often == {"1": "1"}


def test_a_range_selector_shows_floats_and_histograms_of_a_series_apart() -> None:
    store = MemoryStore()
    store.add({"__name__": "mixed"}, [(0, 1.0), (MINUTE, ONE.encode()), (2 * MINUTE, 2.0)])
    engine = Engine(store, EngineConfig())
    (series,) = answer(engine.instant("mixed[3m]", 2 * MINUTE))
    assert series["values"] == [[0, "1"], [120, "2"]]
    assert [point[0] for point in series["histograms"]] == [60]
    (series,) = answer(engine.range("mixed", 0, 2 * MINUTE, MINUTE))
    assert (series["values"], len(series["histograms"])) == ([[0, "1"], [120, "2"]], 1)


def test_floats_whose_bits_look_like_a_histogram_are_just_not_numbers() -> None:
    odd = float(np.array([0x7FFA000000000000], dtype=np.uint64).view(np.float64)[0])
    store = MemoryStore()
    store.add({"__name__": "odd", "a": "1"}, [(0, odd)])
    store.add({"__name__": "odd", "a": "2"}, [(0, ONE.encode())])
    assert ask(Engine(store, EngineConfig()), "odd", 0) == {"1": "NaN", "2": 4.0}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("info(m)", [{"__name__": "m", "instance": "a", "job": "j", "x": "1", "y": "2"}]),
        ('info(m, {x=~".+"})', [{"__name__": "m", "instance": "a", "job": "j", "x": "1"}]),
        ('info(m, {z=~".+"})', []),
        ('info(m, {z=~".*"})', [{"__name__": "m", "instance": "a", "job": "j"}]),
        ('info(m, {__name__="none"})', [{"__name__": "m", "instance": "a", "job": "j"}]),
    ],
)
def test_info_adds_the_labels_of_the_info_series(query: str, found: list[dict[str, str]]) -> None:
    store = MemoryStore()
    same = {"instance": "a", "job": "j"}
    store.add({"__name__": "m", **same}, [(0, 1.0)])
    store.add({"__name__": "target_info", **same, "x": "1", "y": "2"}, [(0, 1.0)])
    store.add({"__name__": "target_info", "instance": "b", "job": "j", "x": "3"}, [(0, 1.0)])
    engine = Engine(store, EngineConfig())
    assert [series["metric"] for series in answer(engine.instant(query, 0))] == found


def test_info_series_that_contradict_each_other_are_an_error() -> None:
    store = MemoryStore()
    store.add({"__name__": "m", "job": "j"}, [(0, 1.0)])
    for name, value in (("a_info", "1"), ("b_info", "2")):
        store.add({"__name__": name, "job": "j", "x": value}, [(0, 1.0)])
    engine = Engine(store, EngineConfig())
    with pytest.raises(EvalError, match="conflicting label: x"):
        engine.instant('info(m, {__name__=~".+_info"})', 0)
    store.add({"__name__": "a_info", "job": "j", "x": "3"}, [(0, 1.0)])
    with pytest.raises(EvalError, match="duplicate series for info metric a_info"):
        engine.instant('info(m, {__name__="a_info"})', 0)
