"""HTTP of the storage node: the state of its partitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import APIRouter

    from storage_node.service import StorageNode


def router(node: StorageNode) -> APIRouter:
    """`GET /api/v1/status/partitions[?digest=1]`, in the form of Prometheus' API."""
    from fastapi import APIRouter
    from fastapi.responses import JSONResponse

    from common.errors import RetryableError

    api = APIRouter()

    # Not async: it takes locks and asks the log, hence runs in the thread pool.
    @api.get("/api/v1/status/partitions")
    def partitions(digest: bool = False) -> Any:
        try:
            found = node.partitions_status(digest)
        except RetryableError as error:
            body = {"status": "error", "errorType": "unavailable", "error": str(error)}
            headers = {"Retry-After": str(max(1, round(error.retry_after_s)))}
            return JSONResponse(body, status_code=503, headers=headers)
        return {"status": "success", "data": {"partitions": found}}

    return api
