"""The parser's view of the tokens, and how it complains about them.

Prometheus names the construct in whose middle a query goes wrong (`unexpected "," in aggregation`). `context` is
the innermost such construct; it is set for as long as the parser is inside of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from query.promql.ast import Span
from query.promql.errors import ParseError
from query.promql.lexer import (
    AGGREGATORS,
    DURATION,
    EOF,
    ERROR,
    IDENTIFIER,
    METRIC,
    MODIFIERS,
    NUMBER,
    OPERATORS,
    STRING,
    Token,
    tokenize,
)
from query.promql.quoting import quote

_NAMES = {
    IDENTIFIER: "identifier",
    METRIC: "metric identifier",
    NUMBER: "number",
    DURATION: "duration",
    STRING: "string",
}
_SHOWN_CHARS = 10


class TokenReader:
    """kind, start, value: the token to be consumed next. end: where the last consumed one ended."""

    def __init__(self, text: str, *, strict: bool) -> None:
        self.text = text
        self.strict = strict
        self.context = ("", "")
        self.end = 0
        self._tokens: list[Token] = tokenize(text)
        self._index = 0
        self.kind, self.start, self.value = self._tokens[0]

    def advance(self) -> None:
        """Consume a token. The last one, EOF or ERROR, is never consumed."""
        self.end = self.start + len(self.value)
        self._index += 1
        self.kind, self.start, self.value = self._tokens[self._index]

    def next_kind(self) -> str:
        """Kind of the token after this one, which must not be the last."""
        return self._tokens[self._index + 1][0]

    def expect(self, kind: str) -> None:
        """Consume a token of this kind or complain in the present context."""
        if self.kind != kind:
            raise self.unexpected()
        self.advance()

    def error(self, message: str, start: int, end: int) -> ParseError:
        return ParseError(message, self.text, Span(start, end))

    def unexpected(self, context: str | None = None, expected: str = "") -> ParseError:
        """Complaint about the token, in the given context or else the one set."""
        if self.kind == ERROR:
            return self.error(self.value, self.start, len(self.text))
        if context is None:
            context, expected = self.context
        message = f"unexpected {_describe(self.kind, self.value)}"
        if context:
            message += f" in {context}"
        if expected:
            message += f", expected {expected}"
        return self.error(message, self.start, self.start + len(self.value))

    @contextmanager
    def within(self, context: str, expected: str) -> Iterator[None]:
        outer = self.context
        self.context = (context, expected)
        yield
        self.context = outer


def _describe(kind: str, value: str) -> str:
    if kind == EOF:
        return "end of input"
    if kind in MODIFIERS:
        return f"<{value}>"
    if kind in OPERATORS:
        return f"<op:{value}>"
    if kind in AGGREGATORS:
        return f"<aggr:{value}>"
    if kind in (IDENTIFIER, METRIC) or len(value.encode()) <= _SHOWN_CHARS:
        shown = quote(value)
    else:
        shown = quote(value[:_SHOWN_CHARS]) + "..."
    return f"{_NAMES[kind]} {shown}" if kind in _NAMES else shown
