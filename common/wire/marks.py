"""Marks of a storage node as JSON (`docs/format/copy-api.md`, 'Mark')."""

from __future__ import annotations

from typing import Any

import orjson

from common.errors import CallerError
from common.wire.frames import WireError, parse_object

COPY_PATH = "/internal/v1/copy"
PATH = "/internal/v1/mark"
REPAIR_PATH = "/internal/v1/repair"
VERSION = 1
MAX_REQUEST_BYTES = 4096
MAX_ANSWER_BYTES = 64 << 20


def encode_request(node: str, partition: int, offset: int) -> bytes:
    """A request for the digests of a partition at the mark at `offset`; of REPAIR_PATH, to fetch it anew."""
    return orjson.dumps({"v": VERSION, "node": node, "partition": partition, "offset": offset})


def parse_request(body: bytes) -> tuple[str, int, int]:
    """(node, partition, offset); raises CallerError."""
    try:
        content: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise CallerError(f"the request is not JSON: {error}") from None
    if not isinstance(content, dict) or content.get("v") != VERSION:
        raise CallerError(f"the request is not of version {VERSION}")
    node, partition, offset = content.get("node"), content.get("partition"), content.get("offset")
    if not isinstance(node, str) or type(partition) is not int or type(offset) is not int:
        raise CallerError("'node', 'partition' or 'offset' is missing or of another type")
    return node, partition, offset


def encode_mark(digest: str, windows: dict[int, str]) -> bytes:
    return orjson.dumps({"v": VERSION, "digest": digest, "windows": {str(n): one for n, one in windows.items()}})


def parse_mark(body: bytes) -> tuple[str, dict[int, str]]:
    """(digest, digest of each window); raises WireError."""
    content = parse_object(memoryview(body))
    digest, windows = content.get("digest"), content.get("windows")
    if content.get("v") != VERSION or not isinstance(digest, str) or not isinstance(windows, dict):
        raise WireError("the answer is no mark")
    try:
        return digest, {int(number): str(one) for number, one in windows.items()}
    except ValueError:
        raise WireError("the answer is no mark") from None
