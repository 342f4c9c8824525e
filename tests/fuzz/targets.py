"""What is fuzzed: each target is a module of this package with `one_input`, and a folder of inputs in `corpus/`.

`one_input(data)` returns what the bytes are taken for, which is the same with and without compiled kernels, and
raises, whatever it is, if the product does not keep what the module's docstring says of it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import xxhash

CORPUS = Path(__file__).parent / "corpus"
FOUND = Path(".cache/fuzz")
"""What runs have found; kept on this machine only."""
TARGETS = tuple(sorted(folder.name for folder in CORPUS.iterdir()))


def load(target: str) -> Callable[[bytes], object]:
    """The target's `one_input`."""
    one_input: Callable[[bytes], object] = importlib.import_module(f"tests.fuzz.{target}").one_input
    return one_input


def inputs(folders: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every input in the folders."""
    for folder in folders:
        for path in sorted(folder.iterdir()):
            yield path.name, path.read_bytes()


def outcomes(target: str, folders: Iterable[Path]) -> list[str]:
    """One line for each input of the folders, with a digest of what it was taken for."""
    one_input = load(target)
    return [f"{name} {xxhash.xxh3_64_hexdigest(repr(one_input(data)).encode())}" for name, data in inputs(folders)]
