import pytest

from query.promql.ast import Call, ValueType
from query.promql.errors import ParseError
from query.promql.parser import parse
from query.promql.signatures import FUNCTIONS, type_of

_ARGUMENT = {
    ValueType.SCALAR: "1",
    ValueType.VECTOR: "a",
    ValueType.MATRIX: "a[5m]",
    ValueType.STRING: '"s"',
}

FLAG = "--enable-feature=promql-experimental-functions"


def message_of(text: str, *, strict: bool = False) -> str:
    with pytest.raises(ParseError) as caught:
        parse(text, strict=strict)
    return str(caught.value).replace(": parse error: ", ": ")


def call(name: str) -> str:
    args = [_ARGUMENT[type_] for type_ in FUNCTIONS[name].args]
    if name == "info":
        args[1] = '{b=~".*"}'
    return f"{name}({', '.join(args)})"


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_function_takes_its_arguments_and_no_wrong_number(name):
    expr = parse(call(name))
    assert isinstance(expr, Call)
    assert expr.function == name
    assert type_of(expr) is FUNCTIONS[name].returns
    if FUNCTIONS[name].optional == 0:
        n = len(FUNCTIONS[name].args)
        extra = call(name)[:-1] + (", 1)" if n else "1)")
        assert message_of(extra).endswith(f'expected {n} argument(s) in call to "{name}", got {n + 1}')


def test_functions_are_those_of_the_release():
    assert len(FUNCTIONS) == 90
    assert FUNCTIONS["first_over_time"].experimental is False


@pytest.mark.parametrize(
    "text",
    [
        "hour()",
        "round(a)",
        'label_join(a, "x", "-")',
        'label_join(a, "x", "-", "y", "z", "w")',
        'sort_by_label(a, "x", "y", "z")',
        "sort_by_label(a)",
        "info(a)",
        'info(a, {data=~".*"})',
        "info(a, {})",
        'info(a, {"target_info"})',
        'histogram_quantiles(a, "q", 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)',
        "start() + end() - step() * range()",
        "min_of(step(), max_of(1, 2))",
        "rate(a[5m:1m])",
        "(scalar(a))",
    ],
)
def test_optional_arguments_and_names_that_are_keywords_work(text):
    parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f(a)", '1:1: unknown function with name "f"'),
        ("a > b()", '1:5: unknown function with name "b"'),
        ("RATE(a[5m])", '1:1: unknown function with name "RATE"'),
        ("Step()", '1:1: unknown function with name "Step"'),
        ("f(", "1:3: unclosed left parenthesis"),
        ("f(,)", '1:3: unexpected ","'),
        ("abs(a,)", "1:6: trailing commas not allowed in function call args"),
        ("abs()", '1:1: expected 1 argument(s) in call to "abs", got 0'),
        ("hour(a, b, c)", '1:1: expected at most 1 argument(s) in call to "hour", got 3'),
        ("round()", '1:1: expected at least 1 argument(s) in call to "round", got 0'),
        ('label_join(a, "x")', '1:1: expected at least 3 argument(s) in call to "label_join", got 2'),
        ("abs(1)", '1:5: expected type instant vector in call to function "abs", got scalar'),
        ("rate(a)", '1:6: expected type range vector in call to function "rate", got instant vector'),
        ("abs(a[5m])", '1:5: expected type instant vector in call to function "abs", got range vector'),
        ('label_join(a, "x", "-", 1)', '1:25: expected type string in call to function "label_join", got scalar'),
        ('label_join(a,"","","",1)', '1:23: expected type string in call to function "label_join", got scalar'),
        ('abs("a", b)', '1:1: expected 1 argument(s) in call to "abs", got 2'),
        ("abs(-'a', b)", '1:1: expected 1 argument(s) in call to "abs", got 2'),
        ("info(a, b)", "1:9: expected label selectors only, got vector selector instead"),
        ("info(a, ({b='c'}))", "1:9: expected label selectors only"),
        ("info(a, 1)", '1:1: expected type instant vector in call to function "info", got scalar'),
        ("info({}, {})", "1:6: vector selector must contain at least one non-empty matcher"),
        ("abs(rate(1), b) ;", "1:17: unexpected character: ';'"),
    ],
)  # fmt: skip
def test_bad_calls_are_refused_in_prometheus_words(text, message):
    assert message_of(text) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 + min_of(1, 2)", '1:5: function "min_of" is not enabled'),
        ("limitk(1, a)", f"1:1: limitk() is experimental and must be enabled with {FLAG}"),
        ("a smoothed", "1:1: smoothed modifier is experimental and not enabled"),
        ("rate(a[5m] anchored)", "1:6: anchored modifier is experimental and not enabled"),
        ("a + fill(1) b", "1:1: binop fill modifiers are experimental and not enabled"),
    ],
)  # fmt: skip
def test_strict_parsing_refuses_what_prometheus_has_behind_a_flag(text, message):
    parse(text)
    assert message_of(text, strict=True) == message


@pytest.mark.parametrize("text", ["first_over_time(a[5m])", "a[step() + 1m]", "a </ 5", "histogram_avg(a)"])
def test_strict_parsing_takes_what_prometheus_has_without_a_flag(text):
    parse(text, strict=True)


@pytest.mark.parametrize(
    ("text", "type_"),
    [
        ("1 + 1", ValueType.SCALAR),
        ("1 + a", ValueType.VECTOR),
        ("(-a)", ValueType.VECTOR),
        ("-(1 + scalar(a))", ValueType.SCALAR),
        ("a and b", ValueType.VECTOR),
        ("sum(a) > bool 1", ValueType.VECTOR),
        ("a[5m:]", ValueType.MATRIX),
        ('("s")', ValueType.STRING),
    ],
)
def test_types_are_known_afterwards(text, type_):
    assert type_of(parse(text)) is type_
