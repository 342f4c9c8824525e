"""Small requests to storage nodes, from nodes and from the command line: their marks, and repairs."""

from __future__ import annotations

import time
from collections.abc import Iterable

from common.calling import ANONYMOUS, Caller
from common.errors import RetryableError
from common.wire import marks, reports
from common.wire.frames import WireError, parse_object
from common.wire.reports import Report

TIMEOUT_S = 10.0
_PAUSE_S = 0.2
_MAX_ERROR_BYTES = 64 << 10


def fetch_mark(
    node: str, address: str, partition: int, offset: int, *, wait_s: float = 0.0, caller: Caller = ANONYMOUS
) -> tuple[str, dict[int, str]]:
    """Digest of a partition, and of each of its windows, at a mark; waits until the node has come to it.

    Raises:
        RetryableError: the node does not answer, does not hold the partition, or has not come so far in time.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            request = marks.encode_request(node, partition, offset)
            return marks.parse_mark(_post(caller, address, marks.PATH, request))
        except RetryableError:
            if time.monotonic() + _PAUSE_S > deadline:
                raise
            time.sleep(_PAUSE_S)


def ask_to_repair(node: str, address: str, partition: int, caller: Caller = ANONYMOUS) -> None:
    """Have a node throw a partition away and fetch it anew. Raises RetryableError."""
    _post(caller, address, marks.REPAIR_PATH, marks.encode_request(node, partition, 0))


def fetch_report(node: str, address: str, caller: Caller, timeout_s: float) -> Report:
    """What a node's audits have found, and what it copies. Raises RetryableError."""
    request = marks.encode_request(node, 0, 0)
    return reports.parse_report(_post(caller, address, reports.PATH, request, timeout_s))


def _post(caller: Caller, address: str, path: str, body: bytes, timeout_s: float = TIMEOUT_S) -> bytes:
    import httpx

    try:
        response = httpx.post(
            caller.url(address, path),
            content=body,
            headers=caller.headers(),
            timeout=timeout_s,
            trust_env=False,
            verify=caller.context(),
        )
    except httpx.HTTPError as error:
        raise RetryableError(str(error) or type(error).__name__) from None
    if len(response.content) > marks.MAX_ANSWER_BYTES:
        raise WireError("the answer is too large")
    if response.status_code != 200:
        raise RetryableError(error_text(response.status_code, error_body([response.content])))
    return response.content


def error_body(chunks: Iterable[bytes]) -> bytes:
    """The body of an error, as far as it can be one; whoever sends more is no node."""
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > _MAX_ERROR_BYTES:
            break
    return bytes(body)


def error_text(status: int, body: bytes) -> str:
    """What a node says of why it refuses, for messages."""
    try:
        reason = parse_object(memoryview(body)).get("message")
    except WireError:
        reason = None
    return f"HTTP status {status}" + (f": {reason}" if reason else "")
