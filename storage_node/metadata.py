"""What senders say of metric families, for one partition."""

from __future__ import annotations

import json

import orjson
import zstandard

from common.store import Metadata
from storage_node import keys
from storage_node.disk import Batch, Disk

MAX_ROWS = 100_000
"""Of a partition; what comes when there are that many is not kept."""


class MetadataTable:
    """Metadata by family, in order of arrival, each once."""

    def __init__(self, partition: int) -> None:
        self._key = keys.numbered(keys.METADATA, partition, 0)
        self._families: dict[str, list[Metadata]] = {}
        self._n_rows = 0
        self._changed = False

    def add(self, row: bytes) -> None:
        """Add a row of a record; what is not one is passed over, as it concerns no sample."""
        try:
            content = orjson.loads(row)
            family, *texts = (content[name] for name in ("family", "type", "help", "unit"))
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return
        if not all(isinstance(text, str) for text in (family, *texts)) or self._n_rows >= MAX_ROWS:
            return
        known = self._families.setdefault(family, [])
        metadata = Metadata(*texts)
        if metadata not in known:
            known.append(metadata)
            self._n_rows += 1
            self._changed = True

    def of(self, family: str | None) -> dict[str, list[Metadata]]:
        """Of one family, or of all."""
        if family is None:
            return {name: list(known) for name, known in self._families.items()}
        return {family: list(self._families[family])} if family in self._families else {}

    def write_changes(self, batch: Batch) -> None:
        if self._changed:
            rows = [[name, m.type, m.help, m.unit] for name, known in self._families.items() for m in known]
            batch.put(self._key, zstandard.ZstdCompressor(level=1).compress(json.dumps(rows).encode()))

    def changes_written(self) -> None:
        self._changed = False

    def load(self, disk: Disk) -> None:
        """Read everything back. Raises DiskError."""
        stored = disk.get(self._key)
        rows = json.loads(zstandard.ZstdDecompressor().decompress(stored)) if stored else []
        for name, *texts in rows:
            self._families.setdefault(name, []).append(Metadata(*texts))
        self._n_rows = len(rows)
