"""Marks and repairs over HTTP, for other nodes and for `tabor cluster verify` (`docs/format/copy-api.md`).

POST /internal/v1/mark, /internal/v1/repair, JSON in and out
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from common.errors import CallerError, RetryableError
from common.wire.marks import MAX_REQUEST_BYTES, PATH, REPAIR_PATH, encode_mark, parse_request
from storage_node.doors import body_of, refusal
from storage_node.errors import NotHeld
from storage_node.service import StorageNode


def router(name: str, node: StorageNode, repair: Callable[[int], None]) -> APIRouter:
    """The routes of the node `name`. repair(partition): throws a partition away and fetches it anew."""
    routes = APIRouter()

    @routes.post(PATH, response_class=Response)
    async def mark(request: Request) -> Response:
        def answer(partition: int, offset: int) -> Response:
            found = node.mark(partition, offset)
            return Response(encode_mark(found.digest, found.windows), media_type="application/json")

        return await _answered(request, name, answer)

    @routes.post(REPAIR_PATH, response_class=Response)
    async def repaired(request: Request) -> Response:
        def answer(partition: int, _: int) -> Response:
            if partition not in node.views.shards:
                raise NotHeld(partition)
            repair(partition)
            return JSONResponse({"partition": partition})

        return await _answered(request, name, answer)

    return routes


async def _answered(request: Request, name: str, answer: Callable[[int, int], Response]) -> Response:
    body = await body_of(request, MAX_REQUEST_BYTES)
    if body is None:
        return refusal(413, CallerError(f"the request has more than {MAX_REQUEST_BYTES} bytes"))
    try:
        node, partition, offset = parse_request(body)
        if node != name:
            return refusal(421, RetryableError(f"this is node {name!r}, not {node!r}"))
        return answer(partition, offset)
    except CallerError as error:
        return refusal(400, error)
    except RetryableError as error:
        return refusal(503, error)
