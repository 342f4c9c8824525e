"""Manifests are what was written, or corrupt."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from storage_node.backup.errors import BackupCorrupt
from storage_node.backup.manifest import (
    Manifest,
    Stored,
    _checksum,
    encode,
    is_run,
    manifest_name,
    read_manifest,
    run_at,
    runs_of,
    time_of,
)
from tests.memory_target import MemoryTarget

RUN = "20261128T070000Z"
ONE = Stored("ab" * 32, 100, 300)
MANIFEST = Manifest(RUN, 3, 8, 1, "kafka:x", None, 77, "0f" * 16, 1_790_000_000_000, "a", (ONE, ONE))
NAME = manifest_name(RUN, 3)


@pytest.fixture
def target() -> MemoryTarget:
    target = MemoryTarget()
    target.put(NAME, encode(MANIFEST))
    return target


def test_a_manifest_is_read_as_it_was_written(target: MemoryTarget) -> None:
    assert read_manifest(target, RUN, 3) == MANIFEST
    assert (MANIFEST.size_bytes, MANIFEST.stored_bytes) == (600, 200)
    assert read_manifest(target, RUN, 4) is None


def test_what_is_cut_or_changed_is_corrupt(target: MemoryTarget) -> None:
    whole = encode(MANIFEST)
    for length in range(len(whole)):
        target.put(NAME, whole[:length])
        with pytest.raises(BackupCorrupt, match="p00003"):
            read_manifest(target, RUN, 3)
    for at in range(len(whole)):
        target.put(NAME, whole[:at] + bytes([whole[at] ^ 0x01]) + whole[at + 1 :])
        with pytest.raises(BackupCorrupt, match="p00003"):
            read_manifest(target, RUN, 3)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"run": "20261128T070001Z"}, "another backup"),
        ({"partition": 4}, "another backup or partition"),
        ({"partitions": 3}, "number of partitions"),
        ({"partitions": 1 << 40}, "number of partitions"),
        ({"partitions": "8"}, "."),
        ({"next_offset": -1}, "next_offset"),
        ({"next_offset": True}, "next_offset"),
        ({"created_ms": 1.5}, "created_ms"),
        ({"retention_ms": 0}, "retention"),
        ({"format": "1"}, "format"),
        ({"log": 5}, "log or node"),
        ({"digest": "../../etc"}, "digest"),
        ({"digest": 5}, "."),
        ({"objects": [["../../../etc/passwd", 1, 1]]}, "not the name of an object"),
        ({"objects": [["AB" * 32, 1, 1]]}, "not the name of an object"),
        ({"objects": [["ab" * 32, 1, 1 << 40]]}, "sizes of object"),
        ({"objects": [["ab" * 32, 0, 1]]}, "sizes of object"),
        ({"objects": [["ab" * 32, 1]]}, "."),
        ({"objects": 7}, "."),
        ({"v": 2}, "version"),
        ({"more": 1}, "."),
    ],
)
def test_hostile_manifests_are_corrupt_though_their_checksum_is_right(
    target: MemoryTarget, change: dict[str, Any], hint: str
) -> None:
    content = {**json.loads(encode(MANIFEST))["manifest"], **change}
    target.put(NAME, orjson.dumps({"manifest": content, "sha256": _checksum(content)}))
    with pytest.raises(BackupCorrupt, match=hint):
        read_manifest(target, RUN, 3)


@pytest.mark.parametrize(
    "data", [b"null", b"[]", b"5", b'{"manifest": null}', b'{"manifest": [], "sha256": ""}', b"{"]
)
def test_other_json_is_corrupt(target: MemoryTarget, data: bytes) -> None:
    target.put(NAME, data)
    with pytest.raises(BackupCorrupt):
        read_manifest(target, RUN, 3)


def test_backups_are_listed_in_the_order_of_their_times(target: MemoryTarget) -> None:
    for name in ("backups/20250101T000000Z/p00000.json", "backups/20250101T000000Z/p00007.json"):
        target.put(name, b"")
    for odd in ("backups/99999999T999999Z/p00000.json", "backups/x/p00000.json", f"backups/{RUN}/p3.json"):
        target.put(odd, b"")
    assert list(runs_of(target).items()) == [("20250101T000000Z", {0, 7}), (RUN, {3})]


def test_names_of_backups_are_times() -> None:
    assert run_at(1_795_849_200.9) == "20261128T070000Z"
    assert time_of("20261128T070000Z") == 1_795_849_200
    assert is_run("20261128T070000Z")
    assert not is_run("20261328T070000Z")
    assert not is_run("../20261128T070000Z")
