"""The blocks of the documentation, and what its authors say about running them.

A command is in a fenced block of the language `sh`; nothing else may look like one. HTML comments directly before
a block say how it is run (docs/testing.md, 'Commands in the docs'):

    <!-- before: COMMANDS -->    run them first, unseen: what the reader is supposed to have
    <!-- file: PATH -->          the block is the content of this file
    <!-- prints: TEXT -->        its output has this in it
    <!-- fails: REASON -->       it has to end with a status other than 0
    <!-- not run: REASON -->     it cannot be run by the tests
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOT_PAGES = ("docs/decisions",)
"""Decisions say what was done when they were taken, and are not changed afterwards."""
NOTES = ("before", "file", "prints", "fails", "not run")
_PROGRAMS = (
    "apt|apt-get|bash|cd|chmod|chown|curl|docker|export|git|install|journalctl|kcat|kill|make|mkdir|openssl|pip|pipx|"
    r"promtool|prometheus|python3?|\.venv/bin/\S+|sudo|systemctl|systemd-analyze|systemd-creds|tabor|tar|useradd|wget"
)
_LOOKS_LIKE_A_COMMAND = re.compile(rf"(\$ )?([A-Z][A-Z_]*=\S+ )*({_PROGRAMS})( |$)")
_FENCE = re.compile(r"(?P<indent> *)(?P<marks>`{3,}|~{3,})(?P<language>[\w+-]*)")
_NOTE = re.compile(rf"({'|'.join(NOTES)}):\s*(.*)", re.DOTALL)


class PageError(Exception):
    """A page breaks the rules for commands; says where, and what to do."""


@dataclass
class Block:
    """A fenced block. line: of its fence, from 1. The notes are empty where there is none."""

    page: str
    line: int
    language: str
    text: str = ""
    before: str = ""
    file: str = ""
    prints: str = ""
    fails: str = ""
    not_run: str = ""
    lines: list[str] = field(default_factory=list)

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def runs(self) -> bool:
        return not self.not_run and (self.language in ("sh", "python") or bool(self.file) or bool(self.before))


def pages() -> list[str]:
    """Paths of all pages that may have commands, relative to the root of the repository."""
    found = ["README.md", *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md")))]
    return [page for page in found if not page.startswith(NOT_PAGES)]


def blocks_of(page: str, text: str | None = None) -> list[Block]:
    """The fenced blocks of a page, in order.

    Raises:
        PageError: a command is not in a block of the language sh, or a note is before no block.
    """
    lines = ((ROOT / page).read_text() if text is None else text).splitlines()
    return list(_parse(page, lines))


def _parse(page: str, lines: list[str]) -> Iterator[Block]:
    notes: dict[str, str] = {}
    at = 0
    while at < len(lines):
        line, number = lines[at], at + 1
        at += 1
        if fence := _FENCE.match(line):
            block = Block(page, number, fence["language"])
            while at < len(lines) and lines[at].strip() != fence["marks"]:
                block.lines.append(lines[at])
                at += 1
            at += 1
            block.text = textwrap.dedent("\n".join(block.lines)) + "\n"
            for kind, said in notes.items():
                setattr(block, kind.replace(" ", "_"), said)
            notes = {}
            _check(block)
            yield block
        elif line.lstrip().startswith("<!--"):
            comment = [line.strip()]
            while "-->" not in comment[-1] and at < len(lines):
                comment.append(lines[at])
                at += 1
            inside = "\n".join(comment).removeprefix("<!--").split("-->")[0].strip()
            if note := _NOTE.fullmatch(inside):
                if not note[2].strip():
                    raise PageError(f"{page}:{number}: the note {note[1]!r} says nothing")
                notes[note[1]] = note[2].strip()
        elif notes and line.strip():
            raise PageError(f"{page}:{number}: the note {next(iter(notes))!r} is not directly before a block")
        elif _LOOKS_LIKE_A_COMMAND.match(line.strip()) and _is_indented_block(lines, at - 1):
            raise PageError(f"{page}:{number}: put this indented command between ```sh and ```: {line.strip()}")
    if notes:
        raise PageError(f"{page}: the note {next(iter(notes))!r} is before no block")


def _is_indented_block(lines: list[str], at: int) -> bool:
    before = lines[at - 1] if at else ""
    return lines[at].startswith("    ") and (not before.strip() or before.startswith("    "))


def _check(block: Block) -> None:
    first = next((line for line in block.text.splitlines() if line and not line.startswith("#")), "")
    wrong = block.language in ("bash", "shell", "console", "zsh", "shell-session")
    if wrong or (block.language in ("", "text") and not block.file and _LOOKS_LIKE_A_COMMAND.match(first)):
        raise PageError(
            f"{block.where}: a block of commands has the language sh, not {block.language or 'none'!r}"
        )
    if block.language == "sh" and re.search(r"^\$ ", block.text, re.MULTILINE):
        raise PageError(f"{block.where}: leave out the prompt '$ ', so that the block can be copied")
