"""Shells complete commands and flags, and fast enough to be of use."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import tabor_command

pytestmark = pytest.mark.acceptance


@pytest.fixture
def tabor_on_path(tmp_path: Path) -> dict[str, str]:
    """An environment in which `tabor` is this tree's."""
    program = tmp_path / "tabor"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(tabor_command())} "$@"\n')
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}


def completed_by_bash(line: str, environment: dict[str, str]) -> list[str]:
    """What bash offers after a line, by the script that the command prints."""
    words = line.split(" ")
    script = f"""source <(tabor completion bash)
COMP_WORDS=({shlex.join(words)})
COMP_CWORD={len(words) - 1}
_tabor_completion tabor
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("tabor sto", ["storage-node"]),
        ("tabor run --lis", ["--listen"]),
        ("tabor cluster ver", ["verify"]),
        ("tabor run --read-consistency s", ["strong"]),
        ("tabor completion f", ["fish"]),
    ],
)
def test_bash_completes_commands_flags_and_values(
    line: str, offered: list[str], tabor_on_path: dict[str, str]
) -> None:
    assert completed_by_bash(line, tabor_on_path) == offered


@pytest.mark.parametrize(("shell", "words"), [("zsh", "tabor cluster dr"), ("fish", "tabor cluster dr")])
def test_the_scripts_of_other_shells_ask_the_same_program(shell: str, words: str) -> None:
    script = subprocess.run(tabor_command("completion", shell), capture_output=True, text=True, timeout=60)
    assert f"_TABOR_COMPLETE={shell}_complete" in script.stdout
    asked = {
        "_TABOR_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": "2" if shell == "zsh" else "dr",
    }
    done = subprocess.run(tabor_command(), env={**os.environ, **asked}, capture_output=True, text=True, timeout=60)
    assert "drain" in done.stdout


def test_nothing_heavy_is_imported_to_complete() -> None:
    asked = {"_TABOR_COMPLETE": "bash_complete", "COMP_WORDS": "tabor run --l", "COMP_CWORD": "2"}
    command = [sys.executable, "-X", "importtime", "-m", "tabor"]
    done = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True, timeout=60)
    assert "--listen" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    heavy = {
        "numpy",
        "numba",
        "fastapi",
        "pydantic",
        "confluent_kafka",
        "rocksdict",
        "pyarrow",
        "httpx",
        "asyncio",
    }
    assert not imported & heavy


def test_an_unknown_shell_is_answered_with_those_that_are_known() -> None:
    done = subprocess.run(tabor_command("completion", "tcsh"), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "'bash', 'zsh', 'fish'" in done.stderr
