"""The files of `compose/` fit each other and the product; a Docker engine is needed only to start them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from tabor.cli import cli

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "compose"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    content = yaml.safe_load((COMPOSE / "docker-compose.yml").read_text())
    found: dict[str, Any] = content["services"]
    return found


def test_the_cluster_has_what_it_should_have(services: dict[str, Any]) -> None:
    kinds = [re.sub(r"-(\d|[a-e])$", "", name) for name in services]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "kafka": 3,
        "topics": 1,
        "ingest": 2,
        "node": 5,
        "query": 2,
        "prometheus": 1,
        "grafana": 1,
    }


def test_every_command_is_one_that_tabor_takes(services: dict[str, Any]) -> None:
    for name, service in services.items():
        if service.get("image") != "tabor":
            continue
        command: click.Command = cli
        arguments = list(service["command"])
        with click.Context(cli) as ctx:
            while isinstance(command, click.Group):
                found = command.get_command(ctx, arguments.pop(0))
                assert found is not None, name
                command = found
            url = service["environment"]["TABOR_LOG"]
            parsed = command.make_context(name, [*arguments, "--log", url])
        assert parsed.params["log"].startswith("kafka://kafka-1:9092,")


def test_nodes_keep_their_data_and_say_where_they_are(services: dict[str, Any]) -> None:
    for letter in "abcde":
        node = services[f"node-{letter}"]
        command = node["command"]
        assert command[command.index("--name") + 1] == letter
        assert command[command.index("--advertise") + 1] == f"node-{letter}:9080"
        assert node["volumes"] == [f"node-{letter}:/data"]


def test_no_port_is_open_to_the_world_and_all_files_that_are_mounted_are_there(services: dict[str, Any]) -> None:
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (COMPOSE / source).is_file(), source


def test_prometheus_watches_every_tier(services: dict[str, Any]) -> None:
    config = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())
    (job,) = [job for job in config["scrape_configs"] if job["job_name"] == "tabor"]
    watched = {target for group in job["static_configs"] for target in group["targets"]}
    assert watched == {f"{name}:9080" for name in services if re.match("ingest|node|query", name)}
    # Its version of the image knows more than the one that may be installed here; the syntax is the same.
    check = subprocess.run(
        ["promtool", "check", "config", "--syntax-only", COMPOSE / "prometheus.yml"],
        capture_output=True,
        text=True,
    )
    assert check.returncode == 0, check.stderr


def test_docker_takes_the_file() -> None:
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        print("not checked by docker compose, which is not here")
        return
    command = ["docker", "compose", "-f", str(COMPOSE / "docker-compose.yml"), "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
