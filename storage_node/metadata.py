"""What senders say of metric families, for one partition."""

from __future__ import annotations

import json
from collections.abc import Sequence

import orjson
import zstandard

from common.store import Metadata
from common.tenants import DEFAULT_TENANT
from storage_node import keys
from storage_node.disk import Batch, Disk

MAX_ROWS = 100_000
"""Of a partition; what comes when there are that many is not kept."""
MAX_ROWS_OF_TENANT = 10_000
"""Of a tenant that is not `default`, so that one cannot take the room of all."""


class MetadataTable:
    """Metadata by tenant and family, in order of arrival, each once."""

    def __init__(self, partition: int) -> None:
        self._key = keys.numbered(keys.METADATA, partition, 0)
        self._tenants: dict[str, dict[str, list[Metadata]]] = {}
        self._tenants_key = keys.numbered(keys.METADATA, partition, 1)
        self._has_tenants = False
        self._n_rows = 0
        self._changed = False

    def add(self, row: bytes) -> None:
        """Add a row of a record; what is not one is passed over, as it concerns no sample."""
        try:
            content = orjson.loads(row)
            family, *texts = (content[name] for name in ("family", "type", "help", "unit"))
            tenant = content.get("tenant", DEFAULT_TENANT)
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
            return
        if all(isinstance(text, str) for text in (tenant, family, *texts)):
            self._add(tenant, family, Metadata(*texts))

    def _add(self, tenant: str, family: str, metadata: Metadata) -> None:
        families = self._tenants.get(tenant, {})
        known = families.get(family, [])
        n_mine = sum(map(len, families.values())) if tenant != DEFAULT_TENANT else 0
        if metadata in known or self._n_rows >= MAX_ROWS or n_mine >= MAX_ROWS_OF_TENANT:
            return
        self._tenants.setdefault(tenant, {})[family] = [*known, metadata]
        self._n_rows += 1
        self._changed = True

    def of(self, family: str | None, tenants: Sequence[str] | None = None) -> dict[str, list[Metadata]]:
        """Of one family, or of all, as some tenants' senders have it, or all."""
        found: dict[str, list[Metadata]] = {}
        for tenant in self._tenants if tenants is None else tenants:
            families = self._tenants.get(tenant, {})
            for name in families if family is None else families.keys() & {family}:
                found.setdefault(name, []).extend(families[name])
        return found

    def forget(self, tenant: str) -> None:
        """Forget what the senders of a tenant said."""
        gone = self._tenants.pop(tenant, None)
        if gone is not None:
            self._n_rows -= sum(map(len, gone.values()))
            self._changed = True

    def write_changes(self, batch: Batch) -> None:
        if self._changed:
            mine: list[list[str]] = []
            of_others: list[list[str]] = []
            for tenant, families in self._tenants.items():
                rows = [[name, m.type, m.help, m.unit] for name, known in families.items() for m in known]
                if tenant == DEFAULT_TENANT:
                    mine = rows
                else:
                    of_others += [[*row, tenant] for row in rows]
            batch.put(self._key, _encode(mine))
            if of_others or self._has_tenants:
                batch.put(self._tenants_key, _encode(of_others))
                self._has_tenants = True

    def changes_written(self) -> None:
        self._changed = False

    def load(self, disk: Disk) -> None:
        """Read everything back. Raises DiskError."""
        rows = _decode(disk.get(self._key))
        of_others = _decode(disk.get(self._tenants_key))
        self._has_tenants = bool(of_others)
        rows += of_others
        for name, kind, text, unit, *tenant in rows:
            families = self._tenants.setdefault(tenant[0] if tenant else DEFAULT_TENANT, {})
            families.setdefault(name, []).append(Metadata(kind, text, unit))
        self._n_rows = len(rows)


def _encode(rows: list[list[str]]) -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(json.dumps(rows).encode())


def _decode(stored: bytes | None) -> list[list[str]]:
    rows: list[list[str]] = json.loads(zstandard.ZstdDecompressor().decompress(stored)) if stored else []
    return rows
