import math

import pytest

from query.promql.ast import NumberLiteral, Paren, StringLiteral, Unary
from query.promql.errors import ParseError
from query.promql.parser import parse
from query.promql.quoting import describe_char, quote, quote_char, unquote


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("0", 0),
        ("1.", 1),
        (".5", 0.5),
        ("5.25e-3", 0.00525),
        ("1e10", 1e10),
        ("0x3d", 61),
        ("0X_1F", 31),
        ("0755", 493),
        ("08", 8),
        ("00.5", 0.5),
        ("1_000_000", 1e6),
        ("1_0.2_5", 10.25),
        ("9223372036854775808", 2.0**63),
        ("Inf", math.inf),
        ("inf", math.inf),
        ("+Inf", math.inf),
        ("-Inf", -math.inf),
        ("-1", -1),
        ("--1", 1),
        ("+-+1", -1),
    ],
)
def test_numbers_are_read_as_in_go(text, value):
    assert parse(text) == NumberLiteral(value)


def test_all_nans_are_equal_so_that_trees_are():
    assert parse("NaN") == parse("-nan") == NumberLiteral(math.nan)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5m", 300), ("1h30m", 5400), ("1y2w3d", 31536000 + 1209600 + 259200), ("15ms", 0.015), ("-1d", -86400)],
)
def test_a_duration_may_stand_for_a_number_of_seconds(text, seconds):
    assert parse(text) == NumberLiteral(seconds, is_duration=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1e", '1:1: parse error: bad number or duration syntax: "1e"'),
        ("1.2.3", '1:1: parse error: bad number or duration syntax: "1.2."'),
        ("1__0", '1:1: parse error: bad number or duration syntax: "1__"'),
        ("1_", '1:1: parse error: bad number or duration syntax: "1_"'),
        ("0x1.5", '1:1: parse error: bad number or duration syntax: "0x1."'),
        ("0x1e+5", '1:1: parse error: error parsing number: strconv.ParseFloat: parsing "0x1e+5": invalid syntax'),
        ("5mm", '1:1: parse error: bad number or duration syntax: "5mm"'),
        ("1d5", '1:1: parse error: bad number or duration syntax: "1d5"'),
        ("0b1", '1:1: parse error: bad number or duration syntax: "0"'),
        (
            "1e999",
            '1:1: parse error: error parsing number: strconv.ParseFloat: parsing "1e999": value out of range',
        ),
        ("5m1h", '1:1: parse error: not a valid duration string: "5m1h"'),
        ("5y1hs", '1:1: parse error: unknown unit "hs" in duration "5y1hs"'),
        ("300y", "1:1: parse error: duration out of range"),
        ("1.5h", '1:1: parse error: unknown unit "." in duration "1.5h"'),
    ],
)
def test_bad_numbers_and_durations_are_refused(text, message):
    with pytest.raises(ParseError) as caught:
        parse(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"plain"', "plain"),
        ("'single'", "single"),
        (r'"\a\b\f\n\r\t\v\\\""', '\a\b\f\n\r\t\v\\"'),
        (r"'it\'s'", "it's"),
        (r'"\u1234\U00010111☺"', "\u1234\U00010111☺"),
        (r'"\101\x41"', "AA"),
        (r'"\xe2\x98\xba"', "☺"),
        ("`raw \\n\n'\"`", "raw \\n\n'\""),
        ('""', ""),
    ],
)
def test_strings_are_read_as_in_go(text, value):
    assert parse(text) == StringLiteral(value)


def test_bytes_that_are_not_utf8_survive_in_a_string():
    literal = parse(r'"a\xc5z"')
    assert isinstance(literal, StringLiteral)
    assert literal.value.encode("utf-8", "surrogateescape") == b"a\xc5z"
    assert quote(literal.value) == r'"a\xc5z"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"abc', "unterminated quoted string"),
        ('"a\nb"', "unterminated quoted string"),
        ("`abc", "unterminated raw string"),
        ('"\\', "escape sequence not terminated"),
        (r'"\c"', "unknown escape sequence U+0063 'c'"),
        (r"""'\"'""", "unknown escape sequence U+0022 '\"'"),
        (r'"\x.5"', "illegal character U+002E '.' in escape sequence"),
        (r'"\12"', "illegal character U+0022 '\"' in escape sequence"),
        (r'"\400"', "escape sequence is an invalid Unicode code point"),
        (r'"\ud800"', "escape sequence is an invalid Unicode code point"),
        (r'"\U00110000"', "escape sequence is an invalid Unicode code point"),
        ('"\ufffd"', "invalid UTF-8 rune"),
    ],
)
def test_bad_strings_are_refused_at_their_start(text, message):
    with pytest.raises(ParseError) as caught:
        parse("1 + " + text)
    assert str(caught.value) == f"1:5: parse error: {message}"


def test_signs_belong_to_literals_but_not_to_parentheses_or_powers():
    assert parse("-(1)") == Unary("-", Paren(NumberLiteral(1)))
    assert isinstance(parse("-1 ^ 2"), Unary)


@pytest.mark.parametrize("text", ["a", '"', "'", "\\", "\n\t\x00\x7f", "é☺\U0001f600", "\u200b\ue000"])
def test_quoted_text_reads_back(text):
    assert unquote(quote(text)) == text


def test_characters_show_as_in_go():
    assert quote_char("'") == r"'\''"
    assert quote_char('"') == "'\"'"
    assert quote_char("") == "'\ufffd'"
    assert describe_char("\x00") == "U+0000"
    assert quote("\x01\u200b\U000e0001") == r'"\x01\u200b\U000e0001"'
