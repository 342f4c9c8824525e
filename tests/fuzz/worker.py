"""The process that fuzzes or replays: `python -m tests.fuzz.worker fuzz|replay TARGET FOLDER… [-option=…]`.

With NUMBA_DISABLE_JIT=1 kernels are Python, whose branches the fuzzer sees; else they are compiled, with checked
bounds under NUMBA_BOUNDSCHECK=1.
"""

from __future__ import annotations

import functools
import random
import secrets
import shlex
import sys
from pathlib import Path

import numpy as np

import common.kernels as kernel_package
from common.kernels.jit import disabled
from tests.fuzz.targets import FOUND, load, outcomes


def main(what: str, target: str, *arguments: str) -> None:
    # Plain numpy warns of wraparound, which hashes and differences are made of.
    np.seterr(all="ignore")
    # The hash of labels has a random key. With one key an input always goes the same way, and there is no waiting
    # for the kernel's entropy.
    secrets.token_bytes = functools.cache(random.Random(0).randbytes)
    if what == "replay":
        print("\n".join(outcomes(target, map(Path, arguments))))
        return
    import atheris

    # Numba cannot compile what is instrumented.
    kernels = [f"common.kernels.{path.stem}" for path in Path(kernel_package.__path__[0]).glob("*.py")]
    compiled = [] if disabled() else kernels
    with atheris.instrument_imports(include=["common", "ingest", "query"], exclude=compiled):
        one_input = load(target)
    # A merge runs the program again, by its name, with other arguments.
    myself = (FOUND / f"{target}-again").absolute()
    myself.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tests.fuzz.worker {what} {target} "$@"\n')
    myself.chmod(0o700)
    atheris.Setup([str(myself), *arguments], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
