import pytest

from query.promql.ast import Aggregate, Binary, Cardinality, NumberLiteral, Unary, VectorMatching
from query.promql.errors import ParseError
from query.promql.parser import parse

UNARY = "unary expression only allowed on expressions of type scalar or instant vector"
ONE, MANY_ONE, ONE_MANY, MANY = (
    Cardinality.ONE_TO_ONE,
    Cardinality.MANY_TO_ONE,
    Cardinality.ONE_TO_MANY,
    Cardinality.MANY_TO_MANY,
)


def shape(expr) -> str:
    """The tree with parentheses around every operation."""
    match expr:
        case Binary():
            return f"({shape(expr.lhs)}{expr.op}{shape(expr.rhs)})"
        case Unary():
            return f"({expr.op}{shape(expr.expr)})"
        case NumberLiteral():
            return f"{expr.value:g}"
    return expr.name


def message_of(text: str) -> str:
    with pytest.raises(ParseError) as caught:
        parse(text)
    return str(caught.value).replace(": parse error: ", ": ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a or b and c", "(aor(bandc))"),
        ("a and b unless c or d", "(((aandb)unlessc)ord)"),
        ("a unless b and c", "((aunlessb)andc)"),
        ("a == b and c", "((a==b)andc)"),
        ("a > b + c", "(a>(b+c))"),
        ("a - b - c", "((a-b)-c)"),
        ("a + b * c % d", "(a+((b*c)%d))"),
        ("a * b atan2 c", "((a*b)atan2c)"),
        ("a + b atan2 c", "(a+(batan2c))"),
        ("a ^ b ^ c", "(a^(b^c))"),
        ("a * b ^ c", "(a*(b^c))"),
        ("-a ^ b", "(-(a^b))"),
        ("-a * b", "((-a)*b)"),
        ("a ^ -b * c", "((a^(-b))*c)"),
        ("a ^ -b ^ c", "(a^(-(b^c)))"),
        ("- - -a", "(-(-(-a)))"),
        ("a </ 1 + 2", "(a</(1+2))"),
        ("a >/ 1 == b", "((a>/1)==b)"),
        ("a < b", "(a<b)"),
        ("a AND b Or c UNLESS d", "((aandb)or(cunlessd))"),
        ("a>-1", "(a>-1)"),
        ("1-1", "(1-1)"),
    ],
)
def test_operators_bind_as_in_prometheus(text, expected):
    assert shape(parse(text)) == expected


@pytest.mark.parametrize(
    ("text", "matching"),
    [
        ("a + b", VectorMatching()),
        ("a + ignoring() b", VectorMatching()),
        ("a + on() b", VectorMatching(ONE, True)),
        ("a + on(x, y,) b", VectorMatching(ONE, True, ("x", "y"))),
        ("a + ignoring(x) b", VectorMatching(ONE, False, ("x",))),
        ("a + on(x) group_left b", VectorMatching(MANY_ONE, True, ("x",))),
        ("a + on(x) GROUP_RIGHT(y, `z.z`) b", VectorMatching(ONE_MANY, True, ("x",), ("y", "z.z"))),
        ("a and b", VectorMatching(MANY)),
        ("a or on(x) b", VectorMatching(MANY, True, ("x",))),
        ("a + fill(1) b", VectorMatching(fill_left=1, fill_right=1)),
        ("a + fill_left(-1) b", VectorMatching(fill_left=-1)),
        ("a + fill_right(5m) fill_left(Inf) b", VectorMatching(fill_left=float("inf"), fill_right=300)),
        ("a + on(x) group_left fill (0) b", VectorMatching(MANY_ONE, True, ("x",), (), 0, 0)),
    ],
)
def test_vector_matching_is_read(text, matching):
    assert parse(text).matching == matching


@pytest.mark.parametrize("text", ["a + 1", "1 + a", "1 + 1", "a > bool 1"])
def test_there_is_no_vector_matching_without_two_vectors(text):
    assert parse(text).matching is None


def test_bool_is_kept():
    assert parse("1 == BOOL 2").return_bool
    assert not parse("a == 2").return_bool


def test_keywords_may_be_labels():
    labels = ["and", "by", "avg", "on", "bool", "ignoring", "group_left", "atan2", "start", "offset", "fill_left"]
    assert parse(f"sum without({', '.join(labels)})(a)").grouping == tuple(labels)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sum(a)", Aggregate("sum", parse("a"))),
        ("SUM by (x) (a)", Aggregate("sum", parse("a"), None, ("x",))),
        ("sum (a) by (x,)", Aggregate("sum", parse("a"), None, ("x",))),
        ("sum by () (a)", Aggregate("sum", parse("a"))),
        ("sum without () (a)", Aggregate("sum", parse("a"), None, (), True)),
        ("sum by (\"x y\", 'z') (a)", Aggregate("sum", parse("a"), None, ("x y", "z"))),
        ("topk(5, a)", Aggregate("topk", parse("a"), parse("5"))),
        ("limit_ratio without (x) (-0.5, a)", Aggregate("limit_ratio", parse("a"), parse("-0.5"), ("x",), True)),
        ('count_values("v", a)', Aggregate("count_values", parse("a"), parse('"v"'))),
        ("sum(sum)", Aggregate("sum", parse("sum"))),
    ],
)
def test_aggregations_are_read(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown position: no expression found in input"),
        (" # nothing", "1:1: no expression found in input"),
        ("1 +", "1:4: unexpected end of input"),
        ("*1", "1:1: unexpected <op:*>"),
        ("-=", '1:2: unexpected "="'),
        ("++-+<", "1:5: unexpected <op:<>"),
        ("1 1", '1:3: unexpected number "1"'),
        ("a b", '1:3: unexpected identifier "b"'),
        ("a b:c", '1:3: unexpected metric identifier "b:c"'),
        ("a 'a long string'", '1:3: unexpected string "\'a long st"...'),
        ("1 sum(a)", "1:3: unexpected <aggr:sum>"),
        ("a start", '1:3: unexpected "start"'),
        ("(1", "1:3: unclosed left parenthesis"),
        ("1)", "1:3: unexpected right parenthesis ')'"),
        ("1 =~ 1", "1:3: unexpected character after '=': '~'"),
        ("1 !~ 1", "1:3: unexpected character after '!': '~'"),
        ("1 ! 1", "1:3: unexpected character after '!': ' '"),
        ("a ; b", "1:3: unexpected character: ';'"),
        ("a\n+ é", "2:3: unexpected character: 'é'"),
        ('"é" + "é" ;', "1:13: unexpected character: ';'"),
        ("1 == 1", "1:3: comparisons between scalars must use BOOL modifier"),
        ("1 + bool 1", "1:3: bool modifier can only be used on comparison operators"),
        ("a and 1", '1:1: set operator "and" not allowed in binary scalar expression'),
        ("1 or 1", '1:1: set operator "or" not allowed in binary scalar expression'),
        ('a + "b"', "1:5: binary expression must contain only scalar and instant vector types"),
        ("a[5m] + b", "1:1: binary expression must contain only scalar and instant vector types"),
        ("a + on(x) 1", "1:1: vector matching only allowed between instant vectors"),
        ("1 + fill(1) a", "1:1: filling in missing series only allowed between instant vectors"),
        ("a or fill(1) b", "1:1: filling in missing series not allowed for set operators"),
        ("a and on(x) group_left b", '1:1: no grouping allowed for "and" operation'),
        ("a + on(x) group_left(x) b", '1:3: label "x" must not occur in ON and GROUP clause at once'),
        ("a + on(b) ignoring(c) d", "1:11: unexpected <ignoring>"),
        ("a + group_left b", "1:5: unexpected <group_left>"),
        ("a + on b", '1:8: unexpected identifier "b" in grouping opts, expected "("'),
        ("a + on(", "1:8: unclosed left parenthesis"),
        ('-"a"', f'1:1: {UNARY}, got "string"'),
        ("1 + -a[5m]", f'1:5: {UNARY}, got "range vector"'),
        ("sum()", "1:1: no arguments for aggregate expression provided"),
        ("sum(a b)", '1:7: unexpected identifier "b" in aggregation'),
        ("sum(,)", '1:5: unexpected "," in aggregation'),
        ("sum(abs(a b))", '1:11: unexpected identifier "b" in aggregation'),
        ("sum(a, b)", "1:1: wrong number of arguments for aggregate expression provided, expected 1, got 2"),
        ("topk(a)", "1:1: wrong number of arguments for aggregate expression provided, expected 2, got 1"),
        ("topk(a,)", "1:7: trailing commas not allowed in function call args"),
        ("topk(a, b)", "1:6: expected type scalar in aggregation parameter, got instant vector"),
        ("count_values(5, b)", "1:14: expected type string in aggregation parameter, got scalar"),
        ("sum(1)", "1:5: expected type instant vector in aggregation expression, got scalar"),
        ("sum(a[5m])", "1:5: expected type instant vector in aggregation expression, got range vector"),
        ("sum a by (x)", '1:5: unexpected identifier "a"'),
        ("sum (a) by x", '1:12: unexpected identifier "x" in grouping opts, expected "("'),
        ("sum (a) by (x) without (y)", "1:16: unexpected <without>"),
        ("sum by (,) (a)", '1:9: unexpected "," in grouping opts, expected label'),
        ("sum by (==) (a)", "1:9: unexpected <op:==> in grouping opts, expected label"),
        ("sum by (x y) (a)", '1:11: unexpected identifier "y" in grouping opts, expected "," or ")"'),
        ('sum by ("") (a)', '1:9: invalid label name for grouping: ""'),
        ('sum by ("\\xff") (a)', '1:9: invalid label name for grouping: "\\xff"'),
        ("sum by (x)", "1:11: unexpected end of input in aggregation"),
    ],
)  # fmt: skip
def test_bad_operations_are_refused_in_prometheus_words(text, message):
    assert message_of(text) == message


def test_an_error_of_form_comes_before_an_earlier_error_of_type():
    assert message_of("sum(1) +") == "1:9: unexpected end of input"


def test_an_error_knows_its_place():
    with pytest.raises(ParseError) as caught:
        parse("a +\n  sum(1)")
    error = caught.value
    assert str(error) == f"2:7: parse error: {error.message}"
    assert (error.line, error.column, error.span.start, error.span.end) == (2, 7, 10, 11)
    assert error.message == "expected type instant vector in aggregation expression, got scalar"
