"""The commands and the example of the README do what it says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.requests import compress, encode_labels, encode_sample
from tests.kafka_broker import Broker
from tests.processes import Process, running, tabor_command, tabor_run

pytestmark = pytest.mark.acceptance
ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[list[str]]:
    """The commands of the README that start with a program, without their comments."""
    lines = [line for block in blocks("sh") for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith(program + " ")]


def test_the_commands_that_ask_get_an_answer(tmp_path: Path) -> None:
    asking = commands("curl") + commands("promtool")
    assert len(asking) >= 3
    server = tabor_run(tmp_path)
    with running(server):
        server.start_and_wait()
        body = compress(
            [encode_labels({"__name__": "up", "job": "x"}) + encode_sample(1.0, time.time_ns() // 10**6)]
        )
        assert server.write(body)[0] == 204
        for command in asking:
            here = [part.replace("127.0.0.1:9080", f"127.0.0.1:{server.port}") for part in command]
            result = subprocess.run(here, capture_output=True, text=True, timeout=60)
            assert result.returncode == 0, result.stderr
            assert '"success"' in result.stdout or "=> 1 @" in result.stdout, (here, result.stdout)


def test_prometheus_takes_the_configuration(tmp_path: Path) -> None:
    configuration = tmp_path / "prometheus.yml"
    # What the README says of remote read it says in words.
    remote_read = "remote_read:\n  - url: http://127.0.0.1:9080/api/v1/read\n"
    configuration.write_text("".join(blocks("yaml")) + remote_read)
    assert "remote_write:" in configuration.read_text()
    check = ["promtool", "check", "config", str(configuration)]
    result = subprocess.run(check, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_commands_of_tabor_are_understood(tmp_path: Path) -> None:
    shown = commands("tabor")
    assert len(shown) >= 7
    for command in shown:
        # --help after the flags: they are parsed, and nothing is started.
        result = subprocess.run(tabor_command(*command[1:], "--help"), capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, (command, result.stderr)
        help_text = result.stdout
        for flag in (part for part in command if part.startswith("--") and part != "--help"):
            assert flag in help_text, (command, flag)


def test_log_inspect_and_replay_work_on_a_stopped_server(tmp_path: Path) -> None:
    server = tabor_run(tmp_path, "--partitions", "4")
    with running(server):
        server.start_and_wait()
        body = compress(
            [encode_labels({"__name__": "up", "job": str(i)}) + encode_sample(i, 1000) for i in range(99)]
        )
        assert server.write(body)[0] == 204
        inspect = ["log", "inspect", "--data-dir", str(tmp_path / "data"), "--partition", "3", "--from", "0"]
        beside = subprocess.run(tabor_command(*inspect), capture_output=True, text=True, timeout=60)
        assert "declares ref 0" in beside.stdout, beside.stderr
        assert server.stop() == 0
    replay = tabor_command("replay", "--data-dir", str(tmp_path / "data"))
    result = subprocess.run(replay, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "DIFFERENT" not in result.stdout
    assert "replayed 99 samples" in result.stderr


@pytest.mark.kafka
def test_the_producer_of_the_readme_fills_the_log(tmp_path: Path, kafka_broker: Broker) -> None:
    (example,) = blocks("python")
    url = f"kafka://{kafka_broker.bootstrap}/readme-{time.time_ns()}"
    assert example.count("kafka://127.0.0.1:9092/tabor") == 1
    script = tmp_path / "example.py"
    script.write_text(example.replace("kafka://127.0.0.1:9092/tabor", url))
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    server: Process = tabor_run(tmp_path, "--log", url)
    with running(server):
        server.start_and_wait()
        query = "sum by (car) (count_over_time(speed_kmh[601s]))"
        data = server.data("/api/v1/query", query=query, time=1_790_000_600)
        assert {row["metric"]["car"]: row["value"][1] for row in data["result"]} == {"7": "600", "9": "600"}
