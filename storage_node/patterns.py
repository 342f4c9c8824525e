"""Regular expressions of matchers: fully anchored RE2, with the usual simple ones answered without RE2."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from common.errors import CallerError

_SPECIAL = frozenset("\\.+*?()|[]{}^$")
_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")

Predicate = Callable[[str], bool]


class Pattern:
    """A regular expression that matches whole values.

    literals: the values it matches, if these are finitely many and simply listed (`a|b|c`), else None.
    """

    def __init__(self, regex: str) -> None:
        alternatives = _alternatives(regex)
        self.literals: frozenset[str] | None = None
        self.matches: Predicate
        if alternatives is not None and all(not wild for _, wild in alternatives):
            self.literals = frozenset(text for text, _ in alternatives)
            self.matches = self.literals.__contains__
            return
        simple = _simple(*alternatives[0]) if alternatives is not None and len(alternatives) == 1 else None
        self.matches = simple if simple is not None else _re2(regex)


@lru_cache(maxsize=64)
def compile_pattern(regex: str) -> Pattern:
    """The pattern of a matcher.

    Raises:
        CallerError: the expression is not valid RE2.
    """
    return Pattern(regex)


def _alternatives(regex: str) -> list[tuple[str, str]] | None:
    """Split `a|b.*` into pairs (literal, wildcards), or None if there is more to the expression.

    Wildcards are '' or two characters, of what comes before and after the literal: ' ' for nothing, '*' for `.*`
    and '+' for `.+`. So `a|b.*|.+` gives ('a', ''), ('b', ' *'), ('', '+ ').
    """
    for opening in ("(?:", "("):
        if regex.startswith(opening) and regex.endswith(")"):
            regex = regex[len(opening) : -1]
            break
    found: list[tuple[str, str]] = []
    text, before, after = "", " ", " "
    at = 0
    while at < len(regex):
        char, following = regex[at], regex[at + 1 : at + 2]
        at += 1
        if char == "|":
            found.append((text, (before + after).strip() and before + after))
            text, before, after = "", " ", " "
        elif char == "." and following in ("*", "+"):
            if text or before != " ":
                if after != " ":
                    return None
                after = following
            else:
                before = following
            at += 1
        elif after != " ":
            return None
        elif char == "\\" and following in _PUNCTUATION and following:
            text += following
            at += 1
        elif char in _SPECIAL:
            return None
        else:
            text += char
    found.append((text, (before + after).strip() and before + after))
    return found


def _simple(text: str, wild: str) -> Predicate | None:
    """A test for one literal with `.*` or `.+` around it, if Python has a quick one."""
    if not text and wild == "* ":
        return lambda value: True
    if not text and wild == "+ ":
        return lambda value: value != ""
    if wild == " *":
        return lambda value: value.startswith(text)
    if wild == " +":
        return lambda value: value.startswith(text) and len(value) > len(text)
    if wild == "* ":
        return lambda value: value.endswith(text)
    if wild == "**":
        return lambda value: text in value
    return None


def _re2(regex: str) -> Predicate:
    import re2

    options = re2.Options()
    options.dot_nl = True
    options.never_capture = True
    options.log_errors = False
    try:
        compiled = re2.compile(regex.encode(), options)
    except UnicodeEncodeError:
        raise CallerError("invalid regular expression: not Unicode") from None
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        reason = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise CallerError(f"invalid regular expression {regex!r}: {reason}") from None
    return lambda value: compiled.fullmatch(value.encode()) is not None
