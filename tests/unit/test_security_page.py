"""docs/security.md names a test for each threat: it has to be there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "security.md"
_NAMED = re.compile(r"`(?:tests/)?([\w/]+\.py)(?:::(\w+))?`")


def rows() -> list[list[str]]:
    """The cells of the threat model's tables of threats."""
    section = PAGE.read_text().partition("\n### Threats\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| threat")]
    return [[cell.strip() for cell in re.split(r" \| ", line.strip("| "))] for line in lines]


def test_every_threat_has_an_answer_and_a_test() -> None:
    assert len(rows()) > 20
    for row in rows():
        assert len(row) == 3, row
        assert _NAMED.search(row[2]) or row[2].startswith("none:"), row


def test_every_test_that_the_page_names_is_there() -> None:
    named = _NAMED.findall(PAGE.read_text())
    assert len(named) > 20
    for file, function in named:
        path = ROOT / "tests" / file
        if not path.exists():
            # Modules of Tabor itself are named too.
            assert (ROOT / file).exists(), file
            continue
        found = {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
        assert not function or function in found, f"{file}::{function}"
