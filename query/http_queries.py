"""GET /api/v1/status/queries: what runs, waits and was slow. DELETE /api/v1/status/queries/{id}: end one."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from common.access import principal_of
from common.tenants import TenantRefused, overseen
from query.http_about import data
from query.responses import error_response, tenant_refused
from query.service import QueryService


def router(service: QueryService) -> APIRouter:
    """The routes; the second is for those with the right of administration."""
    routes = APIRouter()

    async def shown(request: Request) -> Response:
        try:
            return data(service.queries.shown(overseen(request.scope, service.config.tenancy)))
        except TenantRefused as error:
            return tenant_refused(error)

    async def cancel(request: Request) -> Response:
        id_ = request.path_params["id"]
        try:
            tenants = overseen(request.scope, service.config.tenancy)
        except TenantRefused as error:
            return tenant_refused(error)
        if not service.queries.cancel(id_, principal_of(request.scope).name, tenants):
            return error_response(404, "not_found", "no such query runs or waits; it may have ended")
        return Response(status_code=204)

    path = "/api/v1/status/queries"
    routes.add_api_route(path, shown, methods=["GET"], response_class=Response, name="queries")
    routes.add_api_route(path + "/{id}", cancel, methods=["DELETE"], response_class=Response, name="cancel")
    return routes
