"""The tenants that an ingestor has heard of."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass

from common.labels import parse_canonical, with_label
from common.tenants import DEFAULT_TENANT, TENANT_LABEL, tenant_pair
from ingest.errors import TooManyTenants

MAX_TENANTS = 1 << 16
"""Of one ingestor, as long as it runs."""
_NAME = TENANT_LABEL.encode()
NAMED_TENANT = bytes([len(_NAME)]) + _NAME
"""What canonical labels have in them if the label is there that clients may not send, and perhaps if it is not."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """One of them.

    number: dense, 0 for `default`; it keeps series apart whose labels are the same as sent.
    salt: keeps what is remembered of its metadata apart, and unforeseen by others; 0 for `default`.
    pair: the label that its series have more than they are sent with; none for `default`.
    """

    name: str
    number: int
    salt: int
    pair: bytes

    def label_set(self, canonical: bytes) -> bytes:
        """The canonical labels of a series of this tenant, from those that were sent."""
        return with_label(canonical, _NAME, self.pair) if self.pair else canonical


DEFAULT = Tenant(DEFAULT_TENANT, 0, 0, b"")


class Tenants:
    """Tenants by name. Any thread may ask."""

    def __init__(self) -> None:
        self._known = {DEFAULT_TENANT: DEFAULT}
        self._adding = threading.Lock()

    def named(self, name: str) -> Tenant:
        """The tenant of this name, which is valid. Raises TooManyTenants."""
        tenant = self._known.get(name)
        if tenant is not None:
            return tenant
        with self._adding:
            tenant = self._known.get(name)
            if tenant is None:
                if len(self._known) >= MAX_TENANTS:
                    raise TooManyTenants(f"this ingestor knows {MAX_TENANTS} tenants, and takes no more")
                tenant = Tenant(name, len(self._known), secrets.randbits(64), tenant_pair(name))
                self._known[name] = tenant
            return tenant

    def __len__(self) -> int:
        return len(self._known)


def names_tenant(canonical: bytes) -> bool:
    """Whether canonical labels have the label that clients may not send."""
    return NAMED_TENANT in canonical and TENANT_LABEL in parse_canonical(canonical)
