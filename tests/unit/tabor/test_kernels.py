"""Which kernels a start loads."""

from __future__ import annotations

import threading

import pytest

from common.kernels import jit
from tabor import kernels


def test_a_start_loads_the_kernels_of_floats_and_leaves_those_that_are_seldom_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernels.import_all()
    loaded: list[str] = []
    monkeypatch.setattr(jit.Kernel, "compile", lambda kernel: loaded.append(kernel.name))
    kernels.preload_in_background()
    for thread in threading.enumerate():
        if thread.name == "preload":
            thread.join()
    modules = {name.split(".")[2] for name in loaded}
    assert modules >= {
        "remote_write",
        "record",
        "head",
        "block",
        "index",
        "select",
        "functions",
        "aggregate",
        "histogram",
    }
    assert not modules & {"native_ops", "histogram_codec", "otlp", "deletion", "remote_read"}


def test_every_module_that_is_called_seldom_needed_is_there() -> None:
    modules = {kernel.name.split(".")[2] for kernel in kernels.import_all()}
    for start in kernels._SELDOM:
        assert any(module.startswith(start) for module in modules), start
