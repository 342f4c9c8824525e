"""Fuzzing with atheris: `python -m tests.fuzz --target remote_write --seconds 600`.

Begins with the inputs of tests/fuzz/corpus/ and those that earlier runs have found, kept in .cache/fuzz/. An input
that breaks a target is written there too. At the end all inputs are given to the target with compiled kernels and
with kernels that are plain Python: both must take them for the same. `--minimise` copies inputs into the corpus,
those that reach code which it does not reach.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys

from tests.fuzz.targets import CORPUS, FOUND, TARGETS

MAX_INPUT_BYTES = 2048
KERNELS = {
    "python": {"NUMBA_DISABLE_JIT": "1"},
    # Kernels with checked bounds are others than those without, so they have a cache of their own.
    "compiled": {"NUMBA_BOUNDSCHECK": "1", "TABOR_KERNEL_CACHE": str(FOUND / "kernels")},
}


def worker(kernels: str, *arguments: str, capture: bool = False) -> str:
    """Run the worker; ends this process with its status if it fails. Returns its output if it is captured."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.worker", *arguments],
        env=os.environ | KERNELS[kernels],
        stdout=subprocess.PIPE if capture else None,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{arguments[1]} with {kernels} kernels: ended with {done.returncode}")
    return done.stdout or ""


def fuzz(target: str, kernels: str, seconds: int) -> None:
    found = FOUND / target
    found.mkdir(parents=True, exist_ok=True)
    worker(
        kernels,
        *("fuzz", target, str(found), str(CORPUS / target), f"-max_total_time={seconds}"),
        *(f"-max_len={MAX_INPUT_BYTES}", "-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1"),
        f"-artifact_prefix={FOUND / target}-",
    )


def compare(target: str) -> None:
    folders = (str(CORPUS / target), str(FOUND / target))
    python, compiled = (worker(kernels, "replay", target, *folders, capture=True) for kernels in KERNELS)
    differing = sorted(set(python.splitlines()) ^ set(compiled.splitlines()))
    if differing:
        sys.exit(f"{target}: compiled kernels take these inputs for something else: {differing}")
    print(f"{target}: {len(python.splitlines())} inputs are the same with compiled kernels")


def minimise(target: str) -> None:
    """Take into the corpus the smallest inputs that reach code which nothing in it reaches."""
    small = FOUND / f"{target}-small"
    shutil.rmtree(small, ignore_errors=True)
    small.mkdir()
    folders = [str(folder) for folder in (small, CORPUS / target, FOUND / target)]
    # By code and not by how often it runs, or a corpus would grow by an input for each power of two.
    worker("python", "fuzz", target, *folders, "-merge=1", "-use_counters=0")
    for path in small.iterdir():
        shutil.copy(path, CORPUS / target / path.name)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--target", choices=TARGETS, action="append", help="one or more; all if not given")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--kernels", choices=list(KERNELS), default="python")
    parser.add_argument("--minimise", action="store_true", help="do not fuzz, but make the corpus grow")
    options = parser.parse_args()
    for target in options.target or TARGETS:
        if options.minimise:
            minimise(target)
        else:
            fuzz(target, options.kernels, options.seconds)
            compare(target)


if __name__ == "__main__":
    main()
