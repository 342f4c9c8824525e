"""GET /api/v1/status/tenants[?samples=true][&tenant=x]: which tenants there are, and how much each has."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from common.errors import CallerError
from common.tenants import overseen
from query.clients import run_whole
from query.http import answered
from query.http_about import data
from query.params import Parameters
from query.service import QueryService


def router(service: QueryService) -> APIRouter:
    """The route. Who is bound to tenants, or names some, is told of those; who administers, of all."""
    routes = APIRouter()

    async def tenants(p: Parameters, request: Request) -> Response:
        with_samples = p.get("samples") or "false"
        if with_samples not in ("true", "false"):
            raise CallerError(f"samples is 'true' or 'false', not {with_samples!r}")
        own = overseen(request.scope, service.config.tenancy)
        only = p.get("tenant")
        usage = await run_whole(
            service, lambda store, _: store.usage(with_samples=with_samples == "true"), p, request, of_all=True
        )
        rows = []
        for name, one in sorted(usage.tenants.items()):
            if (own is None or name in own) and only in ("", name):
                row: dict[str, object] = {"tenant": name, "series": one.series}
                if with_samples == "true":
                    row |= {"samples": one.samples, "bytes": one.size_bytes}
                rows.append(row)
        return data({"tenants": rows, "deletionsPending": usage.n_pending})

    async def endpoint(request: Request) -> Response:
        return await answered(tenants, request, service.config.max_response_bytes)

    routes.add_api_route(
        "/api/v1/status/tenants", endpoint, methods=["GET"], response_class=Response, name="tenants"
    )
    return routes
