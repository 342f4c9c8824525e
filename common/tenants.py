"""Tenants: who a request is for, and how a series says whose it is (`docs/tenants.md`).

The tenant is the label `__tenant__` of a series, hence part of its canonical labels, its id and its place in every
index. Series of the tenant `default` have no such label. The label is put on by ingest and taken off by
`query.tenants`; clients can neither send nor see it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from common.access import Right, principal_of
from common.errors import CallerError
from common.labels import uvarint
from common.store import Matcher, MatchOp
from common.tenancy import Tenancy as Tenancy

if TYPE_CHECKING:
    from collections.abc import MutableMapping

TENANT_LABEL = "__tenant__"
DEFAULT_TENANT = "default"
MAX_TENANT_CHARACTERS = 150
MAX_TENANTS_OF_QUERY = 100
_HEADER = b"x-scope-orgid"
_NAME = re.compile(r"[A-Za-z0-9!\-_.*'()]+", re.ASCII)
_NOT_LETTERS = re.compile(r"([^A-Za-z0-9_])", re.ASCII)


class TenantRefused(CallerError):
    """The request is for no tenant, or for one that it may not be for. status: of HTTP."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


def tenants_of(scope: MutableMapping[str, Any], tenancy: Tenancy) -> tuple[str, ...] | None:
    """The tenants that an HTTP request reads, ascending; None for all there is, for there are no tenants.

    Raises:
        TenantRefused: it names none, a name that is none, or a tenant that is not its own.
    """
    own = principal_of(scope).tenants
    if tenancy is Tenancy.OFF:
        if own:
            raise TenantRefused(403, "this token is of a tenant, but tenants are switched off here (--tenancy)")
        return None
    named = _header(scope)
    if named is None:
        if len(own) == 1:
            return own
        if own:
            raise TenantRefused(
                400, f"this token is of {len(own)} tenants: say for which the request is, with X-Scope-OrgID"
            )
        if tenancy is Tenancy.REQUIRED:
            raise TenantRefused(401, "no tenant: the header X-Scope-OrgID is missing")
        return (DEFAULT_TENANT,)
    tenants = parse_tenants(named)
    if own and not set(tenants) <= set(own):
        raise TenantRefused(403, "X-Scope-OrgID names a tenant that this token is not for")
    return tenants


def tenant_of(scope: MutableMapping[str, Any], tenancy: Tenancy) -> str:
    """The one tenant for which an HTTP request writes or deletes. Raises TenantRefused."""
    tenants = tenants_of(scope, tenancy)
    if tenants is None:
        return DEFAULT_TENANT
    if len(tenants) > 1:
        raise TenantRefused(400, "X-Scope-OrgID names several tenants; what changes data is for one")
    return tenants[0]


def overseen(scope: MutableMapping[str, Any], tenancy: Tenancy) -> tuple[str, ...] | None:
    """The tenants of whom a request is told what is not samples; None for all.

    All are seen by who administers, is bound to no tenant, and names none. Raises TenantRefused.
    """
    principal = principal_of(scope)
    if _header(scope) is None and not principal.tenants and principal.may(Right.ADMIN):
        return None
    return tenants_of(scope, tenancy)


def parse_tenants(text: str) -> tuple[str, ...]:
    """The tenants of a header such as `a|b`, each once, ascending. Raises TenantRefused."""
    names = tuple(sorted(set(text.split("|"))))
    for name in names:
        reason = why_no_tenant(name)
        if reason is not None:
            raise TenantRefused(400, reason)
    if len(names) > MAX_TENANTS_OF_QUERY:
        raise TenantRefused(
            400, f"X-Scope-OrgID names {len(names)} tenants; at most {MAX_TENANTS_OF_QUERY} can be"
        )
    return names


def why_no_tenant(name: str) -> str | None:
    """Why a text is not the name of a tenant, or None if it is one; the rules are Mimir's."""
    if not name:
        return "the name of a tenant is empty"
    if len(name) > MAX_TENANT_CHARACTERS:
        return f"the name of a tenant has {len(name)} characters; at most {MAX_TENANT_CHARACTERS} are possible"
    if name in (".", "..") or _NAME.fullmatch(name) is None:
        return (
            f"{name!r} is not the name of a tenant; it may have letters, digits and ! - _ . * ' ( ), not . or .."
        )
    return None


def tenant_matcher(tenants: Sequence[str]) -> Matcher:
    """What selects the series of some tenants, and no others."""
    values = [label_value(tenant) for tenant in tenants]
    if len(values) == 1:
        return Matcher(MatchOp.EQUAL, TENANT_LABEL, values[0])
    return Matcher(MatchOp.REGEX, TENANT_LABEL, "|".join(map(_quoted, values)))


def other_tenants_matcher(tenants: Iterable[str]) -> Matcher:
    """What selects the series of all tenants but these."""
    values = sorted(map(label_value, tenants))
    if not values:
        return Matcher(MatchOp.REGEX, TENANT_LABEL, ".*")
    return Matcher(MatchOp.NOT_REGEX, TENANT_LABEL, "|".join(map(_quoted, values)))


def label_value(tenant: str) -> str:
    """The value of `__tenant__` that a tenant's series have."""
    return "" if tenant == DEFAULT_TENANT else tenant


def tenant_named(value: str) -> str:
    """The tenant whose series have this value of `__tenant__`."""
    return value or DEFAULT_TENANT


def tenant_pair(tenant: str) -> bytes:
    """The label as it lies in canonical labels; nothing for the tenant `default`."""
    value = label_value(tenant).encode()
    name = TENANT_LABEL.encode()
    return uvarint(len(name)) + name + uvarint(len(value)) + value if value else b""


def _header(scope: MutableMapping[str, Any]) -> str | None:
    values = [value for name, value in scope["headers"] if name == _HEADER]
    if not values:
        return None
    if len(values) > 1:
        raise TenantRefused(400, "the header X-Scope-OrgID occurs twice")
    text: str = values[0].decode("latin-1").strip()
    return text


def _quoted(value: str) -> str:
    """As a regular expression that matches this alone."""
    return _NOT_LETTERS.sub(r"\\\1", value)
