"""ASGI applications: their types, and what is answered in front of the web framework."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class _Route(NamedTuple):
    """What whoever counts requests knows of a route, as of those of the framework."""

    path: str


def in_front_of(app: App, endpoints: Mapping[str, App], methods: Sequence[str]) -> App:
    """An application that has requests of these paths and methods answered by `endpoints`, all others by `app`.

    For what is asked so often that finding its route among all, and what the framework does for it, counts.
    """
    routes = {path: _Route(path) for path in endpoints}

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = endpoints.get(scope["path"]) if scope["type"] == "http" else None
        if endpoint is None or scope["method"] not in methods:
            await app(scope, receive, send)
        else:
            scope["route"] = routes[scope["path"]]
            await endpoint(scope, receive, send)

    return dispatch
