"""Who asks, and what he may: the gate in front of the routes writes it into the ASGI scope, routes read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Flag, auto
from typing import Any

SCOPE_KEY = "tabor.principal"


class Right(Flag):
    """What a route may ask for; its name in lower case is its name in files and messages."""

    READ = auto()
    """Queries, exports, status, /metrics."""
    WRITE = auto()
    """Samples, metadata and exemplars, by whatever protocol."""
    ADMIN = auto()
    """Deletions, and whatever else cannot be undone or shows more than samples."""
    NODE = auto()
    """Routes by which the tiers and the nodes talk to one another; they know no tenants."""


ALL_RIGHTS = ~Right(0)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who sent a request.

    tenants: those that he is bound to; empty if to none, and the request may name any.
    """

    name: str
    rights: Right
    tenants: tuple[str, ...] = ()

    def may(self, right: Right) -> bool:
        """Whether he has all of this right."""
        return right in self.rights


ANYONE = Principal("anyone", ALL_RIGHTS)
"""Who asks where nobody is asked for credentials."""


def principal_of(scope: Mapping[str, Any]) -> Principal:
    """Who sent the request of this ASGI scope; ANYONE where authentication is off."""
    principal: Principal = scope.get(SCOPE_KEY, ANYONE)
    return principal
