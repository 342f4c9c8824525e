"""`tabor doctor` says what is wrong and what to do, and changes nothing."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.log.local import LocalLog
from common.version import VERSION
from tabor.doctor import broker, folder, machine, nodes
from tabor.doctor.findings import Finding, Level
from tests.processes import tabor_command


def doctor(*arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit status and what was found, by what was looked at."""
    done = subprocess.run(
        tabor_command("doctor", "--json", *arguments), capture_output=True, text=True, timeout=60
    )
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, {one["about"]: one for one in json.loads(done.stdout)}


def levels(findings: Any) -> list[str]:
    return [one.level.value for one in findings]


def everything_below(path: Path) -> list[tuple[str, bytes]]:
    return sorted((str(one), one.read_bytes() if one.is_file() else b"") for one in path.rglob("*"))


def test_a_machine_and_a_folder_that_will_do(tmp_path: Path) -> None:
    log = LocalLog(tmp_path / "log", 3)
    log.close()
    before = everything_below(tmp_path)
    status, found = doctor("--data-dir", str(tmp_path))
    assert status == 0
    assert found["log"]["text"].startswith("3 partitions")
    assert found["data folder"]["level"] == "ok"
    assert {"python", "cpu", "memory", "open files", "clock", "kernels", "disk space", "fsync"} <= found.keys()
    assert all(one["advice"] for one in found.values() if one["level"] != "ok")
    assert everything_below(tmp_path) == before


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    _, found = doctor("--data-dir", str(tmp_path / "a" / "b"))
    assert found["data folder"]["text"].endswith("will be made")
    assert not (tmp_path / "a").exists()


def test_a_log_that_is_none_is_a_problem_and_the_exit_status_says_so(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "CURRENT").write_text("nonsense\n")
    status, found = doctor("--data-dir", str(tmp_path))
    assert (status, found["log"]["level"]) == (1, "problem")


def test_for_people_there_is_a_line_each_and_what_to_do_below(tmp_path: Path) -> None:
    command = tabor_command("doctor", "--log", "kafka://127.0.0.1:1/none")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "PROBLEM" in done.stdout
    assert "→" in done.stdout
    assert "no Kafka broker answers at 127.0.0.1:1" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("1 problems")


def test_who_holds_a_folder_is_seen_without_touching_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert folder.held_by(lock) is None
    with lock.open("w") as file:
        assert folder.held_by(lock) is None
        fcntl.flock(file, fcntl.LOCK_EX)
        assert folder.held_by(lock) == os.getpid()


def test_few_open_files_are_a_warning_and_too_few_a_problem() -> None:
    code = "from tabor.doctor.machine import _open_files; print(_open_files().level.value)"
    found = []
    for limit in (500, 2000, 20_000):
        command = ["bash", "-c", f"ulimit -n {limit}; exec {tabor_command()[0]} -c '{code}'"]
        found.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert found[:2] == ["problem", "warning"]
    assert found[2] == "ok" or hard < 20_000


def test_the_file_system_is_that_of_the_longest_mount() -> None:
    mounts = (
        "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\nhost:/x /tmp/far nfs4 rw 0 0\n/dev/b /a\\040b xfs rw 0 0\n"
    )
    kinds = [folder.file_system(Path(at), mounts) for at in ("/var", "/tmp/x", "/tmp/far/y", "/tmpx", "/a b/c")]
    assert kinds == ["ext4", "tmpfs", "nfs4", "ext4", "xfs"]


def test_the_cores_are_those_that_this_process_may_use() -> None:
    assert 0 < machine.cores() <= (os.cpu_count() or 1)


GOOD = {
    "min.insync.replicas": "2",
    "max.message.bytes": "1048588",
    "unclean.leader.election.enable": "false",
    "cleanup.policy": "delete",
    "retention.ms": "604800000",
    "retention.bytes": "-1",
}


@pytest.mark.parametrize(
    ("settings", "copies", "level", "advice"),
    [
        ({}, 3, "ok", ""),
        ({"min.insync.replicas": "1"}, 3, "warning", "on one disk only"),
        ({"min.insync.replicas": "3"}, 3, "warning", "one broker away stops writes"),
        ({"min.insync.replicas": "4"}, 3, "problem", "nothing can be written"),
        ({"max.message.bytes": "100000"}, 3, "problem", "set max.message.bytes to 922624"),
        ({"unclean.leader.election.enable": "true"}, 3, "problem", "lacks records may else become leader"),
        ({"cleanup.policy": "compact"}, 3, "problem", "set cleanup.policy to delete"),
        ({"cleanup.policy": "compact,delete"}, 3, "problem", "set cleanup.policy to delete"),
        ({"retention.ms": "60000"}, 3, "problem", "longer than a node may be away"),
        ({"retention.ms": "86400000"}, 3, "warning", "longer than a node may be away"),
        ({"retention.ms": "-1"}, 3, "ok", ""),
    ],
)
def test_settings_of_the_log(settings: dict[str, str], copies: int, level: str, advice: str) -> None:
    both = {**GOOD, **settings}
    found = [*broker.durability("t", both, copies), *broker.samples("t", both)]
    bad = [one for one in found if one.level is not Level.OK]
    assert levels(bad) == ([] if level == "ok" else [level])
    assert not bad or advice in bad[0].advice


def test_the_control_topic_is_compacted_and_has_the_brokers_clock() -> None:
    good = {"cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime"}
    assert levels(broker.control("c", good)) == ["ok", "ok"]
    assert levels(broker.control("c", {"cleanup.policy": "delete"})) == ["problem", "problem"]


def test_partitions_without_leader_or_replicas() -> None:
    def topic(*isrs: int) -> dict[int, Any]:
        return {i: SimpleNamespace(leader=n - 1, isrs=range(n), replicas=range(3)) for i, n in enumerate(isrs)}

    assert levels(broker.partitions("t", topic(3, 3), 3)) == ["ok"]
    assert levels(broker.partitions("t", topic(3, 2), 3)) == ["warning"]
    assert levels(broker.partitions("t", topic(3, 0), 3)) == ["problem"]


def test_versions_of_nodes() -> None:
    assert levels(nodes.versions({"a": VERSION, "b": VERSION})) == ["ok"]
    assert levels(nodes.versions({"a": VERSION, "b": None})) == ["warning"]
    (found,) = nodes.versions({"a": VERSION, "b": "0.0.1"})
    assert found == Finding("versions", Level.PROBLEM, f"this is {VERSION}; b has 0.0.1", found.advice)


@pytest.mark.parametrize(
    ("behind_s", "level"), [(1.0, "ok"), (-3.0, "ok"), (20.0, "warning"), (-20.0, "warning"), (300.0, "problem")]
)
def test_a_clock_that_differs_from_the_brokers(behind_s: float, level: str) -> None:
    assert nodes.skew(behind_s).level.value == level
