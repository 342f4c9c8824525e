"""`compose/` in a Docker engine: everything starts, and Grafana's data source sees what Prometheus wrote."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.processes import wait_for

pytestmark = pytest.mark.acceptance

COMPOSE = Path(__file__).parents[2] / "compose"


def why_no_engine() -> str | None:
    """What is missing to start containers, or None."""
    try:
        if subprocess.run(["docker", "info"], capture_output=True, timeout=20).returncode:
            return "a Docker engine that runs"
        if subprocess.run(["docker", "compose", "version"], capture_output=True, timeout=20).returncode:
            return "Docker's compose plugin"
    except FileNotFoundError:
        return "docker"
    return None


def up_series() -> Any:
    query = urllib.parse.urlencode({"query": 'count(up{job="tabor"} == 1)'})
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:9083/api/v1/query?{query}", timeout=10) as answer:
            result = json.load(answer)["data"]["result"]
    except (OSError, urllib.error.URLError):
        return 0
    return int(result[0]["value"][1]) if result else 0


def test_the_whole_cluster_starts_in_containers_and_stores_what_prometheus_sees_of_it() -> None:
    missing = why_no_engine()
    if missing is not None:
        pytest.skip(f"the containers of compose/ cannot be started for want of {missing}: install Docker")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from testcontainers.compose import DockerCompose
    with DockerCompose(str(COMPOSE), build=True, keep_volumes=False):
        wait_for(lambda: up_series() == 9, "all nine processes are seen to be up", 300)
