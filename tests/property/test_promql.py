"""Trees survive being written and read, and no text makes the parser fail otherwise than by ParseError."""

import contextlib
import functools
import math
import string

from hypothesis import given, settings
from hypothesis import strategies as st

from common.store import Matcher, MatchOp
from query.promql.ast import (
    Aggregate,
    AtEdge,
    Binary,
    Call,
    Cardinality,
    DurationExpr,
    MatrixSelector,
    NumberLiteral,
    Paren,
    StringLiteral,
    Subquery,
    Unary,
    ValueType,
    VectorMatching,
    VectorSelector,
)
from query.promql.durations import resolve
from query.promql.errors import DurationError, ParseError
from query.promql.lexer import AGGREGATORS, PRECEDENCE, SET_OPERATORS, tokenize
from query.promql.parser import parse, parse_selector
from query.promql.printer import format_expr
from query.promql.signatures import FUNCTIONS, PARAMETERS, type_of

KEYWORDS = ["sum", "by", "offset", "and", "start", "step", "fill", "smoothed", "limitk", "or", "END"]
names = st.one_of(
    st.sampled_from(["a", "foo", "x:y", ":", "_", *KEYWORDS]),
    st.from_regex(r"\A[a-z_:][a-z0-9_:]{0,5}\Z").filter(lambda n: n not in NOT_NAMES),
)
NOT_NAMES = {"on", "bool", "inf", "nan", "ignoring", "atan2"}
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), max_size=6)
labels = st.one_of(st.sampled_from(["a", "on", "inf", "NaN", "fill_left", "job", "a.b"]), texts.filter(bool))
regexes = st.sampled_from(["", ".*", "a|b", "x+", "[^a]", "(?i)é", r"\d"])


@st.composite
def matchers(draw):
    op = draw(st.sampled_from(MatchOp))
    return Matcher(op, draw(labels), draw(texts if "~" not in op.value else regexes))


def ms(low: int = -(10**11), high: int = 10**11) -> st.SearchStrategy[int]:
    return st.integers(low, high)


duration_literals = st.one_of(
    st.integers(-(10**9), 10**9).map(lambda n: NumberLiteral(n / 1000, is_duration=True)),
    st.floats(-1e6, 1e6).map(NumberLiteral),
)


def duration_expressions() -> st.SearchStrategy[DurationExpr]:
    def extend(inner: st.SearchStrategy) -> st.SearchStrategy:
        def not_by_zero(d: DurationExpr) -> bool:
            return not (d.op in "/%" and isinstance(d.rhs, NumberLiteral) and d.rhs.value == 0)

        operations = st.builds(DurationExpr, st.sampled_from(["+", "-", "*", "/", "%", "^"]), inner, inner)
        calls = st.builds(DurationExpr, st.sampled_from(["min", "max"]), inner, inner)
        # A sign before a literal belongs to the literal.
        signs = st.builds(DurationExpr, st.just("-"), st.none(), inner.filter(lambda d: not is_literal(d)))
        return st.one_of(operations.filter(not_by_zero), calls, signs)

    def is_literal(d) -> bool:
        return isinstance(d, NumberLiteral)

    atoms = st.sampled_from([DurationExpr("step"), DurationExpr("range")])
    return st.one_of(atoms, st.recursive(duration_literals | atoms, extend, max_leaves=6)).filter(
        lambda d: not is_literal(d)
    )


offsets = st.one_of(st.just(0), ms(), duration_expressions())
ranges = st.one_of(ms(1), duration_expressions())
ats = st.one_of(st.none(), st.sampled_from(AtEdge), ms(-(10**14), 10**14))


@st.composite
def selectors(draw):
    some = tuple(draw(st.lists(matchers(), max_size=3)))
    if draw(st.booleans()):
        name = draw(names)
        some = (*(m for m in some if m.name != "__name__"), Matcher(MatchOp.EQUAL, "__name__", name))
    else:
        name = None
        some = (*some, Matcher(MatchOp.EQUAL, "__name__", "x"))
    extended = draw(st.sampled_from([None, None, "smoothed", "anchored"]))
    return VectorSelector(name, some, draw(offsets), draw(ats), extended)


numbers = st.one_of(
    st.floats(allow_nan=False).map(NumberLiteral),
    st.just(NumberLiteral(math.nan)),
    st.integers(-(10**12), 10**12).map(lambda n: NumberLiteral(n / 1000, is_duration=True)),
)


def strength(expr) -> int:
    """Precedence of the outermost operator of a text."""
    if isinstance(expr, Binary):
        return PRECEDENCE[expr.op]
    if isinstance(expr, Unary) or (isinstance(expr, NumberLiteral) and format_expr(expr)[0] == "-"):
        return PRECEDENCE["*"]
    return 9


def operand(expr, least: int):
    return expr if strength(expr) >= least else Paren(expr)


@st.composite
def binaries(draw, scalars, vectors):
    op = draw(st.sampled_from(sorted(PRECEDENCE)))
    of_vectors = op in SET_OPERATORS or draw(st.booleans())
    lhs = draw(vectors)
    rhs = draw(vectors if of_vectors else scalars)
    if not of_vectors and draw(st.booleans()):
        lhs, rhs = rhs, lhs
    level, right = PRECEDENCE[op], op == "^"
    lhs = operand(lhs, level + right)
    if not isinstance(rhs, Unary | NumberLiteral):
        rhs = operand(rhs, level + (not right))
    compares = op in ("==", "!=", "<", "<=", ">", ">=")
    matching = None
    if of_vectors:
        fills = st.none() if op in SET_OPERATORS else st.sampled_from([None, 0.0, -1.5, math.inf])
        sides = [Cardinality.ONE_TO_ONE, Cardinality.MANY_TO_ONE, Cardinality.ONE_TO_MANY]
        side = Cardinality.MANY_TO_MANY if op in SET_OPERATORS else draw(st.sampled_from(sides))
        on_labels = tuple(draw(st.lists(labels, max_size=2)))
        include = ()
        if side in sides[1:]:
            include = tuple(label for label in draw(st.lists(labels, max_size=2)) if label not in on_labels)
        matching = VectorMatching(side, draw(st.booleans()), on_labels, include, draw(fills), draw(fills))
    return Binary(op, lhs, rhs, compares and draw(st.booleans()), matching)


@st.composite
def calls(draw, returns, of_type):
    function = draw(st.sampled_from(sorted(n for n, f in FUNCTIONS.items() if f.returns is returns)))
    types = FUNCTIONS[function].args
    args = [draw(of_type[type_]) for type_ in types]
    if function == "info":
        args[1] = VectorSelector(None, tuple(draw(st.lists(matchers(), max_size=2))))
    return Call(function, tuple(args))


@st.composite
def aggregates(draw, scalars, vectors):
    op = draw(st.sampled_from(sorted(AGGREGATORS)))
    param = None
    if op in PARAMETERS:
        param = draw(scalars) if PARAMETERS[op] is ValueType.SCALAR else StringLiteral(draw(texts))
    return Aggregate(op, draw(vectors), param, tuple(draw(st.lists(labels, max_size=2))), draw(st.booleans()))


def matrices(vectors):
    return st.one_of(
        st.builds(MatrixSelector, selectors(), ranges),
        st.builds(Subquery, vectors.map(lambda e: operand(e, 9)), ranges, st.none() | ranges, offsets, ats),
    )


@functools.cache
def expressions(returns=ValueType.VECTOR, depth=3):
    """Trees of the given type as the parser makes them: with Paren nodes where their text needs parentheses."""
    leaf = numbers if returns is ValueType.SCALAR else selectors()
    if depth == 0:
        return leaf
    vectors = expressions(ValueType.VECTOR, depth - 1)
    scalars = expressions(ValueType.SCALAR, depth - 1)
    of_type = {
        ValueType.VECTOR: vectors,
        ValueType.SCALAR: scalars,
        ValueType.STRING: texts.map(StringLiteral),
        ValueType.MATRIX: matrices(vectors),
    }
    # A sign before a number belongs to the number.
    signed = of_type[returns].filter(lambda e: not isinstance(e, NumberLiteral))
    signed = signed.map(lambda e: e if isinstance(e, Unary) else operand(e, PRECEDENCE["^"]))
    choices = [
        leaf,
        calls(returns, of_type),
        of_type[returns].map(Paren),
        st.builds(Unary, st.sampled_from(["-", "+"]), signed),
    ]
    if returns is ValueType.VECTOR:
        choices += [binaries(scalars, vectors), aggregates(scalars, vectors)]
    return st.one_of(choices)


@settings(max_examples=400, deadline=None)
@given(expressions())
def test_a_tree_survives_being_written_and_read(expr):
    text = format_expr(expr)
    again = parse(text)
    assert again == expr
    assert format_expr(again) == text
    assert type_of(again) is ValueType.VECTOR


@settings(max_examples=60, deadline=None)
@given(expressions(), st.integers(0, 10**12), st.integers(0, 10**9), st.integers(0, 10**6))
def test_resolving_leaves_no_duration_open(expr, start_ms, length_ms, step_ms):
    try:
        resolved = resolve(expr, start_ms, start_ms + length_ms, step_ms)
    except DurationError:
        return
    assert "DurationExpr" not in repr(resolved)
    assert "AtEdge" not in repr(resolved)
    assert resolve(resolved, 0, 0, 0) == resolved


WORDS = [
    *("sum", "rate", "by", "without", "on", "ignoring", "group_left", "bool", "offset", "start", "end", "step"),
    *("range", "min_of", "fill", "fill_left", "smoothed", "and", "or", "unless", "atan2", "inf", "nan", "info"),
    *("a", "foo", "a:b", "5", "5m", "1h30m", "0x1f", "1e3", ".5", "0", "1_0", '"s"', "'s'", "`s`", '"\\xff"', "#"),
    *("(", ")", "[", "]", "{", "}", ",", ":", "=", "!=", "=~", "!~", "==", "<", "</", ">/", ">=", "@", "+", "-"),
    *(
        "*",
        "/",
        "%",
        "^",
        " ",
        "\n",
        ";",
        "é",
        "\ufffd",
        "\\",
        '"',
        "topk",
        "count_values",
        "label_replace",
        "(1)",
    ),
]
pieces = st.lists(st.sampled_from(WORDS), max_size=25).map("".join)
spaced = st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join)
letters = st.text(st.sampled_from(string.printable + "é☺\ufffd"), max_size=40)


@settings(max_examples=500, deadline=None)
@given(st.one_of(pieces, spaced, letters, st.text(st.characters(), max_size=30)))
def test_no_text_makes_the_parser_fail_otherwise(text):
    error = None
    try:
        expr = parse(text)
    except ParseError as refusal:
        error = refusal
    if error is None:
        assert parse(format_expr(expr)) == expr
    else:
        assert 0 <= error.span.start <= error.span.end <= len(text)
        assert error.line >= 1
        assert error.column >= 1
        assert str(error).endswith(f": parse error: {error.message}")
    with contextlib.suppress(ParseError):
        parse_selector(text)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_query_cut_or_changed_anywhere_is_read_or_refused(data):
    text = format_expr(data.draw(expressions(depth=2)))
    at = data.draw(st.integers(0, len(text)))
    changed = text[:at] + data.draw(st.sampled_from(WORDS)) + text[at + data.draw(st.integers(0, 3)) :]
    try:
        expr = parse(changed)
    except ParseError:
        return
    assert parse(format_expr(expr)) == expr


@settings(max_examples=150, deadline=None)
@given(st.one_of(pieces, letters))
def test_tokens_lie_in_the_text_in_order(text):
    end = 0
    for kind, start, value in tokenize(text)[:-1]:
        assert kind not in ("EOF", "ERROR")
        assert end <= start
        assert text[start : start + len(value)] == value
        end = start + len(value)
