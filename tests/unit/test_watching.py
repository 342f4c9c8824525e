"""The dashboard and the alerts ask for metrics that there are, and every alert has a runbook."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from query.promql.ast import VectorSelector
from query.promql.parser import parse
from query.selectors import selectors
from tests.metrics_page import described

DOCS = Path(__file__).parents[2] / "docs"
ALERTS = DOCS / "alerts" / "tabor.yml"
OTHERS = {
    "up",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_max_fds",
    "process_cpu_seconds_total",
}
"""Of Prometheus and of every Python process."""
SECTIONS = ["How bad it is", "What to look at", "What to do", "Over when"]


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def dashboard_queries() -> Iterator[tuple[str, str]]:
    for panel in json.loads((DOCS / "dashboards" / "tabor.json").read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m")


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    """Names that can be asked for, with their labels."""
    found: dict[str, set[str]] = {name: set() for name in OTHERS}
    for one in described():
        parts = ("_bucket", "_sum", "_count") if one.type == "histogram" else ("",)
        for part in parts:
            found[one.name + part] = {*one.labels, *(["le"] if part == "_bucket" else [])}
    return found


def check(expr: str, known: dict[str, set[str]]) -> None:
    for selector in selectors(parse(expr)):
        assert isinstance(selector, VectorSelector)
        name = next(m.value for m in selector.matchers if m.name == "__name__")
        assert name in known, f"{name} is shown by nobody"
        for matcher in selector.matchers:
            assert matcher.name in {"__name__", "job", "instance", *known[name]}, f"{name} has no {matcher.name}"


def test_every_query_of_the_dashboard_is_promql_over_metrics_that_there_are(known: dict[str, set[str]]) -> None:
    queries = list(dashboard_queries())
    assert len(queries) > 30
    for title, expr in queries:
        check(expr, known)
        assert title


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    panels = json.loads((DOCS / "dashboards" / "tabor.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_alert_asks_for_metrics_that_there_are(known: dict[str, set[str]]) -> None:
    for rule in rules():
        check(rule["expr"], known)
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    folder = DOCS / "runbooks"
    named = {DOCS / rule["annotations"]["runbook_url"] for rule in rules()}
    assert named == set(folder.glob("*.md")) - {folder / "index.md"}
    for path in named:
        text = path.read_text()
        assert text.startswith(f"# {path.stem}\n\n**What it means.** "), path
        assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS, path
        for name in re.findall(r"\]\((\w+\.md)\)", text):
            assert (folder / name).exists(), f"{path.name} links to {name}"


def test_runbooks_speak_of_metrics_that_there_are(known: dict[str, set[str]]) -> None:
    for path in (DOCS / "runbooks").glob("*.md"):
        for name in re.findall(r"\b(?:tabor|process)_[a-z0-9_]+", path.read_text()):
            assert name in known or f"{name}_sum" in known, f"{path.name}: {name}"


def test_promtool_takes_the_rules_and_each_alert_has_a_unit_test_that_holds() -> None:
    checked = subprocess.run(["promtool", "check", "rules", str(ALERTS)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tests = DOCS / "alerts" / "tests" / "tabor_test.yml"
    done = subprocess.run(
        ["promtool", "test", "rules", tests.name], capture_output=True, text=True, cwd=tests.parent
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tested = {one["name"] for one in yaml.safe_load(tests.read_text())["tests"]}
    assert tested == {rule["alert"] for rule in rules()}
