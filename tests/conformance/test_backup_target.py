"""What every place for backups does: a folder, and a bucket of a real S3 server."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import StartupError
from storage_node.backup.errors import TargetError
from storage_node.backup.target import Target, open_target
from tests.s3_server import BUCKET, s3_server


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with s3_server(tmp_path_factory.mktemp("s3")) as environment:
        yield environment


@pytest.fixture(params=["folder", "bucket"])
def where(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "folder":
        return str(tmp_path / "backups")
    for name, value in request.getfixturevalue("s3").items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{tmp_path.name.replace('_', '-')}"


@pytest.fixture
def target(where: str) -> Target:
    return open_target(where, create=True)


def names(target: Target, prefix: str) -> set[str]:
    return {one.name for one in target.entries(prefix)}


def test_what_was_put_is_there_until_it_is_deleted(target: Target) -> None:
    assert target.get("objects/ab/abc") is None
    target.put("objects/ab/abc", b"one")
    target.put("objects/ab/abc", b"another")
    target.put("objects/cd/cde", b"")
    target.put("backups/20260101T000000Z/p00000.json", b"{}")
    assert target.get("objects/ab/abc") == b"another"
    assert target.get("objects/cd/cde") == b""
    found = {one.name: one for one in target.entries("objects")}
    assert found.keys() == {"objects/ab/abc", "objects/cd/cde"}
    assert found["objects/ab/abc"].size_bytes == 7
    target.delete("objects/ab/abc")
    target.delete("objects/ab/abc")
    assert target.get("objects/ab/abc") is None
    assert names(target, "objects") == {"objects/cd/cde"}


def test_a_prefix_is_whole_parts_of_a_name(target: Target) -> None:
    target.put("running/1", b"")
    target.put("running2/1", b"")
    assert names(target, "running") == {"running/1"}
    assert names(target, "pruning") == set()


def test_later_objects_are_not_older(target: Target) -> None:
    target.put("running/1", b"")
    target.put("running/2", b"")
    first, second = sorted(target.entries("running"))
    assert first.modified_s <= second.modified_s


def test_many_threads_may_put_and_list_at_once(target: Target) -> None:
    def put(thread: int) -> None:
        for i in range(10):
            target.put(f"objects/{thread:02d}/{i}", bytes([thread, i]) * 1000)
            assert f"objects/{thread:02d}/{i}" in names(target, "objects")

    threads = [threading.Thread(target=put, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names(target, "objects")) == 40
    assert target.get("objects/03/7") == bytes([3, 7]) * 1000


def test_what_is_opened_again_has_everything(target: Target, where: str) -> None:
    target.put("objects/ab/abc", b"one")
    assert open_target(where, create=False).get("objects/ab/abc") == b"one"


def test_what_is_too_large_is_not_read(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    target.put("objects/ab/abc", b"12345678")
    monkeypatch.setattr("storage_node.backup.target.MAX_BYTES", 7)
    with pytest.raises(TargetError, match="more than 7 bytes"):
        target.get("objects/ab/abc")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../b", "a//b", "", "a/.b", "a b", "a/b/c/d/e"])
def test_no_name_leads_elsewhere(target: Target, name: str) -> None:
    for use in (target.get, target.delete, lambda name: target.put(name, b"")):
        with pytest.raises(AssertionError):
            use(name)


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    target = open_target(str(tmp_path), create=True)
    target.put("objects/ab/abc", b"one")
    (tmp_path / "objects" / "ab" / ".DS_Store").write_bytes(b"")
    (tmp_path / "objects" / "ab" / "a b").write_bytes(b"")
    assert names(target, "objects") == {"objects/ab/abc"}


def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = open_target(str(tmp_path), create=True)
    target.put("objects/ab/abc", b"one")

    def broken(path: object) -> object:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(os, "scandir", broken)
    with pytest.raises(TargetError, match="Input/output error"):
        names(target, "objects")


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = open_target(str(tmp_path), create=True)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TargetError, match=r"objects/ab/abc cannot be written: No space left on device"):
        target.put("objects/ab/abc", b"one")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_leftovers_of_killed_writers_go_when_they_are_old(tmp_path: Path) -> None:
    old, young = tmp_path / ".staged-1", tmp_path / ".staged-2"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    open_target(str(tmp_path), create=True)
    assert not old.exists()
    assert young.exists()


@pytest.mark.parametrize(
    ("where", "hint"),
    [
        ("ftp://host/x", "is no place for backups"),
        ("{file}", "cannot use the folder .*x"),
        ("{file}/below", "cannot use the folder"),
    ],
)
def test_nonsense_is_refused_with_its_name(tmp_path: Path, where: str, hint: str) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(StartupError, match=hint):
        open_target(where.format(file=tmp_path / "x"), create=True)
    with pytest.raises(StartupError, match="there are no backups in"):
        open_target(str(tmp_path / "missing"), create=False)


def test_a_bucket_that_is_not_there_is_named(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    target = open_target("s3://no-such-bucket/x", create=True)
    with pytest.raises(TargetError, match="no-such-bucket"):
        target.put("objects/ab/abc", b"")
    with pytest.raises(TargetError, match="no-such-bucket"):
        names(target, "objects")
