"""What is said of each kernel."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bench.kernels.workload import Arguments, n_bytes
from common.kernels.jit import Kernel

_COUNTED = ("timestamps", "times", "values", "value_bits", "bits", "samples", "data", "message")
"""Parameters of which an element is a sample or a byte, whichever a kernel has first; else its longest array."""


class Figure(NamedTuple):
    """unit: the parameter whose elements are counted. n_bytes: of all arrays that are given, each once."""

    name: str
    unit: str
    n_items: int
    n_bytes: int
    seconds: float
    share_of_bandwidth: float


FIGURES: list[Figure] = []


def figure(kernel: Kernel, arguments: Arguments, seconds: float, bandwidth: float) -> Figure:
    """What a call that took so many seconds comes to. bandwidth: bytes a second."""
    sizes = {
        name: one.size
        for name, one in zip(inspect.signature(kernel.function).parameters, arguments, strict=True)
        if isinstance(one, np.ndarray)
    }
    longest = max(sizes, key=lambda name: sizes[name], default="")
    unit = next((name for name in _COUNTED if sizes.get(name)), longest)
    size = n_bytes(arguments)
    name = kernel.name.removeprefix("common.kernels.")
    return Figure(name, unit, sizes.get(unit, 1), size, seconds, size / seconds / bandwidth)


def table(figures: Sequence[Figure]) -> Iterator[str]:
    """Markdown, those that are farthest from the bandwidth of the memory first."""
    if not figures:
        return
    yield "| kernel | element of | elements | ns each | GB/s | of the bandwidth |"
    yield "|---|---|---|---|---|---|"
    for one in sorted(figures, key=lambda one: one.share_of_bandwidth):
        ns, speed = one.seconds * 1e9 / one.n_items, one.n_bytes / one.seconds / 1e9
        about = f"{one.n_items:,} | {ns:.3g} | {speed:.3g} | {one.share_of_bandwidth:.1%}"
        yield f"| `{one.name}` | `{one.unit}` | {about} |"
