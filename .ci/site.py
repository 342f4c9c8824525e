"""What MkDocs does not do by itself: pages from elsewhere, pages made from code, a navigation without gaps."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
MADE = ("index.md", "changelog.md", "flags.md")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill in the navigation: folders, and whatever is not listed."""
    docs = Path(config.docs_dir)
    pages = sorted(str(path.relative_to(docs)) for path in docs.rglob("*.md"))
    config.nav = _expanded(config.nav, pages)
    listed = set(_paths(config.nav))
    if more := [page for page in pages if page not in listed and page not in MADE]:
        config.nav.append({"More": more})
    return config


def _expanded(item: Any, pages: list[str]) -> Any:
    if isinstance(item, list):
        return [_expanded(one, pages) for one in item]
    if isinstance(item, dict):
        return {name: _expanded(one, pages) for name, one in item.items()}
    if item.endswith("/*"):
        return [page for page in pages if page.startswith(item[:-1])]
    return item


def _paths(item: Any) -> Iterator[str]:
    for one in item if isinstance(item, list) else item.values() if isinstance(item, dict) else ():
        yield from [one] if isinstance(one, str) else _paths(one)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are kept elsewhere or made here."""
    from tabor.openapi import all_services, document
    from tests.docs import flags

    docs = Path(config.docs_dir)
    made = {
        "index.md": _from_root((ROOT / "README.md").read_text(), docs),
        "changelog.md": _from_root((ROOT / "CHANGELOG.md").read_text(), docs),
        "flags.md": flags.page(),
        "openapi.json": json.dumps(document(all_services()), indent=1),
    }
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def _from_root(text: str, docs: Path) -> str:
    """A page of the repository's root with links as they are from docs/."""

    def link(found: re.Match[str]) -> str:
        target = found[1]
        if target.endswith("/"):
            # A folder: its first page.
            target += min(path.name for path in (docs / target).glob("*.md"))
        return f"]({target})"

    text = re.sub(r"\]\(docs/([\w./#-]+)\)", link, text).replace("](CHANGELOG.md)", "](changelog.md)")
    return text.replace("[LICENSE](LICENSE)", "LICENSE")
