"""Functions that look at labels: replacing, joining, sorting, absence."""

from __future__ import annotations

import math

import pytest

from common.store import Matcher, MatchOp
from query.engine.functions.sorting import natural_order
from query.engine.values import EvalError
from query.promql.ast import Aggregate, Expr, MatrixSelector, Paren, VectorSelector
from tests.unit.query.functions.build import call, context, range_vector, rows, run, vector


def replace(labels: dict[str, str], *texts: str) -> dict[str, str]:
    ((result, _),) = rows(run("label_replace", vector([(labels, [0.0])]), *texts))
    return result


def test_a_label_is_made_from_what_the_whole_of_another_matches():
    source = {"src": "source-value-10", "dst": "old"}
    assert replace(source, "dst", "value-$1", "src", "source-value-(.*)") == {**source, "dst": "value-10"}
    assert replace(source, "dst", "value-$1", "src", "value-(.*)") == source
    assert replace(source, "new", "$1", "src", "(s).*") == {**source, "new": "s"}


def test_an_absent_label_matches_as_the_empty_text():
    assert replace({"a": "1"}, "b", "none", "missing", "") == {"a": "1", "b": "none"}
    assert replace({"a": "1"}, "b", "x-$1", "missing", "y(.*)") == {"a": "1"}


def test_an_empty_replacement_removes_the_label():
    assert replace({"a": "1", "b": "2"}, "b", "", "b", ".*") == {"a": "1"}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("$0", "ab-7"),
        ("$1$2", "ab7"),
        ("${1}x", "abx"),
        ("$1x", ""),
        ("${word}/$number", "ab/7"),
        ("$3$nobody", ""),
        ("$$1", "$1"),
        ("$", "$"),
        ("${", "${"),
        ("$-$", "$-$"),
        ("$01", ""),
        ("${1", "${1"),
    ],
)
def test_references_are_expanded_as_go_does(template, expected):
    text = "dst" if expected else ""
    result = replace({"src": "ab-7"}, "dst", template, "src", r"(?P<word>\w+)-(?P<number>\d+)")
    assert result == ({"src": "ab-7", text: expected} if text else {"src": "ab-7"})


def test_the_dot_matches_line_ends():
    assert replace({"a": "1\n2"}, "b", "$1", "a", "(.*)") == {"a": "1\n2", "b": "1\n2"}


def test_a_name_that_is_given_stays():
    x = run("abs", vector([({"__name__": "x", "a": "1"}, [1.0]), ({"__name__": "y", "a": "2"}, [1.0])]))
    result = run("label_replace", x, "__name__", "new", "a", "1")
    assert [labels for labels, _ in rows(result)] == [{"__name__": "new", "a": "1"}, {"a": "2"}]
    joined = run("label_join", x, "__name__", "", "a")
    assert [labels["__name__"] for labels, _ in rows(joined)] == ["1", "2"]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("dst", "", "src", "(.*"), r"invalid regular expression in label_replace\(\): \(\.\*"),
        (("", "", "src", ""), r"invalid destination label name in label_replace\(\): "),
        (("\udcff", "", "src", ""), r"invalid destination label name in label_replace\(\): "),
    ],
)
def test_bad_arguments_of_label_replace_are_errors(texts, message):
    with pytest.raises(EvalError, match=f"^{message}"):
        run("label_replace", vector([]), *texts)


def join(labels: dict[str, str], *texts: str) -> dict[str, str]:
    ((result, _),) = rows(run("label_join", vector([(labels, [0.0])]), *texts))
    return result


def test_labels_are_joined_in_the_order_asked_for():
    labels = {"a": "1", "b": "2"}
    assert join(labels, "c", "-", "b", "a", "b") == {**labels, "c": "2-1-2"}
    assert join(labels, "c", "-", "missing", "a") == {**labels, "c": "-1"}
    assert join(labels, "a", ",") == {"b": "2"}
    assert join(labels, "a", "", "missing") == {"b": "2"}


def test_bad_names_in_label_join_are_errors():
    with pytest.raises(EvalError, match=r"^invalid source label name in label_join\(\): $"):
        run("label_join", vector([]), "a", "-", "")
    with pytest.raises(EvalError, match=r"^invalid destination label name in label_join\(\): $"):
        run("label_join", vector([]), "", "-", "a")


def test_nothing_in_nothing_out():
    for name, texts in (("label_join", ("a", "-", "b")), ("label_replace", ("a", "b", "c", "d")), ("sort", ())):
        assert rows(run(name, vector([]), *texts)) == []


def values_in_order(name: str, *values: float) -> list[float | None]:
    argument = vector([({"i": str(i)}, [value]) for i, value in enumerate(values)])
    return [row[0] for _, row in rows(run(name, argument))]


def test_nan_comes_last_in_either_direction():
    assert str(values_in_order("sort", 2, math.nan, -1, 3)) == "[-1.0, 2.0, 3.0, nan]"
    assert str(values_in_order("sort_desc", 2, math.nan, -1, 3)) == "[3.0, 2.0, -1.0, nan]"


def test_sorting_is_for_instant_queries():
    at = context([0, 1000], 1000, query="sort(x)")
    argument = vector([({"a": "2"}, [2.0, 2.0]), ({"a": "1"}, [1.0, 1.0])])
    for name in ("sort", "sort_desc", "sort_by_label", "sort_by_label_desc"):
        assert rows(run(name, argument, at=at)) == rows(argument)
    assert at.annotations.warnings == [
        "PromQL warning: sort is ineffective for range queries since results are always ordered by labels (1:1)"
    ]


def test_labels_are_sorted_in_natural_order_and_then_whole():
    labels = [
        {"cpu": "10", "x": "1"},
        {"cpu": "2", "x": "2"},
        {"cpu": "2", "x": "1"},
        {"cpu": "100"},
        {"other": "1"},
    ]
    argument = vector([(each, [0.0]) for each in labels])
    ordered = [4, 2, 1, 0, 3]
    assert [row for row, _ in rows(run("sort_by_label", argument, "cpu"))] == [labels[i] for i in ordered]
    descending = [row for row, _ in rows(run("sort_by_label_desc", argument, "cpu"))]
    assert descending == [labels[i] for i in reversed(ordered)]


@pytest.mark.parametrize(
    "ascending",
    [
        ["", "1", "2", "10", "a"],
        ["4m5", "4m600", "4m1000"],
        ["1.2.3", "1.11.3", "1.111.3"],
        ["a1", "a1b", "a2", "aa"],
        ["9223372036854775808", "9223372036854775809", "a"],
    ],
)
def test_natural_order(ascending):
    for i, a in enumerate(ascending):
        for j, b in enumerate(ascending):
            assert natural_order(a, b) == (i > j) - (i < j), (a, b)


def matcher(name: str, value: str, op: MatchOp = MatchOp.EQUAL) -> Matcher:
    return Matcher(op, name, value)


@pytest.mark.parametrize(
    ("matchers", "labels"),
    [
        ([matcher("__name__", "x"), matcher("job", "a"), matcher("m", "b", MatchOp.REGEX)], {"job": "a"}),
        ([matcher("job", "a"), matcher("job", "b"), matcher("foo", "bar")], {"foo": "bar"}),
        ([matcher("job", "a"), matcher("job", "b", MatchOp.REGEX), matcher("foo", "bar")], {"foo": "bar"}),
        ([matcher("a", "1"), matcher("a", "1"), matcher("a", "1")], {}),
        ([matcher("a", "")], {}),
    ],
)
def test_what_is_absent_has_the_labels_that_were_asked_for(matchers, labels):
    selector = VectorSelector("x", tuple(matchers))
    written: Expr = Paren(selector)
    assert rows(run("absent", vector([]), written=call("absent", written))) == [(labels, [1.0])]
    argument = range_vector([], [0], 1000)
    written = MatrixSelector(selector, 1000)
    assert rows(run("absent_over_time", argument, written=call("absent_over_time", written))) == [(labels, [1.0])]


def test_absence_is_for_steps_at_which_nothing_is_there():
    at = context([0, 1, 2], 1)
    written = call("absent", Aggregate("sum", VectorSelector("x", (matcher("a", "1"),))))
    argument = vector([({"a": "1"}, [1.0, None, None]), ({"a": "2"}, [None, None, math.nan])])
    assert rows(run("absent", argument, at=at, written=written)) == [({}, [None, 1.0, None])]
    samples = range_vector([({}, [(0, 1.0)])], [0, 60_000, 90_000], 60_000)
    assert rows(run("absent_over_time", samples, at=at, written=written)) == [({}, [None, 1.0, 1.0])]
