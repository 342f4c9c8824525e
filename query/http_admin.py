"""Prometheus' admin API, as far as it has a meaning here: deleting series.

The tombstones go into the log, like all that is written; whoever wires this says how.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from fastapi import APIRouter, Request, Response

from common.errors import CallerError
from common.tenants import Tenancy, TenantRefused, overseen, tenant_of, why_no_tenant
from common.tombstones import Tombstone
from query.http import answered
from query.params import Parameters
from query.tenants import deleting

Delete = Callable[[Sequence[Tombstone]], Future[Any]]
DeleteTenant = Callable[[str], Future[Any]]


def router(delete: Delete, tenancy: Tenancy = Tenancy.OFF, delete_tenant: DeleteTenant | None = None) -> APIRouter:
    """Routes of the admin API; the futures are done when the log has all of the tombstones."""
    routes = APIRouter()

    async def delete_series(p: Parameters, request: Request) -> Response:
        matcher_sets = p.matcher_sets()
        if not matcher_sets:
            raise CallerError("no match[] parameter provided")
        low, high = p.time_range()
        tenant = tenant_of(request.scope, tenancy)
        found = (
            matcher_sets if tenancy is Tenancy.OFF else [deleting(matchers, tenant) for matchers in matcher_sets]
        )
        tombstones = [Tombstone(tuple(matchers), low, high) for matchers in found if matchers is not None]
        if tombstones:
            await asyncio.wrap_future(delete(tombstones))
        return Response(status_code=204)

    async def clean_tombstones(p: Parameters, request: Request) -> Response:
        # Storage nodes do so by themselves.
        return Response(status_code=204)

    async def forget_tenant(p: Parameters, request: Request) -> Response:
        assert delete_tenant is not None
        if tenancy is Tenancy.OFF:
            raise CallerError("tenants are switched off here (--tenancy)")
        name = p.get("tenant")
        reason = why_no_tenant(name)
        if reason is not None:
            raise CallerError(reason)
        own = overseen(request.scope, tenancy)
        if own is not None and name not in own:
            raise TenantRefused(403, "the request is not for this tenant")
        await asyncio.wrap_future(delete_tenant(name))
        return Response(status_code=204)

    for handler in (delete_series, clean_tombstones):
        _add(routes, f"/api/v1/admin/tsdb/{handler.__name__}", handler)
    if delete_tenant is not None:
        _add(routes, "/api/v1/admin/delete_tenant", forget_tenant)
    return routes


def _add(routes: APIRouter, path: str, handler: Callable[..., Any]) -> None:
    async def endpoint(request: Request) -> Response:
        # Their answers have no body.
        return await answered(handler, request, 0)

    routes.add_api_route(path, endpoint, methods=["POST", "PUT"], response_class=Response, name=handler.__name__)
