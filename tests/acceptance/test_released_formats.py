"""Folders of every release are opened and answer as they did; data of a newer one are refused, with a reason."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import rocksdict

from common.version import VERSION
from storage_node import keys
from tests.golden import folders
from tests.processes import running, tabor_command, tabor_run

pytestmark = pytest.mark.acceptance
_LOG_META = b"\xff\xff\xff\xfff"


def in_order(answer: Any) -> Any:
    """An answer with its series in one order, for which there is no promise."""
    if isinstance(answer, list):
        return sorted((in_order(one) for one in answer), key=lambda one: json.dumps(one, sort_keys=True))
    return {name: in_order(one) for name, one in answer.items()} if isinstance(answer, dict) else answer


def tabor(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(tabor_command(*arguments), capture_output=True, text=True, timeout=120)


def test_there_is_a_folder_of_a_release() -> None:
    assert folders.names()


@pytest.mark.parametrize("name", folders.names())
def test_a_folder_of_a_release_answers_as_it_did_before_and_after_a_replay(name: str, tmp_path: Path) -> None:
    data_dir = folders.unpack(name, tmp_path)
    expected = folders.expected(name)
    for begin in ("first", "again"):
        server = tabor_run(tmp_path, name=begin, data_dir=data_dir)
        with running(server):
            server.start_and_wait()
            found = folders.answers(server)
            assert server.stop() == 0
        assert found["digests"] == expected["digests"]
        assert in_order(found["answers"]) == in_order(expected["answers"])
        if begin == "first":
            replayed = tabor("replay", "--data-dir", str(data_dir))
            assert replayed.returncode == 0, replayed.stderr
            assert "DIFFERENT" not in replayed.stdout
            assert all(digest in replayed.stdout for digest in expected["digests"].values())


def changed_meta(folder: Path, key: bytes, **changes: Any) -> None:
    """Change what a folder says of its format."""
    db = rocksdict.Rdict(str(folder), rocksdict.Options(raw_mode=True))
    meta = json.loads(db[key])
    db[key] = json.dumps({**meta, **changes}).encode()
    db.flush()
    db.close()


def test_a_log_of_a_newer_format_is_refused_with_both_versions(tmp_path: Path) -> None:
    data_dir = folders.unpack(folders.names()[-1], tmp_path)
    changed_meta(data_dir / "log", _LOG_META, format=2, tabor="9.8.7")
    for command in (["run", "--listen", "127.0.0.1:0"], ["replay"]):
        refused = tabor(*command, "--data-dir", str(data_dir))
        assert refused.returncode == 1
        last = refused.stderr.strip().splitlines()[-1]
        assert f"{data_dir}/log has format 2, written by Tabor 9.8.7; this is Tabor {VERSION}, which reads" in last
        assert "run that version, or choose another --data-dir" in last


def test_views_of_a_newer_format_are_refused_and_replay_makes_them_of_this_one(tmp_path: Path) -> None:
    name = folders.names()[-1]
    data_dir = folders.unpack(name, tmp_path)
    changed_meta(data_dir / "views", keys.NODE_META, format=2, tabor="9.8.7")
    refused = tabor("run", "--listen", "127.0.0.1:0", "--data-dir", str(data_dir))
    assert refused.returncode == 1
    last = refused.stderr.strip().splitlines()[-1]
    assert f"{data_dir}/views have format 2, written by Tabor 9.8.7; this is Tabor {VERSION}, which reads" in last
    assert "tabor replay" in last
    replayed = tabor("replay", "--data-dir", str(data_dir))
    assert replayed.returncode == 0, replayed.stderr
    server = tabor_run(tmp_path, data_dir=data_dir)
    with running(server):
        server.start_and_wait()
        assert folders.answers(server)["digests"] == folders.expected(name)["digests"]


def test_what_writes_a_folder_says_which_version_it_is(tmp_path: Path) -> None:
    data_dir = folders.unpack(folders.names()[0], tmp_path)
    server = tabor_run(tmp_path, data_dir=data_dir)
    with running(server):
        server.start_and_wait()
        assert server.stop() == 0
    db = rocksdict.Rdict(str(data_dir / "views"), rocksdict.Options(raw_mode=True))
    assert json.loads(db[keys.NODE_META])["tabor"] == VERSION
    db.close()
