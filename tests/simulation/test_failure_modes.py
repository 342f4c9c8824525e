"""Every test that the table of failure modes names is there."""

from __future__ import annotations

import re
from pathlib import Path

from tests.simulation.test_simulation import CRASH_POINTS

_ROOT = Path(__file__).parents[2]
_TABLE = (_ROOT / "docs" / "failure_modes.md").read_text()


def test_the_tests_named_in_the_table_exist() -> None:
    sources = {path: path.read_text() for path in (_ROOT / "tests").rglob("test_*.py")}
    named = re.findall(r"`(?:tests/)?([\w/]+\.py)?::(test_\w+)", _TABLE)
    assert len(named) > 20
    for file, test in named:
        found = [path for path, text in sources.items() if f"def {test}(" in text and str(path).endswith(file)]
        assert found, f"{file}::{test}"


def test_the_crash_points_named_in_the_table_are_run() -> None:
    named = re.findall(r"`((?:start|apply|merge|read|stop|replay):[\w.]+)`", _TABLE)
    assert len(named) > 15
    assert set(named) <= set(CRASH_POINTS)
