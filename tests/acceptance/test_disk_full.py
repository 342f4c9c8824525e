"""The disk of `tabor run` fills up under load: writes stop with a reason, reads go on, nothing is lost."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.load import START_MS, Load, wait_for_acknowledged
from tests.processes import Process, running, tabor_run, wait_for

pytestmark = pytest.mark.acceptance

MIB = 1 << 20
SMALL_MIB = 48
LEFT_MIB = 3
"""Of the small disk, when the load begins."""


class NoisyLoad(Load):
    """Values that no codec makes small, so that the disk fills up soon."""

    def value(self, batch: int, series: int, step: int) -> float:
        return float((batch * 1_000_003 + series * 1009 + step * 65_537) * 0x9E3779B97F4A7C15 % (1 << 53))


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of its own; files on it are gone afterwards."""
    if os.geteuid() != 0:
        pytest.skip("a small file system is mounted for this test: run it as root; files of limited size stand in")
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SMALL_MIB}m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.fail(f"a tmpfs cannot be mounted here ({mounted.stderr.strip()}); this test needs CAP_SYS_ADMIN")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def server_with(folder: Path, data: Path) -> Process:
    server = tabor_run(folder, data_dir=data)
    at = server.command.index("tabor")
    server.command[at] = "tests.small_heads"
    assert server.command[:2] == [sys.executable, "-m"]
    return server


@pytest.mark.parametrize("what", ["everything", "log", "views"])
def test_writes_stop_with_a_reason_reads_go_on_and_nothing_acknowledged_is_lost(tmp_path: Path, what: str) -> None:
    with small_disk(tmp_path / "small") as small:
        data = small / "data" if what == "everything" else tmp_path / "data"
        data.mkdir()
        if what != "everything":
            (small / what).mkdir()
            (data / what).symlink_to(small / what)
        ballast = small / "ballast"
        ballast.write_bytes(bytes((SMALL_MIB - LEFT_MIB) * MIB))
        server = server_with(tmp_path, data)
        with running(server):
            server.start_and_wait()
            full_and_free_again(server, ballast.unlink, "No space left on device")


def test_the_same_where_files_may_not_grow(tmp_path: Path) -> None:
    # Any user can have this one; Python ignores the signal, so that writes fail as on a full disk.
    server = server_with(tmp_path, tmp_path / "data")
    with running(server):
        server.start_and_wait()
        pid = server.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (2 * MIB, hard))
        full_and_free_again(
            server, lambda: resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard)), "File too large"
        )


def full_and_free_again(server: Process, free: Callable[[], object], cause: str) -> None:
    """Load the server until its disk is full, free the disk, and look for what was acknowledged."""
    load = NoisyLoad(n_batches=2, n_series=500)
    load.start(server)
    try:
        check_refusal(server, load, cause)
        free()
        wait_for(lambda: server.get("/-/ready")[0] == 200, "ready again by itself", 60)
        wait_for_acknowledged(load, 20_000)
    finally:
        load.stop()
    total = load.check(server)
    server.kill()
    server.start_and_wait()
    assert load.check(server) == total
    assert server.stop() == 0
    assert "Traceback" not in server.output
    assert "panicked" not in server.output


def check_refusal(server: Process, load: Load, cause: str) -> None:
    """Wait until the disk is full; then a write is refused with the reason, and a query answered."""
    wait_for(lambda: server.get("/-/ready")[0] == 503, "/-/ready says that the disk is full", 60)

    def refusal() -> bytes | None:
        status, body = server.write(load._body(0, 0))
        assert status in (204, 503), (status, body)
        return body if status == 503 else None

    assert cause.encode() in wait_for(refusal, "a write is refused")

    def reason() -> str | None:
        status, body = server.get("/-/ready")
        return json.loads(body)["reason"] if status == 503 else None

    assert cause in wait_for(reason, "/-/ready says why")
    # Strong reads see all that was acknowledged, though the disk may be full.
    counted = server.data("/api/v1/query", query="count(last_over_time(load[1d]))", time=START_MS / 1000 + 80_000)
    assert counted["result"][0]["value"][1] == str(load.n_batches * load.n_series)
