"""What a query may be refused for before it runs.

CallerError
├── ParseError      the text is no PromQL, or its types do not fit; has a place in the text
└── DurationError   a duration computed from the query's range and step cannot be used
"""

from __future__ import annotations

from common.errors import CallerError
from query.promql.ast import Span


def position(text: str, at: int) -> tuple[int, int]:
    """Line and column, both from 1, of the code point at index `at`.

    Columns count bytes of UTF-8, as Prometheus does in its errors and annotations.
    """
    line_start = text.rfind("\n", 0, at) + 1
    line = text.count("\n", 0, at) + 1
    return line, len(text[line_start:at].encode("utf-8", "surrogatepass")) + 1


class ParseError(CallerError):
    """A query that cannot be parsed; reads `1:5: parse error: ...` as in Prometheus.

    message: the reason alone. line, column: see `position`. span: code points that the reason is about.
    """

    def __init__(self, message: str, text: str, span: Span) -> None:
        self.message = message
        self.span = span
        self.line, self.column = position(text, span.start)
        # Prometheus gives no position in an empty query.
        where = f"{self.line}:{self.column}" if text else "unknown position"
        super().__init__(f"{where}: parse error: {message}")


class DurationError(CallerError):
    """A duration expression gives no usable duration for this range and step; span: where it stands."""

    def __init__(self, message: str, span: Span) -> None:
        super().__init__(message)
        self.message = message
        self.span = span
