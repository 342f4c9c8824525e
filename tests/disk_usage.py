"""Bytes of a folder that somebody else is writing to."""

from __future__ import annotations

from pathlib import Path


def disk_usage(folder: Path, *suffixes: str) -> int:
    """Bytes of the files below a folder, or of those with these suffixes; a file that goes meanwhile has none."""
    total = 0
    for path in folder.rglob("*"):
        if suffixes and path.suffix not in suffixes:
            continue
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total
