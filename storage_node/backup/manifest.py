"""Manifests: what a backup has of one partition (`docs/format/backup.md`)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from storage_node.backup.errors import BackupCorrupt
from storage_node.backup.pieces import MAX_CONTENT_BYTES
from storage_node.backup.target import MAX_BYTES, Target

VERSION = 1
BACKUPS = "backups"
OBJECTS = "objects"
_RUN = re.compile(r"\d{8}T\d{6}Z")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"[0-9a-f]{32}")
_MANIFEST = re.compile(rf"{BACKUPS}/({_RUN.pattern})/p(\d{{5}})\.json")
MAX_PARTITIONS = 1 << 16


class Stored(NamedTuple):
    """An object of a partition: its name, the bytes that it takes, and those of its content."""

    name: str
    stored_bytes: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """A partition as of one offset.

    run: the backup that it belongs to. partitions: of the log. format: of the keys and values. log: its identity.
    next_offset: of the next record. digest: of all samples. created_ms: when it was read, Unix ms.
    objects: in the order of the keys.
    """

    run: str
    partition: int
    partitions: int
    format: int
    log: str
    retention_ms: int | None
    next_offset: int
    digest: str
    created_ms: int
    node: str
    objects: tuple[Stored, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of keys and values."""
        return sum(one.size_bytes for one in self.objects)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the objects, of which other backups may have a share."""
        return sum(one.stored_bytes for one in self.objects)


def run_at(time_s: float) -> str:
    """Name of the backup of a moment, Unix seconds; names sort as moments do."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y%m%dT%H%M%SZ")


def time_of(run: str) -> float:
    """Unix seconds of a backup's name."""
    return datetime.strptime(run, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()


def is_run(text: str) -> bool:
    """Whether a text is the name of a backup."""
    if _RUN.fullmatch(text) is None:
        return False
    try:
        return run_at(time_of(text)) == text
    except (ValueError, OverflowError):
        return False


def object_name(name: str) -> str:
    """Where an object is kept."""
    return f"{OBJECTS}/{name[:2]}/{name}"


def manifest_name(run: str, partition: int) -> str:
    """Where a manifest is kept."""
    return f"{BACKUPS}/{run}/p{partition:05d}.json"


def encode(manifest: Manifest) -> bytes:
    """A manifest with its checksum."""
    content = {"v": VERSION, **asdict(manifest), "objects": [list(one) for one in manifest.objects]}
    return orjson.dumps({"manifest": content, "sha256": _checksum(content)})


def read_manifest(target: Target, run: str, partition: int) -> Manifest | None:
    """A manifest, or None if there is none. Raises BackupCorrupt, TargetError."""
    name = manifest_name(run, partition)
    data = target.get(name)
    if data is None:
        return None
    try:
        return _parse(data, run, partition)
    except (ValueError, KeyError, TypeError) as error:
        raise BackupCorrupt(f"{name} in {target.where} is not a manifest: {error}", partition=partition) from None


def runs_of(target: Target) -> dict[str, set[int]]:
    """Partitions of which there is a manifest, of each backup, oldest backup first. Raises TargetError."""
    found: dict[str, set[int]] = {}
    for entry in target.entries(BACKUPS):
        if (match := _MANIFEST.fullmatch(entry.name)) and is_run(match[1]):
            found.setdefault(match[1], set()).add(int(match[2]))
    return dict(sorted(found.items()))


def _parse(data: bytes, run: str, partition: int) -> Manifest:
    whole = orjson.loads(data)
    content = whole["manifest"]
    if _checksum(content) != whole["sha256"]:
        raise ValueError("its checksum does not match")
    if content.pop("v") != VERSION:
        raise ValueError("it is of a version that this release does not read")
    objects = tuple(Stored(*one) for one in content.pop("objects"))
    manifest = Manifest(**content, objects=objects)
    if (manifest.run, manifest.partition) != (run, partition):
        raise ValueError("it is of another backup or partition")
    if not 0 <= partition < manifest.partitions <= MAX_PARTITIONS:
        raise ValueError("its number of partitions is impossible")
    for what, value in (("next_offset", manifest.next_offset), ("created_ms", manifest.created_ms)):
        if type(value) is not int or not 0 <= value < 1 << 62:
            raise ValueError(f"its {what} is impossible")
    if type(manifest.format) is not int:
        raise ValueError("its format is no number")
    retention_ms = manifest.retention_ms
    if retention_ms is not None and (type(retention_ms) is not int or not 0 < retention_ms < 1 << 62):
        raise ValueError("its retention is impossible")
    if not all(isinstance(text, str) for text in (manifest.log, manifest.node)):
        raise ValueError("its log or node is no text")
    if not _DIGEST.fullmatch(manifest.digest):
        raise ValueError("its digest is none")
    for one in objects:
        if not _SHA256.fullmatch(one.name):
            raise ValueError(f"{one.name!r} is not the name of an object")
        sizes = (one.stored_bytes, MAX_BYTES), (one.size_bytes, MAX_CONTENT_BYTES)
        if not all(type(size) is int and 0 < size <= most for size, most in sizes):
            raise ValueError(f"the sizes of object {one.name} are impossible")
    return manifest


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
