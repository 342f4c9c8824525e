import subprocess
import sys

import pytest

from query.promql.ast import VectorSelector
from query.promql.duration_parser import MAX_DURATION_OPERATIONS, MAX_NESTING
from query.promql.durations import resolve
from query.promql.errors import ParseError
from query.promql.parser import MAX_DEPTH, MAX_QUERY_LENGTH, parse
from query.promql.printer import format_expr
from query.promql.signatures import type_of

N = 30_000


@pytest.mark.parametrize(
    "text",
    [
        "(" * N,
        "(" * N + "1" + ")" * N,
        "-" * N + "1",
        "1^" * N + "1",
        "abs(" * N,
        "sum(" * N + "a" + ")" * N,
        "a[" + "(" * N,
        "a[" + "-" * N + "1]",
        "a offset " + "(" * N,
        "(" * 1000,
    ],
)
def test_deep_nesting_is_refused(text):
    with pytest.raises(ParseError, match=f"nested too deeply, at most {MAX_NESTING} levels are allowed"):
        parse(text)


@pytest.mark.parametrize("text", ["1" + "+1" * N, "a" + " or a" * (N // 2), "(" + "-{}-1" * 10_000 + ")"])
def test_long_chains_are_refused(text):
    with pytest.raises(ParseError, match=f"too many levels, at most {MAX_DEPTH} operations"):
        parse(text)


@pytest.mark.parametrize("text", ["a[1" + "+1" * N + "]", "a[" + "1^" * N + "1]", "a offset " + "min_of(" * N])
def test_long_durations_are_refused(text):
    with pytest.raises(ParseError, match=f"too many operations, at most {MAX_DURATION_OPERATIONS} are allowed"):
        parse(text)


def test_long_queries_are_refused():
    text = 'a{b="' + "x" * MAX_QUERY_LENGTH + '"}'
    with pytest.raises(ParseError, match="query is too long: 262151 characters, at most 262144 are allowed"):
        parse(text)


def test_text_that_is_not_utf8_is_refused():
    with pytest.raises(ParseError, match="1:4: parse error: invalid UTF-8 rune"):
        parse("1 +\udc80")


@pytest.mark.parametrize(
    "text",
    [
        "(" * (MAX_NESTING - 1) + "a" + ")" * (MAX_NESTING - 1),
        "a" + " or a" * (MAX_DEPTH - 1),
        "-" * (MAX_NESTING - 1) + "a",
        "abs(" * (MAX_NESTING - 1) + "a" + ")" * (MAX_NESTING - 1),
        "a[1" + " + 1" * MAX_DURATION_OPERATIONS + "]",
        "a[" + "-(" * 50 + "step()" + ")" * 50 + "]",
    ],
)
def test_what_is_within_the_limits_can_be_worked_with(text):
    expr = parse(text)
    assert parse(format_expr(expr)) == expr
    hash(expr)
    type_of(expr)
    resolve(expr, 0, 60_000, 1_000)


def test_many_matchers_do_not_count_as_depth():
    selector = parse("{" + 'a="b",' * 1_000 + "}")
    assert isinstance(selector, VectorSelector)
    assert len(selector.matchers) == 1_000


@pytest.mark.parametrize(
    "query", ["{" + 'a="b",' * 1_001 + "}", " + ".join(['{a="b"' + ',a="b"' * 10 + "}"] * 92)]
)
def test_matchers_of_a_query_are_limited_together(query: str) -> None:
    with pytest.raises(ParseError, match="too many label matchers, at most 1000 are allowed"):
        parse(query)


def test_parsing_loads_no_regular_expressions_unless_needed():
    code = "import sys; from query.promql.parser import parse; parse('sum(a)'); print('re2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
