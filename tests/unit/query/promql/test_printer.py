import pytest

from common.store import Matcher, MatchOp
from query.promql.ast import (
    Binary,
    MatrixSelector,
    NumberLiteral,
    Paren,
    Span,
    StringLiteral,
    Subquery,
    Unary,
    VectorSelector,
)
from query.promql.parser import parse
from query.promql.printer import format_expr


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("1e3", "1000"),
        ("1e-7", "1e-07"),
        ("1.7976931348623157e308", "1.7976931348623157e+308"),
        ("+Inf", "Inf"),
        ("0x1f", "31"),
        ("60m", "1h"),
        ("-1d", "-1d"),
        ('`a"b`', r'"a\"b"'),
        ("up{}", "up"),
        ("{'up'}", '{__name__="up"}'),
        ('{"my.metric","a.b"=~"c"}', '{__name__="my.metric", "a.b"=~"c"}'),
        ('up { a = "b" , }', 'up{a="b"}'),
        ("info(a, {})", "info(a, {})"),
        ("up offset 60 @ 1.5", "up @ 1.500 offset 1m"),
        ("up @ -0.001", "up @ -0.001"),
        ("up[300] offset -5 @ end() smoothed", "up[5m] smoothed @ end() offset -5s"),
        ("(a+b)[1h:60] offset 5", "(a + b)[1h:1m] offset 5s"),
        ("a[1h:] @ start()", "a[1h:] @ start()"),
        ("a[2*(1+step())]", "a[2 * (1 + step())]"),
        ("a[(2^3)^min_of(1m,2)]", "a[(2 ^ 3) ^ min_of(1m, 2)]"),
        ("a[-(-step())+1]", "a[-(-step()) + 1]"),
        ("a offset -(step())", "a offset (-step())"),
        ("a offset max_of(1,2)", "a offset max_of(1, 2)"),
        ("SUM(a) BY (b)", "sum by (b) (a)"),
        ("sum by () (a)", "sum(a)"),
        ("sum without () (a)", "sum without () (a)"),
        ("topk(1,a) by ('b c',on,'inf')", 'topk by ("b c", on, "inf") (1, a)'),
        ("a+on()b", "a + on () b"),
        ("a==bool 1", "a == bool 1"),
        ("a AND ignoring(b) c", "a and ignoring (b) c"),
        ("a*ignoring()group_left b", "a * ignoring () group_left () b"),
        ("a*on(b)group_right(c)fill(0)d", "a * on (b) group_right (c) fill_left (0) fill_right (0) d"),
        ("- - a", "--a"),
        ("-(1)", "-(1)"),
        ("2^-1", "2 ^ -1"),
        ("a </ 1 >/ 2", "a </ 1 >/ 2"),
    ],
)
def test_expressions_have_one_canonical_form(text, canonical):
    assert format_expr(parse(text)) == canonical
    assert parse(canonical) == parse(text)


def named(name: str) -> Matcher:
    return Matcher(MatchOp.EQUAL, "__name__", name)


A, B = parse("a"), parse("b")


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (Binary("*", Binary("+", A, B), B), "(a + b) * b"),
        (Binary("-", A, Binary("-", A, B)), "a - (a - b)"),
        (Binary("^", Binary("^", A, B), B), "(a ^ b) ^ b"),
        (Binary("^", NumberLiteral(-1), B), "(-1) ^ b"),
        (Binary("^", Unary("-", A), B), "(-a) ^ b"),
        (Unary("-", Binary("*", A, B)), "-(a * b)"),
        (Unary("-", NumberLiteral(1)), "-(1)"),
        (Subquery(Binary("+", A, B), 60_000), "(a + b)[1m:]"),
        (VectorSelector("my.metric", (named("my.metric"),)), '{__name__="my.metric"}'),
        (MatrixSelector(VectorSelector("on", (named("on"),)), 1), '{__name__="on"}[1ms]'),
    ],
)  # fmt: skip
def test_a_tree_made_by_hand_gets_the_parentheses_it_needs(expr, text):
    assert format_expr(expr) == text
    parse(text)


def test_spans_cover_the_text_of_each_node():
    text = '  sum(rate(a{b="c"}[5m] offset 1m)) / -on_x @ 3 + (1m) '
    total = parse(text)
    assert isinstance(total, Binary)
    division, paren = total.lhs, total.rhs
    aggregate, negative = division.lhs, division.rhs
    rate = aggregate.expr
    spans = {
        total: 'sum(rate(a{b="c"}[5m] offset 1m)) / -on_x @ 3 + (1m)',
        division: 'sum(rate(a{b="c"}[5m] offset 1m)) / -on_x @ 3',
        aggregate: 'sum(rate(a{b="c"}[5m] offset 1m))',
        rate: 'rate(a{b="c"}[5m] offset 1m)',
        rate.args[0]: 'a{b="c"}[5m] offset 1m',
        rate.args[0].selector: 'a{b="c"}',
        negative: "-on_x @ 3",
        negative.expr: "on_x @ 3",
        paren: "(1m)",
        paren.expr: "1m",
    }
    for node, expected in spans.items():
        assert text[node.span.start : node.span.end] == expected


def test_spans_do_not_make_trees_differ():
    assert parse(" ( 'a' ) ") == Paren(StringLiteral("a", Span(7, 8)))
