"""Regular expressions of matchers: RE2's syntax, anchored at both ends, `.` also matches line ends."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

MAX_MEMORY_BYTES = 64 << 20
"""What RE2 may use for one program; its own default refuses patterns that Prometheus takes."""

# RE2 in C++ and in Go refuse the same patterns, in slightly different words.
_GO_WORDS = {
    "missing ]": "missing closing ]",
    "missing )": "missing closing )",
    "trailing \\": "trailing backslash at end of expression",
    "no argument for repetition operator": "missing argument to repetition operator",
    "invalid repetition size": "invalid repeat count",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "invalid named capture group": "invalid named capture",
    "pattern too large": "expression too large",
}


class InvalidRegex(ValueError):
    """RE2 does not take the pattern; the message is Prometheus'."""


def compile_regex(pattern: str) -> Any:
    """A pattern of the library re2; use its `fullmatch`.

    Raises:
        InvalidRegex: the pattern is not valid.
    """
    import re2  # takes some ms to load, and most queries have no regular expression

    options = re2.Options()
    options.log_errors = False
    options.dot_nl = True
    options.max_mem = MAX_MEMORY_BYTES
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raw = error.args[0]
        text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
    reason, _, part = text.partition(": ")
    if reason.startswith("pattern too large"):
        reason, part = "pattern too large", pattern
    raise InvalidRegex(f"error parsing regexp: {_GO_WORDS.get(reason, reason)}: `{part}`")


@lru_cache(maxsize=1024)
def matches_empty(pattern: str) -> bool:
    """Whether a series without the label matches.

    Raises:
        InvalidRegex: the pattern is not valid.
    """
    return compile_regex(pattern).fullmatch("") is not None
