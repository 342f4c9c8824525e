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
from common.tenants import Tenancy, tenant_of
from common.tombstones import Tombstone
from query.http import answered
from query.params import Parameters
from query.tenants import deleting

Delete = Callable[[Sequence[Tombstone]], Future[Any]]


def router(delete: Delete, tenancy: Tenancy = Tenancy.OFF) -> APIRouter:
    """Routes of the admin API. delete: its future is done when the log has all of the tombstones."""
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

    for handler in (delete_series, clean_tombstones):
        _add(routes, f"/api/v1/admin/tsdb/{handler.__name__}", handler)
    return routes


def _add(routes: APIRouter, path: str, handler: Callable[..., Any]) -> None:
    async def endpoint(request: Request) -> Response:
        # Their answers have no body.
        return await answered(handler, request, 0)

    routes.add_api_route(path, endpoint, methods=["POST", "PUT"], response_class=Response, name=handler.__name__)
