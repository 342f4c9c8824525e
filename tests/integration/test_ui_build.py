"""What is shipped of the page is what its source gives."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path

from tabor.page.routes import STATIC
from tests.page.browser import ROOT, modules


def contents(folder: Path) -> dict[str, bytes]:
    # What is compressed is compared, for another zlib may use other words for the same.
    return {path.name: gzip.decompress(path.read_bytes()) for path in folder.iterdir()}


def test_the_shipped_page_is_what_the_source_gives(tmp_path: Path) -> None:
    modules()
    subprocess.run(["npm", "run", "--silent", "check"], cwd=ROOT / "ui", check=True)
    subprocess.run(["node", "build.mjs", str(tmp_path / "static")], cwd=ROOT / "ui", check=True)
    built, shipped = contents(tmp_path / "static"), contents(STATIC)
    assert built.keys() == shipped.keys(), "the page's source has changed: run `make ui`"
    assert [name for name in built if built[name] != shipped[name]] == [], "run `make ui`"


def test_the_lock_file_fixes_every_package_by_its_content_and_no_registry() -> None:
    packages = json.loads((ROOT / "ui" / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    found = [package for name, package in packages.items() if name]
    assert found
    assert all(package["integrity"].startswith("sha512-") for package in found)
    assert not any("resolved" in package for package in found)
