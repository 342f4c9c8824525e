"""Every kernel by itself: `make bench-kernels`.

Each runs on copies of the arguments of its largest call within `bench.kernels.workload`. An element is a sample, a
byte, a row or whatever the named parameter has; GB/s are bytes of all arrays a kernel is given, each counted once.
"""

from __future__ import annotations

from typing import Any

import pytest

from bench.kernels.figures import FIGURES, figure
from bench.kernels.workload import Arguments, fresh
from common.kernels.jit import Kernel
from tabor.kernels import import_all


@pytest.mark.parametrize("kernel", import_all(), ids=lambda kernel: kernel.name)
def test_kernel(kernel: Kernel, benchmark: Any, arguments: dict[str, Arguments], bandwidth: float) -> None:
    assert kernel.name in arguments, "the workload does not reach this kernel"
    found = arguments[kernel.name]
    benchmark.pedantic(kernel, setup=lambda: (fresh(found), {}), rounds=30, warmup_rounds=2)
    one = figure(kernel, found, benchmark.stats.stats.median, bandwidth)
    benchmark.extra_info.update(one._asdict())
    FIGURES.append(one)
