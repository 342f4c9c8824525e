"""Tabor's version, and what is said about data that another version wrote."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from common.errors import StartupError

VERSION = version("tabor")
"""Of the installed distribution; pyproject.toml says it."""


def check_format(what: str, meta: Mapping[str, Any], reads: int, remedy: str) -> None:
    """See that this version reads data.

    what: names the data, with its place and the verb.
    meta: what it says of itself: `format`, and the `tabor` that wrote it.
    Raises:
        StartupError: the format is another one; names both versions and what to do.
    """
    found = meta.get("format")
    if found == reads:
        return
    writer = f"Tabor {meta['tabor']}" if "tabor" in meta else "another version of Tabor"
    raise StartupError(
        f"{what} format {found}, written by {writer}; this is Tabor {VERSION}, which reads format {reads}:"
        f" {remedy}"
    )
