"""Selectors: metric names, matchers in braces, and lists of labels in parentheses."""

from __future__ import annotations

from common.labels import METRIC_NAME
from common.store import Matcher, MatchOp
from query.promql.ast import Span, VectorSelector
from query.promql.duration_parser import DurationParser
from query.promql.lexer import AGGREGATORS, IDENTIFIER, METRIC, MODIFIERS, PREPROCESSORS, SET_OPERATORS, STRING
from query.promql.quoting import is_utf8, quote, unquote
from query.promql.regex import InvalidRegex, matches_empty

METRIC_KINDS = (
    frozenset({IDENTIFIER, METRIC})
    | AGGREGATORS
    | PREPROCESSORS
    | SET_OPERATORS
    | (MODIFIERS - {"bool", "on", "ignoring", "group_left", "group_right"})
)
"""Tokens that may be the name of a metric: most keywords still may."""

LABEL_KINDS = METRIC_KINDS | MODIFIERS | {"atan2"}
"""Tokens that may be a label in parentheses."""

_MATCH_OPS = {op.value: op for op in MatchOp}


def has_non_empty_matcher(matchers: tuple[Matcher, ...]) -> bool:
    """Whether some matcher refuses series without its label; else they select about everything."""
    return not all(_matches_empty(matcher) for matcher in matchers)


def _matches_empty(matcher: Matcher) -> bool:
    match matcher.op:
        case MatchOp.EQUAL:
            return matcher.value == ""
        case MatchOp.NOT_EQUAL:
            return matcher.value != ""
        case MatchOp.REGEX:
            return matches_empty(matcher.value)
        case MatchOp.NOT_REGEX:
            return not matches_empty(matcher.value)


MAX_MATCHERS = 1000
"""In one query, or one selector of the API: each is a search of its own."""


class SelectorParser(DurationParser):
    """Parses selectors and lists of labels."""

    def __init__(self, text: str, *, strict: bool) -> None:
        super().__init__(text, strict=strict)
        self._n_matchers = 0

    def selector(self) -> VectorSelector:
        """A selector without brackets and modifiers."""
        start = self.start
        name = None
        matchers: list[Matcher] = []
        if self.kind in METRIC_KINDS:
            name = self.value
            self.advance()
        elif self.kind != "{":
            raise self.unexpected()
        if self.kind == "{":
            matchers = self._matchers()
        if name is not None:
            matchers.append(Matcher(MatchOp.EQUAL, METRIC_NAME, name))
        return VectorSelector(name, tuple(matchers), span=Span(start, self.end))

    def selector_mistake(self, selector: VectorSelector) -> str | None:
        if selector.name is None:
            if has_non_empty_matcher(selector.matchers):
                return None
            return "vector selector must contain at least one non-empty matcher"
        for matcher in selector.matchers[:-1]:
            if matcher.name == METRIC_NAME:
                names = f"{quote(selector.name)} or {quote(matcher.value)}"
                return f"metric name must not be set twice: {names}"
        return None

    def _matchers(self) -> list[Matcher]:
        self.advance()
        matchers = []
        while self.kind != "}":
            self._n_matchers += 1
            if self._n_matchers > MAX_MATCHERS:
                message = f"too many label matchers, at most {MAX_MATCHERS} are allowed"
                raise self.error(message, self.start, self.start + len(self.value))
            matchers.append(self._matcher())
            if self.kind == ",":
                self.advance()
            elif self.kind != "}":
                raise self.unexpected("label matching", '"," or "}"')
        self.advance()
        return matchers

    def _matcher(self) -> Matcher:
        start = self.start
        if self.kind == STRING:
            name = self._utf8_string()
            if self.kind not in _MATCH_OPS:
                return Matcher(MatchOp.EQUAL, METRIC_NAME, name)
        elif self.kind == IDENTIFIER:
            name = self.value
            self.advance()
            if self.kind not in _MATCH_OPS:
                raise self.unexpected("label matching", "label matching operator")
        else:
            raise self.unexpected("label matching", 'identifier or "}"')
        op = _MATCH_OPS[self.kind]
        self.advance()
        if self.kind != STRING:
            raise self.unexpected("label matching", "string")
        value = self._utf8_string()
        if op in (MatchOp.REGEX, MatchOp.NOT_REGEX):
            try:
                matches_empty(value)
            except InvalidRegex as error:
                raise self.error(str(error), start, self.end) from None
        return Matcher(op, name, value)

    def _utf8_string(self) -> str:
        """Value of a string token that will be compared with stored names or values, all of them UTF-8."""
        value = unquote(self.value)
        if not is_utf8(value):
            message = f"invalid UTF-8 in {quote(value)}"
            raise self.error(message, self.start, self.start + len(self.value))
        self.advance()
        return value

    def labels(self) -> tuple[str, ...]:
        """Labels in parentheses, as after `by` and `on`."""
        if self.kind != "(":
            raise self.unexpected("grouping opts", '"("')
        self.advance()
        labels = []
        while self.kind != ")":
            labels.append(self._label())
            if self.kind == ",":
                self.advance()
            elif self.kind != ")":
                raise self.unexpected("grouping opts", '"," or ")"')
        self.advance()
        return tuple(labels)

    def _label(self) -> str:
        if self.kind == STRING:
            label = unquote(self.value)
            if not label or not is_utf8(label):
                message = f"invalid label name for grouping: {quote(label)}"
                raise self.error(message, self.start, self.start + len(self.value))
        elif self.kind in LABEL_KINDS:
            label = self.value
        else:
            raise self.unexpected("grouping opts", "label")
        self.advance()
        return label
