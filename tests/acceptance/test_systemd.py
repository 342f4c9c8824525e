"""The units of docs/systemd are valid and hardened, and Tabor speaks with the systemd that started it."""

from __future__ import annotations

import asyncio
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tabor import supervisor
from tabor.cli import cli
from tabor.progress import Bar
from tabor.tiers import _until
from tests.processes import running, tabor_run

pytestmark = pytest.mark.acceptance
FOLDER = Path(__file__).resolve().parents[2] / "docs" / "systemd"
UNITS = sorted(path.name for path in FOLDER.glob("*.service"))
MAX_EXPOSURE = 1.5
"""On systemd's scale from 0 to 10; below 2 it says 'OK'."""


def settings(name: str) -> list[tuple[str, str]]:
    lines = [line for line in (FOLDER / name).read_text().splitlines() if "=" in line and not line.startswith("#")]
    return [(line.partition("=")[0], line.partition("=")[2]) for line in lines]


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.fail("systemd-analyze is missing (Debian: apt-get install systemd)", pytrace=False)


@pytest.fixture
def instances(tmp_path: Path) -> list[str]:
    """The units, templates with a name, with a program that is here."""
    paths = []
    for name in UNITS:
        path = tmp_path / name.replace("@", "@a")
        path.write_text((FOLDER / name).read_text().replace("/opt/tabor/bin/tabor", sys.executable))
        paths.append(str(path))
    return paths


def test_there_is_a_unit_for_one_process_and_for_each_tier() -> None:
    assert UNITS == ["tabor-ingest.service", "tabor-query.service", "tabor-storage-node@.service", "tabor.service"]


def test_systemd_takes_the_units(instances: list[str]) -> None:
    checked = analyze("verify", "--man=no", "--recursive-errors=no", *instances)
    assert checked.returncode == 0, checked.stderr
    assert checked.stderr == ""


def test_no_unit_may_do_more_than_it_needs(instances: list[str]) -> None:
    for path in instances:
        checked = analyze("security", "--offline=true", f"--threshold={MAX_EXPOSURE * 10:.0f}", path)
        assert checked.returncode == 0, checked.stdout


def test_all_units_are_locked_up_alike() -> None:
    own = ("Description", "ExecStart", "EnvironmentFile", "StateDirectory", "StateDirectoryMode")
    alike = [[setting for setting in settings(name) if setting[0] not in own] for name in UNITS]
    assert all(one == alike[0] for one in alike)


def test_every_unit_starts_a_command_that_tabor_takes() -> None:
    for name in UNITS:
        program, command, *arguments = shlex.split(dict(settings(name))["ExecStart"].replace("%i", "a"))
        assert program == "/opt/tabor/bin/tabor"
        found = cli.commands[command]
        log = ["--log", "kafka://k:9092/metrics"] if name != "tabor.service" else []
        assert isinstance(found, click.Command)
        found.make_context(command, [*arguments, *log])


@pytest.fixture
def notified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A socket that stands for systemd's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield sock


def test_systemd_hears_when_it_is_ready_and_when_it_stops(notified: socket.socket, tmp_path: Path) -> None:
    server = tabor_run(tmp_path)
    with running(server):
        server.start()
        while (said := notified.recv(1000).decode().split("\n"))[0] != "READY=1":
            assert said[0].startswith("EXTEND_TIMEOUT_USEC="), said
        assert server.get("/-/ready")[0] == 200
        assert server.stop() == 0
    assert notified.recv(1000).decode() == "STOPPING=1\nSTATUS=stopping"


def test_systemd_hears_that_a_long_start_gets_on(notified: socket.socket) -> None:
    with Bar("replaying the log") as bar:
        bar.update(1, 4, "5 samples/s")
        # Not for every step.
        bar.update(2, 4)
    assert (
        notified.recv(1000).decode() == "EXTEND_TIMEOUT_USEC=60000000\nSTATUS=replaying the log: 25 % 5 samples/s"
    )
    notified.settimeout(0)
    with pytest.raises(BlockingIOError):
        notified.recv(1000)


def test_systemd_hears_what_a_tier_waits_for(notified: socket.socket) -> None:
    async def wait() -> bool:
        asked = iter((False, False, True))
        return await _until(lambda: next(asked), asyncio.Event(), "waiting for storage nodes")

    assert asyncio.run(wait())
    assert notified.recv(1000).decode() == "EXTEND_TIMEOUT_USEC=60000000\nSTATUS=waiting for storage nodes"


def test_without_systemd_or_with_one_that_is_gone_nothing_happens(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    supervisor.ready()
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "no such socket"))
    supervisor.ready()
    name = f"tabor-test-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        supervisor.ready()
        assert sock.recv(100) == b"READY=1\nSTATUS=serving"
