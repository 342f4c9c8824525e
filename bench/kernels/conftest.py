"""The workload, once for all kernels, and the table at the end."""

from __future__ import annotations

import time

import numpy as np
import pytest

from bench.kernels import workload
from bench.kernels.figures import FIGURES, table

N_SERIES, N_STEPS = 2_000, 240
_COPIED_BYTES = 256 << 20


@pytest.fixture(scope="session")
def arguments() -> dict[str, workload.Arguments]:
    """Of the largest call of each kernel."""
    return workload.run(N_SERIES, N_STEPS)


@pytest.fixture(scope="session")
def bandwidth() -> float:
    """Bytes a second that a core reads and writes in copying an array that no cache holds; the best of ten."""
    source = np.ones(_COPIED_BYTES, dtype=np.uint8)
    target = np.zeros_like(source)
    seconds = []
    for _ in range(10):
        begin = time.perf_counter()
        np.copyto(target, source)
        seconds.append(time.perf_counter() - begin)
    return 2 * _COPIED_BYTES / min(seconds)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in table(FIGURES):
        terminalreporter.write_line(line)
