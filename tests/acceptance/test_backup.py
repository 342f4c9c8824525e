"""Backups of a running Tabor, to a folder and to a real S3 server, killed in the middle; and what comes back."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.log.base import LOCAL_PARTITIONS
from storage_node.backup.manifest import runs_of
from storage_node.backup.target import open_target
from tests.acceptance.test_kill import digests
from tests.load import Load, wait_for_acknowledged
from tests.processes import Process, running, tabor_command, tabor_run, wait_for
from tests.s3_server import BUCKET, s3_server

pytestmark = pytest.mark.acceptance


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
    return f"s3://{BUCKET}/{os.getpid()}"


def command(*arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(tabor_command(*arguments), capture_output=True, text=True, timeout=timeout_s)


def killed_once(line: list[str], folder: Path, name: str, has_begun: Callable[[], object]) -> None:
    """Start a command and end it with SIGKILL as soon as it has begun its work."""
    process = Process(name, line, folder, 0)
    with running(process):
        process.start()
        wait_for(lambda: has_begun() or process.returncode is not None, f"{name} has begun; {process.output}")
        assert process.returncode is None, f"{name} was too quick: {process.output}"
        process.kill()


def test_killed_backups_and_restores_end_in_the_same_digests(where: str, tmp_path: Path) -> None:
    server = tabor_run(tmp_path)
    load = Load(n_series=200)
    with running(server):
        server.start_and_wait()
        load.start(server)
        wait_for_acknowledged(load, 80_000)
        target = open_target(where, create=True)
        write = tabor_command("backup", where, "--url", f"http://127.0.0.1:{server.port}")
        # As slow as it may be, so that it is caught in the middle.
        killed_once([*write, "--rate", "100KiB"], tmp_path, "backup", lambda: list(target.entries("objects")))
        n_left = len(list(target.entries("objects")))
        assert all(len(found) < LOCAL_PARTITIONS for found in runs_of(target).values())
        # Under the same load: what it has is what was acknowledged before it began, and perhaps more.
        acknowledged = load.acknowledged_samples()
        done = subprocess.run(write, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        (run,) = [
            run for run, found in runs_of(target).items() if len(found) == max(map(len, runs_of(target).values()))
        ]
        assert len(list(target.entries("objects"))) >= n_left
        load.stop()
        under_load = command("restore", where, "--data-dir", str(tmp_path / "under load"))
        assert under_load.returncode == 0, under_load.stderr
        at_rest = subprocess.run(write, capture_output=True, text=True, timeout=120)
        assert at_rest.returncode == 0, at_rest.stderr
        assert "were there already" in at_rest.stderr
        before = digests(server)
        total = load.check(server)

    assert run in done.stderr
    check = command("backup", "verify", where)
    assert (check.returncode, "chunks are right" in check.stdout) == (0, True), check.stdout + check.stderr

    folder = tmp_path / "restored"
    back = tabor_command("restore", where, "--data-dir", str(folder))
    killed_once(back, tmp_path, "restore", lambda: list(folder.glob("views.restore/*")))
    if not (folder / "views").exists():
        refused = command("run", "--data-dir", str(folder), "--listen", "127.0.0.1:0")
        assert (refused.returncode, "half restored" in refused.stderr) == (1, True), refused.stderr
    done = subprocess.run(back, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr

    again = tabor_run(tmp_path, name="again", data_dir=folder)
    loaded = tabor_run(tmp_path, name="loaded", data_dir=tmp_path / "under load")
    with running(again, loaded):
        again.start_and_wait()
        assert digests(again) == before
        assert load.check(again) == total
        loaded.start_and_wait()
        assert acknowledged <= samples_of(loaded) <= total


def samples_of(server: Process) -> int:
    return sum(row["samples"] for row in server.data("/api/v1/status/partitions")["partitions"])


def test_ctrl_c_ends_a_backup_in_one_line(tmp_path: Path) -> None:
    server = tabor_run(tmp_path)
    load = Load(n_batches=2, n_series=200)
    where = str(tmp_path / "backups")
    with running(server):
        server.start_and_wait()
        load.start(server)
        wait_for_acknowledged(load, 20_000)
        load.stop()
        write = tabor_command("backup", where, "--url", f"http://127.0.0.1:{server.port}")
        process = Process("backup", [*write, "--rate", "100KiB"], tmp_path, 0)
        with running(process):
            process.start()
            wait_for(lambda: list(Path(where).glob("objects/*/*")), "it has begun")
            process.signal(signal.SIGINT)
            assert process.wait(30) == 130, process.output
            assert process.output.count("\n") <= 1, process.output
            assert "Traceback" not in process.output
        assert not list(Path(where).glob("running/*"))
        assert subprocess.run(write, capture_output=True, timeout=60).returncode == 0
        # The list is what a script may read.
        listed = command("backup", "list", where)
        assert listed.stdout.splitlines()[-1].split()[1] == str(LOCAL_PARTITIONS), listed.stdout


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["backup", "/proc/nowhere"], "cannot use the folder /proc/nowhere"),
        (["backup", "s3://no-such-bucket/x"], "no-such-bucket"),
        (["backup", "{folder}", "--url", "localhost:9080"], "is no URL of a server"),
        (["backup", "{folder}", "--url", "http://127.0.0.1:9"], "no answer from http://127.0.0.1:9"),
        (["backup", "{folder}", "--data-dir", "/nowhere"], "there is no folder /nowhere"),
        (["backup", "list", "/nowhere"], "there are no backups in /nowhere"),
        (["backup", "verify", "{folder}"], "no whole backup"),
        (["restore", "{folder}", "--data-dir", "{folder}/data"], "no whole backup"),
    ],
)
def test_nonsense_is_answered_with_one_line(
    arguments: list[str], hint: str, tmp_path: Path, s3: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    done = command(*(part.format(folder=tmp_path) for part in arguments))
    assert done.returncode == 1, done.stderr
    assert hint in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2, done.stderr


def test_run_backs_up_by_itself_prunes_and_does_not_mind_a_broken_target(tmp_path: Path) -> None:
    where = tmp_path / "backups"
    server = tabor_run(tmp_path, "--backup", str(where), "--backup-every", "2s", "--backup-keep", "2")
    load = Load(n_batches=1, n_series=20)
    with running(server):
        server.start_and_wait()
        load.start(server)
        target = open_target(str(where), create=True)
        wait_for(lambda: len(runs_of(target)) >= 2, "two backups")
        first = min(runs_of(target))
        wait_for(lambda: first not in runs_of(target), "the first is pruned", 60)
        # The target breaks: a file where the folder of objects and manifests should be.
        where.rename(tmp_path / "away")
        where.write_text("")
        wait_for(lambda: 'backup_failures_total{reason="' in metrics(server), "the failure is counted")
        assert server.get("/-/ready")[0] == 200
        written = load.acknowledged_samples()
        wait_for_acknowledged(load, written + 200)
        load.stop()
        total = load.check(server)
        assert server.stop() == 0
    restored = tmp_path / "restored"
    done = command(
        "restore", str(tmp_path / "away"), "--data-dir", str(restored), "--log-from", str(tmp_path / "data")
    )
    assert done.returncode == 0, done.stderr
    again = tabor_run(tmp_path, name="again", data_dir=restored)
    with running(again):
        again.start_and_wait()
        assert load.check(again) == total


def metrics(server: Process) -> str:
    return server.get("/metrics")[1].decode()
