"""Queries on behalf of a client; one whose client goes away is ended."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from fastapi import Request

from common.store import SeriesStore
from query.engine.budget import Budget

if TYPE_CHECKING:
    from query.params import Parameters
    from query.service import QueryService

T = TypeVar("T")

NOT_WATCHED_S = 0.02
"""How long a query runs before it is looked whether its client has gone away."""


async def run(
    service: QueryService, work: Callable[[SeriesStore, Budget], T], p: Parameters, request: Request
) -> T:
    """What `work` makes of the store, as consistent as the request asks for, unless its client goes away.

    It may go without partitions if the request says so: `work` has to show the budget's warnings.
    """
    wanted = service.wanted_of(p, request)
    return await unless_gone(request, lambda cancelled: service.run(work, wanted, cancelled))


async def run_whole(
    service: QueryService,
    work: Callable[[SeriesStore, Budget], T],
    p: Parameters,
    request: Request,
    *,
    of_all: bool = False,
) -> T:
    """As `run`, for answers that have no room for warnings, and so are whole or not given.

    of_all: `work` reads of all tenants, whoever asks, and has to see to what it tells him.
    """
    wanted = replace(service.wanted_of(p, request, of_all=of_all), partial=False)
    return await unless_gone(request, lambda cancelled: service.run(work, wanted, cancelled))


async def unless_gone(request: Request, start: Callable[[threading.Event], Future[T]]) -> T:
    """What comes of start(cancelled); the event is set if the client goes away before. The body has been read."""
    cancelled = threading.Event()
    outcome = asyncio.wrap_future(start(cancelled))
    watching: asyncio.Task[None] | None = None

    async def watch() -> None:
        await until_gone(request)
        cancelled.set()

    def begin() -> None:
        nonlocal watching
        watching = asyncio.ensure_future(watch())

    # Most are answered before it would be worth while to look whether anybody waits.
    timer = outcome.get_loop().call_later(NOT_WATCHED_S, begin)
    try:
        return await outcome
    finally:
        timer.cancel()
        if watching is not None:
            watching.cancel()


async def until_gone(request: Request) -> None:
    """Return when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
