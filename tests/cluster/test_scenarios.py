"""Some of the scenarios, as a part of all tests; `python -m tests.cluster` runs all of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.acceptance, pytest.mark.kafka, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
WANTED = ("kill-two-replicas", "kill-ingestor", "wipe-disk", "node-without-query-servers")


def test_a_cluster_under_load_loses_and_doubles_nothing_and_is_never_wrong_whatever_dies(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """In network namespaces if this machine lets us make them; what is left out otherwise is printed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.cluster", "--keep", str(tmp_path), *WANTED],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line("\n" + done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "none lost, doubled or foreign; digests equal" in done.stdout
