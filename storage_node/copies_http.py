"""Copies of partitions over HTTP, for other nodes (`docs/format/copy-api.md`).

POST /internal/v1/copy, JSON in, frames out
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from common.errors import CallerError, RetryableError
from common.wire.frames import MEDIA_TYPE
from common.wire.marks import COPY_PATH
from storage_node.copies import VERSION, Copies
from storage_node.doors import body_of, refusal

MAX_REQUEST_BYTES = 64 << 10


def router(name: str, copies: Copies) -> APIRouter:
    """The route, of the node `name`."""
    routes = APIRouter()

    @routes.post(COPY_PATH, response_class=Response)
    async def copy(request: Request) -> Response:
        body = await body_of(request, MAX_REQUEST_BYTES)
        if body is None:
            return refusal(413, CallerError(f"the request has more than {MAX_REQUEST_BYTES} bytes"))
        try:
            node, partition, snapshot, after = parse_request(body)
        except CallerError as error:
            return refusal(400, error)
        if node != name:
            return refusal(421, RetryableError(f"this is node {name!r}, not {node!r}"))

        def begin() -> Iterator[bytes]:
            return copies.frames(snapshot or copies.begin(partition), after)

        from anyio import to_thread

        try:
            frames = await to_thread.run_sync(begin)
        except RetryableError as error:
            return refusal(503, error)
        return StreamingResponse(frames, media_type=MEDIA_TYPE)

    return routes


def encode_request(node: str, partition: int, snapshot: str, after: bytes) -> bytes:
    """A request for a new copy if `snapshot` is empty, else for the rest of that one, behind a key."""
    return orjson.dumps(
        {"v": VERSION, "node": node, "partition": partition, "snapshot": snapshot, "after": after.hex()}
    )


def parse_request(body: bytes) -> tuple[str, int, str, bytes]:
    """(node, partition, snapshot, after); raises CallerError."""
    try:
        content: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise CallerError(f"the request is not JSON: {error}") from None
    if not isinstance(content, dict) or content.get("v") != VERSION:
        raise CallerError(f"the request is not of version {VERSION}")
    node, partition = content.get("node"), content.get("partition")
    snapshot, after = content.get("snapshot"), content.get("after")
    if not isinstance(node, str) or not isinstance(snapshot, str) or not isinstance(after, str):
        raise CallerError("'node', 'snapshot' or 'after' is not text")
    if type(partition) is not int or not 0 <= partition < 1 << 32:
        raise CallerError("'partition' is not the number of one")
    try:
        return node, partition, snapshot, bytes.fromhex(after)
    except ValueError:
        raise CallerError("'after' is not a key in hexadecimal digits") from None
