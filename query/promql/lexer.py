"""Splits a query into tokens.

A token is a tuple (kind, start, value): value is the text as written, start its index in code points. Operators,
brackets and keywords are their own kind (keywords in lower case); the other kinds are the constants below.
A query ends with one EOF token, or with one ERROR token whose value is the message: errors surface when
the parser gets to them, so that the first mistake in the text is the one reported.

What is a token depends on where it stands: inside braces no word is a keyword, inside brackets almost no word is
allowed. The rules and messages are those of Prometheus 3.14 (promql/parser, behaviour of lex.go).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

from query.promql.numbers import scan_number_or_duration
from query.promql.quoting import describe_char, quote, quote_char

Token: TypeAlias = tuple[str, int, str]

IDENTIFIER = "IDENTIFIER"
METRIC = "METRIC"  # an identifier with a colon
NUMBER = "NUMBER"
DURATION = "DURATION"
STRING = "STRING"
EOF = "EOF"
ERROR = "ERROR"

SET_OPERATORS = frozenset({"and", "or", "unless"})
COMPARISONS = frozenset({"==", "!=", ">", "<", ">=", "<="})
OPERATORS = SET_OPERATORS | COMPARISONS | {"+", "-", "*", "/", "%", "^", "atan2", "=~", "!~", "@", "</", ">/"}
UNARY_PRECEDENCE = 5
"""A sign binds like multiplication: only `^` binds tighter."""

PRECEDENCE = (
    {"or": 1, "and": 2, "unless": 2}
    | dict.fromkeys(("==", "!=", "<", "<=", ">", ">=", "</", ">/"), 3)
    | {"+": 4, "-": 4, "*": UNARY_PRECEDENCE, "/": UNARY_PRECEDENCE, "%": UNARY_PRECEDENCE}
    | {"atan2": UNARY_PRECEDENCE, "^": 6}
)
"""Binary operators; the higher binds tighter. All but `^` associate to the left."""

AGGREGATORS = frozenset({"sum", "avg", "count", "min", "max", "group", "stddev", "stdvar"}) | {
    *("topk", "bottomk", "count_values", "quantile", "limitk", "limit_ratio")
}
FILLS = frozenset({"fill", "fill_left", "fill_right"})
MODIFIERS = FILLS | frozenset(
    ["offset", "smoothed", "anchored", "by", "without", "on", "ignoring", "group_left", "group_right", "bool"]
)
PREPROCESSORS = frozenset({"start", "end", "step", "range", "min_of", "max_of"})
_KEYWORDS = SET_OPERATORS | {"atan2"} | AGGREGATORS | MODIFIERS | PREPROCESSORS
_DURATION_FUNCTIONS = frozenset({"step", "range", "min_of", "max_of"})

_SKIPPED = r"(?:[ \t\r\n]+|\#[^\r\n]*)+"
_TOP = re.compile(
    rf"""(?P<skip>{_SKIPPED})
    |(?P<word>[A-Za-z_:][A-Za-z0-9_:]*)
    |(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![A-Za-z0-9_.]))
    |(?P<duration>[0-9]+(?:ms|[smhdwy])(?:[0-9]+(?:ms|[smhdw]))*(?![A-Za-z0-9_]))
    |(?P<digit>[0-9]|\.[0-9])
    |(?P<string>"[^"\\\n\ufffd]*"|'[^'\\\n\ufffd]*'|`[^`\ufffd]*`)
    |(?P<escaped>["'`])
    |(?P<op>==|!=|<=|>=|</|>/|=(?!~)|[-+*/%^@,<>])
    |(?P<bracket>[()\[\]{{}}])
    """,
    re.VERBOSE,
)
_BRACES = re.compile(
    rf"""(?P<skip>{_SKIPPED})
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<string>"[^"\\\n\ufffd]*"|'[^'\\\n\ufffd]*'|`[^`\ufffd]*`)
    |(?P<escaped>["'`])
    |(?P<op>=~|!~|!=|[=,])
    |(?P<close>}})
    """,
    re.VERBOSE,
)
_LETTERS = re.compile(r"[A-Za-z_]+")
_FOLLOWED_BY_PAREN = re.compile(r"[ \t\r\n]*\(")
_SIMPLE_ESCAPES = frozenset("abfnrtv\\")
# First character of an escape with digits: their number, their base, the largest value.
_DIGIT_ESCAPES = {"x": (2, 16, 255), "u": (4, 16, 0x10FFFF), "U": (8, 16, 0x10FFFF)} | dict.fromkeys(
    "01234567", (3, 8, 255)
)


class _LexError(Exception):
    def __init__(self, start: int, message: str) -> None:
        super().__init__(message)
        self.start = start
        self.message = message


def tokenize(text: str) -> list[Token]:
    """All tokens up to the first error; never empty, never raises."""
    return _Lexer(text).run()


class _Lexer:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[Token] = []
        self.parens = 0
        self.in_bracket = False
        self.got_colon = False
        self.got_duration = False
        self.state: Callable[[int], int] = self._top

    def run(self) -> list[Token]:
        end = len(self.text)
        at = 0
        try:
            while at < end:
                at = self.state(at)
            self._finish(end)
        except _LexError as error:
            self.tokens.append((ERROR, error.start, error.message))
        return self.tokens

    def _finish(self, end: int) -> None:
        if self.state == self._braces:
            raise _LexError(end, "unexpected end of input inside braces")
        if self.state == self._duration:
            raise _LexError(end, "unexpected end of input in duration expression")
        if self.parens:
            raise _LexError(end, "unclosed left parenthesis")
        if self.in_bracket:
            raise _LexError(end, "unclosed left bracket")
        self.tokens.append((EOF, end, ""))

    def _top(self, at: int) -> int:
        """Outside braces; also inside brackets after the first number."""
        match = _TOP.match(self.text, at)
        if match is None:
            raise self._unexpected(at)
        group = match.lastgroup
        end = match.end()
        if group == "skip":
            return end
        value = match.group()
        if group == "word":
            return self._bracket_word(at) if self.in_bracket else self._word(at, value)
        if group == "number":
            self.tokens.append((NUMBER, at, value))
        elif group == "duration":
            self.tokens.append((DURATION, at, value))
        elif group == "string":
            self.tokens.append((STRING, at, value))
        elif group == "op":
            self.tokens.append((value, at, value))
        elif group == "bracket":
            self._bracket(at, value)
        elif group == "digit":
            return self._number(at)
        else:
            return self._string(at)
        return end

    def _unexpected(self, at: int) -> _LexError:
        char = self.text[at]
        after = self.text[at + 1 : at + 2]
        if char in "=!":
            return _LexError(at, f"unexpected character after '{char}': {quote_char(after)}")
        return _LexError(at, f"unexpected character: {quote_char(char)}")

    def _word(self, at: int, word: str) -> int:
        end = at + len(word)
        lower = word.lower()
        if lower in _KEYWORDS:
            # The fill modifiers came late: where no parenthesis follows, the words stay names.
            is_name = lower in FILLS and not _FOLLOWED_BY_PAREN.match(self.text, end)
            self.tokens.append((IDENTIFIER if is_name else lower, at, word))
        elif lower in ("inf", "nan"):
            self.tokens.append((NUMBER, at, word))
        else:
            self.tokens.append((METRIC if ":" in word else IDENTIFIER, at, word))
        return end

    def _bracket_word(self, at: int) -> int:
        char = self.text[at]
        if char == ":":
            if self.got_colon:
                raise _LexError(at, f"unexpected colon {quote_char(char)}")
            self.got_colon = True
            self.tokens.append((":", at, ":"))
            return at + 1
        end = self._duration_function(at)
        if end == at:
            raise _LexError(at, f"unexpected character: {quote_char(char)}, expected ':'")
        return end

    def _duration_function(self, at: int) -> int:
        """End of the name of a function of durations, which becomes a token, or `at` if there is none."""
        match = _LETTERS.match(self.text, at)
        if match is None or match.group().lower() not in _DURATION_FUNCTIONS:
            return at
        self.tokens.append((match.group().lower(), at, match.group()))
        return match.end()

    def _bracket(self, at: int, char: str) -> None:
        if char == "[":
            if self.in_bracket:
                raise _LexError(at, f"unexpected left bracket {quote_char(char)}")
            self.in_bracket = True
            self.got_colon = self.got_duration = False
            self.state = self._duration
        elif char == "]":
            if not self.in_bracket:
                raise _LexError(at, f"unexpected right bracket {quote_char(char)}")
            self.in_bracket = False
            self.state = self._top
        elif char == "{":
            self.state = self._braces
        elif char == "(":
            self.parens += 1
        elif char == ")":
            if self.parens == 0:
                raise _LexError(at + 1, f"unexpected right parenthesis {quote_char(char)}")
            self.parens -= 1
        else:
            raise self._unexpected(at)
        self.tokens.append((char, at, char))

    def _braces(self, at: int) -> int:
        match = _BRACES.match(self.text, at)
        if match is None:
            char = self.text[at]
            if char == "!":
                after = quote_char(self.text[at + 1 : at + 2])
                raise _LexError(at, f"unexpected character after '!' inside braces: {after}")
            if char == "{":
                raise _LexError(at, f"unexpected left brace {quote_char(char)}")
            raise _LexError(at, f"unexpected character inside braces: {quote_char(char)}")
        group = match.lastgroup
        value = match.group()
        if group == "op":
            self.tokens.append((value, at, value))
        elif group == "word":
            self.tokens.append((IDENTIFIER, at, value))
        elif group == "string":
            self.tokens.append((STRING, at, value))
        elif group == "close":
            self.tokens.append((value, at, value))
            self.state = self._top
        elif group == "escaped":
            return self._string(at)
        return match.end()

    def _duration(self, at: int) -> int:
        """Inside brackets, before the first number."""
        char = self.text[at]
        if char in " \t\r\n":
            return at + 1
        if char in "()]":
            self._bracket(at, char)
            return at + 1
        if char in "+-*/%^,":
            self.tokens.append((char, at, char))
            return at + 1
        if char == ":":
            if not self.got_duration:
                raise _LexError(at + 1, "unexpected colon before duration in duration expression")
            if self.got_colon:
                raise _LexError(at + 1, "unexpected repeated colon in duration expression")
            self.got_colon = True
            self.tokens.append((":", at, ":"))
            return at + 1
        if char in "0123456789" or (char == "." and self.text[at + 1 : at + 2] in tuple("0123456789")):
            self.got_duration = True
            self.state = self._top
            return self._number(at)
        end = self._duration_function(at)
        if end == at:
            raise _LexError(at, f"unexpected character in duration expression: {quote_char(char)}")
        # A range may consist of `step()` alone and still be followed by a colon.
        self.got_duration = True
        return end

    def _number(self, at: int) -> int:
        end, is_number, is_duration = scan_number_or_duration(self.text, at)
        value = self.text[at:end]
        if not is_number and not is_duration:
            raise _LexError(at, f"bad number or duration syntax: {quote(value)}")
        self.tokens.append((NUMBER if is_number else DURATION, at, value))
        return end

    def _string(self, at: int) -> int:
        """A string with escapes, or one that does not end well."""
        text = self.text
        mark = text[at]
        i = at + 1
        while i < len(text):
            char = text[i]
            if char == mark:
                self.tokens.append((STRING, at, text[at : i + 1]))
                return i + 1
            if char == "\ufffd":
                raise _LexError(at, "invalid UTF-8 rune")
            if char == "\n" and mark != "`":
                break
            i = self._escape(i + 1, at, mark) if char == "\\" and mark != "`" else i + 1
        raise _LexError(at, "unterminated raw string" if mark == "`" else "unterminated quoted string")

    def _escape(self, at: int, start: int, mark: str) -> int:
        """End of the escape sequence whose backslash stands before `at`; `start` is that of the string."""
        text = self.text
        char = text[at : at + 1]
        if not char:
            raise _LexError(start, "escape sequence not terminated")
        if char in _SIMPLE_ESCAPES or char == mark:
            return at + 1
        if char not in _DIGIT_ESCAPES:
            raise _LexError(start, f"unknown escape sequence {describe_char(char)}")
        n_digits, base, largest = _DIGIT_ESCAPES[char]
        first = at if base == 8 else at + 1
        value = 0
        for i in range(first, first + n_digits):
            digit = text[i : i + 1]
            if not digit:
                raise _LexError(start, "escape sequence not terminated")
            number = "0123456789abcdef".find(digit.lower()) if digit.isascii() else -1
            if not 0 <= number < base:
                raise _LexError(start, f"illegal character {describe_char(digit)} in escape sequence")
            value = value * base + number
        if value > largest or 0xD800 <= value < 0xE000:
            raise _LexError(start, "escape sequence is an invalid Unicode code point")
        return first + n_digits
