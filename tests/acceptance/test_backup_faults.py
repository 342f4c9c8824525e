"""Backups and restores that are stopped, or whose target does not answer or is full, and the next ones."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.test_backup import command
from tests.acceptance.test_disk_full import MIB, SMALL_MIB, NoisyLoad, small_disk
from tests.acceptance.test_kill import digests
from tests.load import wait_for_acknowledged
from tests.processes import Process, running, tabor_command, tabor_run, wait_for
from tests.stalling import stub

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    process = tabor_run(tmp_path_factory.mktemp("server"))
    load = NoisyLoad(n_series=200)
    with running(process):
        process.start_and_wait()
        load.start(process)
        wait_for_acknowledged(load, 80_000)
        load.stop()
        yield process


@pytest.fixture(scope="module")
def backed_up(server: Process, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("backups")
    assert backup_of(server, where).returncode == 0
    return where


def backup_of(server: Process, where: Path) -> subprocess.CompletedProcess[str]:
    return command("backup", str(where), "--url", f"http://127.0.0.1:{server.port}")


def interrupted(process: Process) -> str:
    process.signal(signal.SIGINT)
    assert process.wait(20) == 130, process.output
    assert "Traceback" not in process.output
    return process.output


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The last line that a command has said which failed."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_a_restore_that_is_stopped_says_so_and_the_next_goes_on(
    server: Process, backed_up: Path, tmp_path: Path
) -> None:
    # A file that nobody can read to its end: the restore waits for it.
    last = sorted(backed_up.glob("objects/*/*"))[-1]
    last.rename(tmp_path / "kept")
    os.mkfifo(last)
    folder = tmp_path / "restored"
    line = ["restore", str(backed_up), "--data-dir", str(folder)]
    process = Process("restore", tabor_command(*line), tmp_path, 0)
    with running(process):
        process.start()
        wait_for(lambda: list(folder.glob("views.restore/*")), "it has begun")
        said = interrupted(process)
    assert "stopped by SIGINT; the same command goes on with it" in said, said
    assert not (folder / "views").exists()
    last.unlink()
    (tmp_path / "kept").rename(last)
    done = command(*line)
    assert done.returncode == 0, done.stderr
    assert "going on with the restore" in done.stderr
    again = tabor_run(tmp_path, name="again", data_dir=folder)
    with running(again):
        again.start_and_wait()
        assert digests(again) == digests(server)


@pytest.mark.parametrize("what", ["backup", "restore"])
def test_a_target_that_does_not_answer_does_not_keep_ctrl_c_waiting(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stub() as s3:
        for name, value in (("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "x"), ("ENDPOINT_URL", s3.url)):
            monkeypatch.setenv(f"AWS_{name}", value)
        more = ["--data-dir", str(tmp_path / "data")] if what == "restore" else []
        process = Process(what, tabor_command(what, "s3://bucket/x", *more), tmp_path, 0)
        with running(process):
            process.start()
            wait_for(lambda: s3.connections, "it has asked")
            assert "stopped by SIGINT" in interrupted(process)


def test_a_target_that_is_full_is_named_and_the_next_backup_works(server: Process, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small") as small:
        where, ballast = small / "backups", small / "ballast"
        where.mkdir()
        ballast.write_bytes(bytes(SMALL_MIB * MIB - 24 * 1024))
        assert "cannot be written: No space left on device" in refused(backup_of(server, where))
        assert not list(where.glob(".staged*"))
        # What is there of it is no backup.
        assert "no whole backup" in refused(command("restore", str(where), "--data-dir", str(tmp_path / "data")))
        ballast.unlink()
        assert backup_of(server, where).returncode == 0
        assert command("backup", "verify", str(where)).returncode == 0


@pytest.mark.parametrize("room_kib", [64, 400])
def test_a_restore_onto_a_full_disk_says_so_and_goes_on_with_more_room(
    backed_up: Path, tmp_path: Path, room_kib: int
) -> None:
    with small_disk(tmp_path / "small") as small:
        folder, ballast = small / "data", small / "ballast"
        ballast.write_bytes(bytes(SMALL_MIB * MIB - room_kib * 1024))
        line = ["restore", str(backed_up), "--data-dir", str(folder)]
        said = refused(command(*line))
        assert "No space left on device" in said
        print(said)
        assert not (folder / "views").exists()
        ballast.unlink()
        assert command(*line).returncode == 0
        assert (folder / "views").exists()
