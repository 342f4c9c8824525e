"""Part of a query that a node evaluates: which, and at which steps (`docs/format/read-api.md`)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from common.errors import CallerError

MAX_DEPTH = 1 << 12
MAX_STEP_MS = 1 << 61
"""Steps lie within this of the epoch."""


class NotEvaluated(CallerError):
    """A node says why it does not evaluate an expression; other nodes would say the same.

    reason: 'evaluation', the expression has no value; 'timeout'; 'histograms', there are native histograms where
    only floats can be sent.
    """

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An expression within a query, and the steps at which it is wanted.

    query: the whole text, so that messages say where in it something is. strict: as it was parsed.
    path: which child to go to at each node of the syntax tree, from its root.
    first_ms, step_ms, n_steps: the steps. query_start_ms, query_end_ms, query_step_ms: those of the whole query.
    lookback_ms, subquery_step_ms: as the query server has them.
    samples_read, series_read: what the query has read already; counts against its limits.
    timeout_s: how long it may still take.
    count_steps: whether to say how many samples are looked at for each step; only sent if so.
    tenants: whose series it reads; None for all there are.
    """

    query: str
    strict: bool
    path: tuple[int, ...]
    first_ms: int
    step_ms: int
    n_steps: int
    query_start_ms: int
    query_end_ms: int
    query_step_ms: int
    lookback_ms: int
    subquery_step_ms: int
    samples_read: int
    series_read: int
    timeout_s: float
    count_steps: bool = False
    tenants: tuple[str, ...] | None = None

    def content(self) -> dict[str, Any]:
        """As JSON."""
        content = asdict(self)
        if not self.count_steps:
            del content["count_steps"]
        if self.tenants is None:
            del content["tenants"]
        return content


_LEAST = {"first_ms": -MAX_STEP_MS, "query_start_ms": -MAX_STEP_MS, "query_end_ms": -MAX_STEP_MS}
_LEAST |= {"n_steps": 1, "lookback_ms": 1, "subquery_step_ms": 1}


def evaluation_of(content: Any) -> Evaluation | None:
    """What `Evaluation.content` wrote; raises CallerError."""
    if content is None:
        return None
    optional = {"count_steps", "tenants"}
    if not isinstance(content, dict) or content.keys() | optional != {f.name for f in fields(Evaluation)}:
        raise CallerError("'evaluation' has other members than it should")
    tenants = texts_of(content, "tenants")
    for name, value in content.items():
        match name:
            case "query":
                good = isinstance(value, str)
            case "strict" | "count_steps":
                good = isinstance(value, bool)
            case "path":
                good = isinstance(value, list) and len(value) <= MAX_DEPTH and all(type(i) is int for i in value)
            case "tenants":
                good = True
            case "timeout_s":
                good = type(value) in (int, float) and 0 < value < MAX_STEP_MS
            case _:
                good = type(value) is int and _LEAST.get(name, 0) <= value <= MAX_STEP_MS
        if not good:
            raise CallerError(f"{name!r} of 'evaluation' is not what it should be")
    if content["first_ms"] + content["step_ms"] * content["n_steps"] > MAX_STEP_MS:
        raise CallerError("'evaluation' has steps beyond the end of time")
    return Evaluation(**{**content, "path": tuple(content["path"]), "tenants": tenants})


def texts_of(content: dict[str, Any], key: str) -> tuple[str, ...] | None:
    """A member that is a list of texts, not empty, or is not there; raises CallerError."""
    found = content.get(key)
    if found is None:
        return None
    if not isinstance(found, list) or not found or not all(isinstance(text, str) for text in found):
        raise CallerError(f"{key!r} is not a list of texts")
    return tuple(found)
