"""POST /internal/v1/report: what the audits of a node have found, and which copies are under way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

from common.errors import CallerError, RetryableError
from common.wire.marks import MAX_REQUEST_BYTES, parse_request
from common.wire.reports import PATH, Report, encode_report
from storage_node.doors import body_of, refusal

if TYPE_CHECKING:
    from storage_node.acquiring import Acquirer
    from storage_node.auditing import Auditor


def router(name: str, acquirer: Acquirer, auditor: Auditor) -> APIRouter:
    """The route of the node `name`."""
    routes = APIRouter()

    @routes.post(PATH, response_class=Response)
    async def report(request: Request) -> Response:
        body = await body_of(request, MAX_REQUEST_BYTES)
        if body is None:
            return refusal(413, CallerError(f"the request has more than {MAX_REQUEST_BYTES} bytes"))
        try:
            node, _, _ = parse_request(body)
        except CallerError as error:
            return refusal(400, error)
        if node != name:
            return refusal(421, RetryableError(f"this is node {name!r}, not {node!r}"))
        found = Report(dict(auditor.compared), dict(acquirer.copying))
        return Response(encode_report(found), media_type="application/json")

    return routes
