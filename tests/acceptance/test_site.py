"""The documentation builds without a warning, has every page and every flag, and asks nobody for anything."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tabor.cli import cli

pytestmark = pytest.mark.acceptance
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    if done.returncode:
        pytest.fail(f"make docs fails; mend what it warns of:\n{done.stdout}{done.stderr}", pytrace=False)
    return folder


def test_every_page_is_in_the_navigation(site: Path) -> None:
    front = (site / "index.html").read_text()
    navigation = set(re.findall(r'<a href="([^"#]*)" class="md-nav__link', front))
    pages = [path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")]
    assert not {str(page) for page in pages} - navigation
    assert {"flags.html", "changelog.html", "index.html"} <= navigation | {"index.html"}


def commands(command: click.Command, path: str = "tabor") -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, f"{path} {name}")
    elif not command.hidden:
        yield path, command


def test_every_command_and_flag_is_on_the_page_of_flags(site: Path) -> None:
    text = html.unescape((site / "flags.html").read_text())
    sections = dict(re.findall(r'<h2 id="[^"]*">([^<]*)<.*?</h2>(.*?)(?=<h2|</article>)', text, re.DOTALL))
    assert "\b" not in text
    shown = dict(commands(cli))
    assert len(shown) >= 14
    for path, command in shown.items():
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert f"<code>{parameter.opts[0]}" in sections[path], (path, parameter.opts)
                if parameter.envvar:
                    assert str(parameter.envvar) in sections[path]


def test_the_api_is_there_for_programs(site: Path) -> None:
    described = json.loads((site / "openapi.json").read_text())
    assert {"/api/v1/write", "/api/v1/query", "/internal/v1/select"} <= set(described["paths"])


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?(https?:|//)", text)
        loaded += re.findall(r"<link\b(?![^>]*\brel=\"?(?:canonical|prev|next))[^>]*\bhref=\"?(https?:|//)", text)
        assert not loaded, page
        # MkDocs' theme fetches this from a CDN where a page draws with it.
        assert 'class="mermaid"' not in text, page
