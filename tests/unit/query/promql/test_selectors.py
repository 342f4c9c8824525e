import pytest

from common.store import Matcher, MatchOp
from query.promql.ast import AtEdge, MatrixSelector, Subquery, VectorSelector
from query.promql.errors import ParseError
from query.promql.parser import parse, parse_selector
from query.promql.selector_parser import has_non_empty_matcher

EQ = MatchOp.EQUAL
DURATION = "number, duration, step(), or range()"
STEP = 'number, duration, step(), range(), or "]"'
NEEDS = "modifier must be preceded by an instant vector selector or range vector selector or a subquery"


def named(name: str, *matchers: Matcher, **modifiers) -> VectorSelector:
    return VectorSelector(name, (*matchers, Matcher(EQ, "__name__", name)), **modifiers)


def message_of(text: str) -> str:
    with pytest.raises(ParseError) as caught:
        parse(text)
    return str(caught.value).replace(": parse error: ", ": ")


def test_the_name_is_also_the_last_matcher():
    assert parse('up{job="a"}') == named("up", Matcher(EQ, "job", "a"))


@pytest.mark.parametrize("text", ["up{}", "up { }", "up # comment", "# comment\nup", " \t\r\nup\n"])
def test_space_and_comments_do_not_matter(text):
    assert parse(text) == named("up")


def test_all_kinds_of_matchers_and_a_last_comma_are_read():
    assert parse("""{a="1", b!='2',c=~`3.*`,"d"!~"4",}""") == VectorSelector(
        None,
        (
            Matcher(MatchOp.EQUAL, "a", "1"),
            Matcher(MatchOp.NOT_EQUAL, "b", "2"),
            Matcher(MatchOp.REGEX, "c", "3.*"),
            Matcher(MatchOp.NOT_REGEX, "d", "4"),
        ),
    )


def test_names_in_quotes_may_be_any_utf8():
    assert parse('{"my.metric", "läbel.näme"="x"}') == VectorSelector(
        None, (Matcher(EQ, "__name__", "my.metric"), Matcher(EQ, "läbel.näme", "x"))
    )


@pytest.mark.parametrize(
    "name",
    [
        *(
            "sum",
            "SUM",
            "min",
            "count_values",
            "limitk",
            "by",
            "without",
            "offset",
            "and",
            "OR",
            "unless",
            "start",
        ),
        *("end", "step", "range", "min_of", "fill", "fill_left", "smoothed", "anchored", "a:b", ":a", "_x"),
    ],
)
def test_most_keywords_may_name_a_metric(name):
    assert parse(name) == named(name)
    assert parse(f'foo * {name}{{a="b"}}').rhs == named(name, Matcher(EQ, "a", "b"))


@pytest.mark.parametrize("name", ["on", "ignoring", "bool", "group_left", "group_right"])
def test_some_keywords_may_not_name_a_metric(name):
    assert message_of(name) == f"1:1: unexpected <{name}>"


def test_within_braces_no_word_is_a_keyword():
    assert parse('x{on="1",sum="2",by="3",nan="4"}').matchers[:4] == tuple(
        Matcher(EQ, name, value) for name, value in [("on", "1"), ("sum", "2"), ("by", "3"), ("nan", "4")]
    )


@pytest.mark.parametrize(
    ("text", "selector"),
    [
        ("up offset 5m", named("up", offset=300_000)),
        ("up OFFSET -1h30m", named("up", offset=-5_400_000)),
        ("up offset 1.5", named("up", offset=1500)),
        ("up offset +5", named("up", offset=5000)),
        ("up @ 1.234", named("up", at=1234)),
        ("up @ -1.5e3", named("up", at=-1_500_000)),
        ("up @ 1h", named("up", at=3_600_000)),
        ("up @ 0x10", named("up", at=16_000)),
        ("up @ start()", named("up", at=AtEdge.START)),
        ("up @ END ( )", named("up", at=AtEdge.END)),
        ("up @ 1 offset 2", named("up", at=1000, offset=2000)),
        ("up offset 2 @ 1", named("up", at=1000, offset=2000)),
        ("up smoothed offset 2", named("up", extended="smoothed", offset=2000)),
        ("up offset 0s offset 5m", named("up", offset=300_000)),
    ],
)
def test_modifiers_come_in_any_order(text, selector):
    assert parse(text) == selector


def test_modifiers_after_brackets_belong_to_the_selector():
    expected = MatrixSelector(named("up", offset=1000, at=2000, extended="anchored"), 300_000)
    assert parse("up[5m] anchored @ 2 offset 1") == expected
    assert parse("up anchored [5m] offset 1 @ 2") == expected


@pytest.mark.parametrize(("text", "range_ms"), [("up[5]", 5000), ("up[ 5m ]", 300_000), ("up[4.18]", 4180)])
def test_ranges_are_durations_or_seconds(text, range_ms):
    assert parse(text) == MatrixSelector(named("up"), range_ms)


def test_subqueries_have_a_range_and_perhaps_a_step():
    assert parse("up[1h:]") == Subquery(named("up"), 3_600_000)
    assert parse("up[1h:5m] offset 1 @ end()") == Subquery(
        named("up"), 3_600_000, 300_000, offset=1000, at=AtEdge.END
    )
    assert parse("up offset 1 [1h:30]") == Subquery(named("up", offset=1000), 3_600_000, 30_000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "1:1: vector selector must contain at least one non-empty matcher"),
        ('{a=""}', "1:1: vector selector must contain at least one non-empty matcher"),
        ('{a!="x",b=~".*",c!~"x+"}', "1:1: vector selector must contain at least one non-empty matcher"),
        ('up{__name__="x"}', '1:1: metric name must not be set twice: "up" or "x"'),
        ('1+up{"x"}', '1:3: metric name must not be set twice: "up" or "x"'),
        ('up{a=~"("}', "1:4: error parsing regexp: missing closing ): `(`"),
        ('up{a!~"x**"}', "1:4: error parsing regexp: invalid nested repetition operator: `**`"),
        ('up{a=~"[z-a]"}', "1:4: error parsing regexp: invalid character class range: `z-a`"),
        ('up{a=~"+"}', "1:4: error parsing regexp: missing argument to repetition operator: `+`"),
        ('up{a="\\xff"}', '1:6: invalid UTF-8 in "\\xff"'),
        ("up{", "1:4: unexpected end of input inside braces"),
        ("up{a:b}", "1:5: unexpected character inside braces: ':'"),
        ("up{{", "1:4: unexpected left brace '{'"),
        ("up{a!b}", "1:5: unexpected character after '!' inside braces: 'b'"),
        ("up{,}", '1:4: unexpected "," in label matching, expected identifier or "}"'),
        ("up{a}", '1:5: unexpected "}" in label matching, expected label matching operator'),
        ("up{a=b}", '1:6: unexpected identifier "b" in label matching, expected string'),
        ('up{a="b" c="d"}', '1:10: unexpected identifier "c" in label matching, expected "," or "}"'),
        ('up{a="b" or c="d"}', '1:10: unexpected identifier "or" in label matching, expected "," or "}"'),
        ('up{"a"b}', '1:7: unexpected identifier "b" in label matching, expected "," or "}"'),
        ("up}", "1:3: unexpected character: '}'"),
        ("up offset", "1:10: unexpected end of input in offset, expected number, duration, step(), or range()"),
        ("up offset x", f'1:11: unexpected identifier "x" in offset, expected {DURATION}'),
        ("up offset 1 offset 2", "1:1: offset may not be set multiple times"),
        ("up offset Inf", "1:11: duration out of range"),
        ("up @", "1:5: unexpected end of input in @, expected timestamp"),
        ("up @ x", '1:6: unexpected identifier "x" in @, expected timestamp'),
        ("up @ start", "1:11: unexpected end of input in @, expected timestamp"),
        ("up @ 1 @ 2", "1:1: @ <timestamp> may not be set multiple times"),
        ("up @ 1 @ end()", "1:1: @ <timestamp> may not be set multiple times"),
        ("up @ Inf", "1:1: timestamp out of bounds for @ modifier: +Inf"),
        ("up @ -Inf", "1:1: timestamp out of bounds for @ modifier: -Inf"),
        ("up @ NaN", "1:1: timestamp out of bounds for @ modifier: NaN"),
        ("up[", "1:4: unexpected end of input in duration expression"),
        ("up[5m", "1:6: unclosed left bracket"),
        ("up[]", f'1:4: unexpected "]" in subquery or range selector, expected {DURATION}'),
        ('up["5m"]', "1:4: unexpected character in duration expression: '\"'"),
        ("up[x]", "1:4: unexpected character in duration expression: 'x'"),
        ("up[5m x]", "1:7: unexpected character: 'x', expected ':'"),
        ("up[5m[", "1:6: unexpected left bracket '['"),
        ("up]", "1:3: unexpected right bracket ']'"),
        ("up[0m]", "1:4: duration must be greater than 0"),
        ("up[-1]", "1:4: duration must be greater than 0"),
        ("up[5m1m]", '1:4: not a valid duration string: "5m1m"'),
        ("up[:5m]", "1:5: unexpected colon before duration in duration expression"),
        ("up[5m:5m:]", "1:9: unexpected colon ':'"),
        ("up[5m 5m]", '1:7: unexpected duration "5m" in subquery or range, expected ":" or "]"'),
        ("up[5m:5m 1]", '1:10: unexpected number "1" in subquery selector, expected "]"'),
        ("up[5m:(]", f'1:8: unexpected "]" in subquery selector, expected {STEP}'),
        ("(up)[5m]", "1:5: ranges only allowed for vector selectors"),
        ("up[5m][5m]", "1:7: ranges only allowed for vector selectors"),
        ("up offset 1m[5m]", "1:13: no offset modifiers allowed before range"),
        ("up @ 1 [5m]", "1:8: no @ modifiers allowed before range"),
        ("(up) offset 1m", f"1:1: offset {NEEDS}"),
        ("rate(up[1m]) @ 5", f"1:1: @ {NEEDS}"),
        ("up smoothed anchored", "1:1: anchored and smoothed modifiers cannot be used together"),
        ("up[5m:] smoothed", "1:1: smoothed modifier is not supported for subqueries"),
        ("(up) anchored", "1:1: anchored modifier not implemented"),
        ("up[5m][10m:]", "1:1: subquery is only allowed on instant vector, got matrix instead"),
        ("1[10m:]", "1:1: subquery is only allowed on instant vector, got scalar instead"),
    ],
)  # fmt: skip
def test_bad_selectors_are_refused_in_prometheus_words(text, message):
    assert message_of(text) == message


def test_a_selector_for_the_api_may_select_everything():
    matchers = parse_selector('{a=~".*"}')
    assert matchers == (Matcher(MatchOp.REGEX, "a", ".*"),)
    assert not has_non_empty_matcher(matchers)
    assert has_non_empty_matcher(parse_selector('up{a=""}'))


@pytest.mark.parametrize("text", ["up + 1", "up[5m]", "up offset 5m", "1", "", "sum(up)"])
def test_nothing_but_a_selector_is_one_for_the_api(text):
    with pytest.raises(ParseError):
        parse_selector(text)
