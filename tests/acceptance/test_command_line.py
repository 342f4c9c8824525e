"""What people see when they start Tabor wrongly, twice or without what it needs: one line, no traceback."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.processes import Process, free_port, running, tabor_command, tabor_run, wait_for

pytestmark = pytest.mark.acceptance


def tabor(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        tabor_command(*arguments), capture_output=True, text=True, timeout=60, env={**os.environ, **(env or {})}
    )


def last_line(result: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in result.stderr, result.stderr
    return result.stderr.strip().splitlines()[-1]


def test_a_wrong_flag_is_named_with_the_place_to_look() -> None:
    result = tabor("run", "--lisen", "127.0.0.1:1")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "--lisen" in result.stderr
    assert "--listen" in result.stderr
    assert "tabor run --help" in result.stderr


@pytest.mark.parametrize(
    ("flag", "value", "hint"),
    [
        ("--listen", "nowhere", "127.0.0.1:9080"),
        ("--retention", "four weeks", "400d"),
        ("--max-body-bytes", "lots", "32MiB"),
        ("--retention", "0s", "above 0"),
        ("--max-body-bytes", "0", "above 0"),
        ("--max-active-series", "99999999", "16777216"),
        ("--partitions", "0", "1<=x<=65536"),
        ("--read-consistency", "maybe", "strong"),
    ],
)
def test_a_wrong_value_is_answered_with_an_example(flag: str, value: str, hint: str) -> None:
    result = tabor("run", flag, value)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert flag in result.stderr
    assert hint in result.stderr


def test_a_port_in_use_is_said_with_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = tabor("run", "--data-dir", str(tmp_path / "data"), "--listen", f"127.0.0.1:{port}")
    assert result.returncode == 1
    assert "in use" in last_line(result)
    assert "--listen" in last_line(result)


def test_a_data_folder_that_is_a_file_is_said_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    result = tabor("run", "--data-dir", str(tmp_path / "data" / "inside"), "--listen", f"127.0.0.1:{free_port()}")
    assert result.returncode == 1
    assert "--data-dir" in last_line(result)


def test_an_unreachable_broker_is_said_with_its_address(tmp_path: Path) -> None:
    port = free_port()
    result = tabor(
        "run",
        "--data-dir",
        str(tmp_path / "data"),
        "--listen",
        f"127.0.0.1:{free_port()}",
        "--log",
        f"kafka://127.0.0.1:{port}/tabor",
    )
    assert result.returncode == 1
    assert f"127.0.0.1:{port}" in last_line(result)


def test_a_kernel_cache_that_cannot_be_written_is_said_with_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = str(tmp_path / "file" / "cache")
    result = tabor(
        "run",
        "--data-dir",
        str(tmp_path / "data"),
        "--listen",
        f"127.0.0.1:{free_port()}",
        env={"TABOR_KERNEL_CACHE": cache},
    )
    assert result.returncode == 1
    assert cache in last_line(result)
    assert "TABOR_KERNEL_CACHE" in last_line(result)


def test_a_log_that_is_neither_local_nor_kafka_is_refused_without_showing_its_password(tmp_path: Path) -> None:
    url = "redis://localhost:1/x?sasl.password=hunter2"
    result = tabor("run", "--data-dir", str(tmp_path / "data"), "--log", url)
    assert result.returncode == 1
    assert "kafka://" in last_line(result)
    assert "hunter2" not in result.stderr


def test_a_folder_without_a_log_is_not_replayed_nor_made(tmp_path: Path) -> None:
    result = tabor("replay", "--data-dir", str(tmp_path / "mistyped"))
    assert result.returncode == 1
    assert f"there is no log in {tmp_path}/mistyped/log" in last_line(result)
    assert not (tmp_path / "mistyped").exists()


def test_a_missing_argument_is_one_line_with_its_values_and_a_group_shows_its_commands() -> None:
    result = tabor("completion")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "bash, zsh, fish" in result.stderr
    result = tabor("placement")
    assert result.returncode == 2
    assert result.stderr.startswith("Usage: tabor placement")


def test_two_processes_on_one_folder_are_refused(tmp_path: Path) -> None:
    server = tabor_run(tmp_path)
    with running(server):
        server.start_and_wait()
        result = tabor("run", "--data-dir", str(tmp_path / "data"), "--listen", f"127.0.0.1:{free_port()}")
        assert result.returncode == 1
        assert "in use by process" in last_line(result)
        assert server.get("/-/ready")[0] == 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_status_0(tmp_path: Path, number: signal.Signals) -> None:
    server = tabor_run(tmp_path)
    with running(server):
        server.start_and_wait()
        server.signal(number)
        assert server.wait(10) == 0, server.output
        assert "Traceback" not in server.output


def test_the_start_ends_with_the_urls_and_the_place_of_the_data(tmp_path: Path) -> None:
    server = tabor_run(tmp_path)
    with running(server):
        server.start_and_wait()
        server.stop()
    lines = server.output.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("remote_write url:"))
    assert f"http://127.0.0.1:{server.port}/api/v1/write" in lines[at]
    assert f"http://127.0.0.1:{server.port}/api/v1/query" in lines[at + 1]
    assert any(str(tmp_path / "data") in line for line in lines[at + 2 :] if line.startswith("data:"))


def test_port_0_is_shown_as_the_port_that_it_became(tmp_path: Path) -> None:
    server = Process(
        "tabor", tabor_command("run", "--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0"), tmp_path, 0
    )
    with running(server):
        server.start()
        wait_for(lambda: "data:  " in server.output, "the last line of the start", 120)
        shown = re.search(r"remote_write url: +http://127.0.0.1:(\d+)/", server.output)
        assert shown is not None, server.output
        server.port = int(shown.group(1))
        assert server.get("/-/ready")[0] == 200


def test_flags_win_over_the_environment_and_both_over_the_file(tmp_path: Path) -> None:
    config = tmp_path / "tabor.toml"
    config.write_text('retention = "10d"\nquery-timeout = "10s"\nquery-lookback = "10m"\nlisten = "nowhere"\n')
    result = tabor(
        "run",
        "--config",
        str(config),
        "--retention",
        "30d",
        "--data-dir",
        "/proc/none",
        env={"TABOR_RETENTION": "20d", "TABOR_QUERY_TIMEOUT": "20s", "TABOR_LISTEN": f"127.0.0.1:{free_port()}"},
    )
    shown = {line.split()[0]: line.split()[1:] for line in result.stderr.splitlines() if line.startswith("  ")}
    assert shown["retention"] == ["30d", "flag"]
    assert shown["query-timeout"] == ["20s", "environment"]
    assert shown["query-lookback"] == ["10m", "config", "file"]


def test_an_unknown_key_in_the_file_is_named(tmp_path: Path) -> None:
    config = tmp_path / "tabor.toml"
    config.write_text("retentoin = '1d'\n")
    result = tabor("run", "--config", str(config))
    assert result.returncode == 2
    assert "retentoin" in last_line(result)


@pytest.mark.parametrize(
    "command", ["run", "ingest", "storage-node", "query", "replay", "log inspect", "log"], ids=lambda c: c
)
def test_help_explains_every_flag(command: str) -> None:
    result = tabor(*command.split(), "--help")
    assert result.returncode == 0
    assert "Usage: tabor" in result.stdout
