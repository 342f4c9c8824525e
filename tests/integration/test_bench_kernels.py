"""The bench of kernels, in small."""

from __future__ import annotations

from bench.kernels.figures import figure, table
from bench.kernels.workload import fresh, run
from tabor.kernels import import_all


def test_the_workload_reaches_every_kernel_and_its_arguments_can_be_used_again() -> None:
    kept = run(200, 120)
    kernels = import_all()
    assert [kernel.name for kernel in kernels if kernel.name not in kept] == [], (
        "give the workload what reaches it"
    )
    for kernel in kernels:
        kernel(*fresh(kept[kernel.name]))
    lines = list(table([figure(kernel, kept[kernel.name], 1e-6, 1e10) for kernel in kernels]))
    assert len(lines) == len(kernels) + 2
