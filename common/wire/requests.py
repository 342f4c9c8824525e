"""Requests of the read API as JSON (`docs/format/read-api.md`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import orjson

from common.errors import CallerError
from common.store import ANY_NUMBER, MAX_TIME_MS, MIN_TIME_MS, Matcher, MatchOp
from common.wire.evaluation import Evaluation, evaluation_of, texts_of

VERSION = 2
MAX_REQUEST_BYTES = 16 << 20
MAX_WAIT_S = 3600.0
_READS = (
    "select",
    "series",
    "label_names",
    "label_values",
    "metadata",
    "exemplars",
    "extent",
    "evaluate",
    "usage",
    "births",
)
PATHS = {read: f"/internal/v1/{read}" for read in _READS}
"""Where each kind of read is posted to."""


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """What a node is asked.

    node: name of the node that is meant; another one refuses.
    partitions: what to read, ascending; a node that does not hold them all refuses.
    required: next offset that each of them must have reached before reading; None for an eventual read.
    wait_s: how long the node may wait for that.
    matcher_sets: a union of conjunctions; of `select` exactly one. Times are closed bounds in ms.
    max_samples: of `select`. max_series: of `select` and `series`.
    label: of `label_values`, or the family of `metadata`, '' for all; 'samples' of a `usage` that counts them.
    evaluation: of `evaluate`, which has no matchers and times of its own.
    tenants: of `metadata`, whose; None for all. Of other reads the matchers say so.
    """

    node: str
    partitions: tuple[int, ...]
    required: tuple[int, ...] | None = None
    wait_s: float = 0.0
    matcher_sets: tuple[tuple[Matcher, ...], ...] = field(default=())
    min_time_ms: int = MIN_TIME_MS
    max_time_ms: int = MAX_TIME_MS
    max_samples: int = 0
    max_series: int = ANY_NUMBER
    label: str = ""
    evaluation: Evaluation | None = None
    tenants: tuple[str, ...] | None = None


def encode_request(request: ReadRequest) -> bytes:
    """A request as JSON.

    Raises:
        CallerError: it is larger than MAX_REQUEST_BYTES, or holds text that is not Unicode.
    """
    content: dict[str, Any] = {
        "v": VERSION,
        "node": request.node,
        "partitions": request.partitions,
        "required": request.required,
        "wait_s": request.wait_s,
        "matcher_sets": [[[m.op.value, m.name, m.value] for m in matchers] for matchers in request.matcher_sets],
        "min_time_ms": request.min_time_ms,
        "max_time_ms": request.max_time_ms,
        "max_samples": request.max_samples,
        "max_series": request.max_series,
        "label": request.label,
    }
    if request.evaluation is not None:
        content["evaluation"] = request.evaluation.content()
    if request.tenants is not None:
        content["tenants"] = request.tenants
    try:
        body = orjson.dumps(content)
    except TypeError as error:
        raise CallerError(f"the query cannot be sent to a storage node: {error}") from None
    if len(body) > MAX_REQUEST_BYTES:
        raise CallerError(f"the query takes more than {MAX_REQUEST_BYTES} bytes")
    return body


def parse_request(body: bytes) -> ReadRequest:
    """Take a request apart; raises CallerError if it is not one of this version."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise CallerError(f"the request is not JSON: {error}") from None
    if not isinstance(content, dict) or content.get("v") != VERSION:
        raise CallerError(f"the request is not of version {VERSION}")
    partitions, required = content.get("partitions"), content.get("required")
    wait_s = content.get("wait_s")
    if not isinstance(partitions, list) or not _are_partitions(partitions):
        raise CallerError("'partitions' is not an ascending list of partitions")
    if required is not None and not (isinstance(required, list) and all(type(o) is int for o in required)):
        raise CallerError("'required' is not a list of offsets")
    if required is not None and len(required) != len(partitions):
        raise CallerError("'required' has not one offset for each partition")
    if isinstance(wait_s, bool) or not isinstance(wait_s, int | float) or not 0 <= wait_s <= MAX_WAIT_S:
        raise CallerError(f"'wait_s' is not between 0 and {MAX_WAIT_S:g}")
    return ReadRequest(
        node=_text(content, "node"),
        partitions=tuple(partitions),
        required=None if required is None else tuple(required),
        wait_s=float(wait_s),
        matcher_sets=_matcher_sets(content.get("matcher_sets")),
        min_time_ms=_integer(content, "min_time_ms", MIN_TIME_MS),
        max_time_ms=_integer(content, "max_time_ms", MIN_TIME_MS),
        max_samples=_integer(content, "max_samples", 0),
        max_series=_integer(content, "max_series", 0),
        label=_text(content, "label"),
        evaluation=evaluation_of(content.get("evaluation")),
        tenants=texts_of(content, "tenants"),
    )


def _are_partitions(content: list[Any]) -> bool:
    are_numbers = all(type(partition) is int and partition >= 0 for partition in content)
    return are_numbers and all(one < other for one, other in pairwise(content))


def _matcher_sets(content: Any) -> tuple[tuple[Matcher, ...], ...]:
    if not isinstance(content, list) or not all(isinstance(matchers, list) for matchers in content):
        raise CallerError("'matcher_sets' is not a list of lists")
    return tuple(tuple(_matcher(matcher) for matcher in matchers) for matchers in content)


def _matcher(content: Any) -> Matcher:
    match content:
        case [str(op), str(name), str(value)] if op in MatchOp._value2member_map_:
            return Matcher(MatchOp(op), name, value)
    raise CallerError("a matcher is not [operator, name, value]")


def _text(content: dict[str, Any], key: str) -> str:
    found = content.get(key)
    if not isinstance(found, str):
        raise CallerError(f"{key!r} is not text")
    return found


def _integer(content: dict[str, Any], key: str, least: int) -> int:
    found = content.get(key)
    if type(found) is not int or not least <= found <= MAX_TIME_MS:
        raise CallerError(f"{key!r} is not a number from {least} to {MAX_TIME_MS}")
    return found
