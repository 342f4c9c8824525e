"""The kept inputs are taken as the targets say, and for the same with compiled kernels and without."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.fuzz.targets import CORPUS, TARGETS, outcomes


@pytest.mark.parametrize("target", TARGETS)
def test_kept_inputs_are_taken_for_the_same_with_compiled_kernels_and_without(target: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.worker", "replay", target, str(CORPUS / target)],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert outcomes(target, [CORPUS / target]) == done.stdout.splitlines() != []
