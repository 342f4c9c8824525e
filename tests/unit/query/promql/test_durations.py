import pytest

from query.promql.ast import AtEdge, DurationExpr, NumberLiteral
from query.promql.durations import resolve
from query.promql.errors import DurationError, ParseError
from query.promql.parser import parse
from query.promql.printer import format_duration

DURATION = "number, duration, step(), or range()"
START_MS, END_MS, STEP_MS = 50_000, 60_000, 5_000


def resolved(text: str):
    return resolve(parse(text), START_MS, END_MS, STEP_MS)


@pytest.mark.parametrize(
    ("duration", "ms"),
    [
        ("26m+4m", 1_800_000),
        ("60*30", 1_800_000),
        ("2m*(10+5)", 1_800_000),
        ("24m+((1.5*2m)+2m)", 1_740_000),
        ("-5m+35m", 1_800_000),
        ("1h/2", 1_800_000),
        ("1h30m % 1h", 1_800_000),
        ("30m1s-30m1s % 1m", 1_800_000),
        ("2 ^ 3 ^ 0", 2_000),
        ("-(2 ^ 2) + 10", 6_000),
        ("3 - -2", 5_000),
        ("step()", 5_000),
        ("STep() + 1ms", 5_001),
        ("range() / 2", 5_000),
        ("min_of(step() + 1, 1h)", 6_000),
        ("max_of(min_of(step(), 1s), 2s)", 2_000),
        ("((max_of((step() + 1), ((1h)))))", 3_600_000),
        ("10.001 + 0", 10_001),
    ],
)
def test_arithmetic_within_brackets_is_computed(duration, ms):
    assert resolved(f"a[{duration}]").range_ == ms
    assert resolved(f"a[1h:{duration}]").step == ms


@pytest.mark.parametrize(
    ("offset", "ms"),
    [
        ("step()", 5_000),
        ("-step()", -5_000),
        ("+step()", 5_000),
        ("(100 + 2)", 102_000),
        ("-(step() * 2)", -10_000),
        ("-(5m)", -300_000),
        ("min_of(range(), 8s)", 8_000),
        ("-max_of(1, 2)", -2_000),
        ("(-2 * 2)", -4_000),
        ("(step() - 5)", 0),
        ("(20*(((((8 - 2) / 3) * 7s) % 4) + 8000ms))", 200_000),
    ],
)
def test_offsets_are_computed_and_may_be_negative(offset, ms):
    assert resolved(f"a offset {offset}").offset == ms
    assert resolved(f"a[5m] offset {offset}").selector.offset == ms
    assert resolved(f"a[5m:] offset {offset}").offset == ms


@pytest.mark.parametrize("offset", ["2", "-2", "step()", "-step()", "(2)", "-(2)", "min_of(1, 2)"])
@pytest.mark.parametrize("op", ["+", "*", "^"])
def test_an_offset_ends_before_an_operator(offset, op):
    assert parse(f"a offset {offset} {op} 3") == parse(f"a offset {offset} {op} (3)").__class__(
        op, parse(f"a offset {offset}"), NumberLiteral(3)
    )


def test_a_single_literal_needs_no_resolving():
    assert parse("a[(5m)]").range_ == 300_000
    assert parse("a[-(-5m)]").range_ == 300_000
    assert parse("a offset (-(5))").offset == -5_000
    assert parse("a[1m + 1]").range_ == DurationExpr("+", NumberLiteral(60, is_duration=True), NumberLiteral(1))


def test_edges_of_the_query_become_times():
    assert parse("a @ start()").at is AtEdge.START
    assert resolved("a @ start()").at == START_MS
    assert resolved("a[5m] @ end()").selector.at == END_MS
    assert resolved("sum_over_time(a[5m:1m] @ end())").args[0].at == END_MS
    assert resolved("a @ 7").at == 7_000


def test_resolving_reaches_every_part_of_the_tree():
    text = "topk(scalar(a offset step()), -(rate(b[step()]) + c @ end()))"
    assert resolved(text) == parse("topk(scalar(a offset 5), -(rate(b[5]) + c @ 60))")


def test_what_needs_no_resolving_is_shared():
    expr = parse("sum(rate(a[5m])) / b > 5")
    assert resolve(expr, START_MS, END_MS, STEP_MS) is expr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a[1 - 1]", "duration must be greater than 0"),
        ("a[step() - 1h]", "duration must be greater than 0"),
        ("a[1h:step() - 5]", "duration must be greater than 0"),
        ("a[1 / (step() - 5)]", "division by zero"),
        ("a[1 % (step() - 5)]", "modulo by zero"),
        ("a[10 ^ 10]", "duration is out of range"),
        ("a[10 ^ 1000]", "duration is out of range"),
        ("a offset ((-8) ^ 0.5)", "duration is out of range"),
    ],
)
def test_durations_that_cannot_be_used_are_refused(text, message):
    with pytest.raises(DurationError) as caught:
        resolved(text)
    assert str(caught.value) == message
    assert caught.value.span.start > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a[5m / 0]", "1:6: division by zero"),
        ("a[5m % 0s]", "1:6: modulo by zero"),
        ("a[300y]", "1:3: duration out of range"),
        ("a[1e10]", "1:3: duration out of range"),
        ("a offset NaN", "1:10: duration out of range"),
        ("a[0.0000001]", "1:3: duration must be greater than 0"),
        ("a[5m +]", f'1:7: unexpected "]" in subquery or range selector, expected {DURATION}'),
        ("a[step]", f'1:7: unexpected "]" in subquery or range selector, expected {DURATION}'),
        ("a[min_of(1)]", f'1:11: unexpected ")" in subquery or range selector, expected {DURATION}'),
        ("a offset (1 == 2)", "1:13: unexpected <op:==> in offset, expected number, duration, step(), or range()"),
        ("a[min(1,2)]", "1:3: unexpected character in duration expression: 'm'"),
    ],
)  # fmt: skip
def test_bad_durations_are_refused_in_prometheus_words(text, message):
    with pytest.raises(ParseError) as caught:
        parse(text)
    assert str(caught.value).replace(": parse error: ", ": ") == message


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0s"),
        (1, "1ms"),
        (-90_000, "-1m30s"),
        (7 * 86_400_000, "1w"),
        (8 * 86_400_000, "8d"),
        (365 * 86_400_000, "1y"),
        (365 * 86_400_000 + 1, "365d1ms"),
        (3_600_000 + 1, "1h1ms"),
    ],
)
def test_durations_are_written_as_prometheus_does(ms, text):
    assert format_duration(ms) == text
