"""How a kernel is declared, and when it is compiled.

A kernel is a plain function over numpy arrays, compiled by numba for exactly the signatures that it names.
Nothing is compiled, and numba is not even imported, before a kernel's first call: a server on an empty folder
is ready before it needs one. Compiled code is kept in a cache folder whose name is a digest of every kernel's
source, so that an edited helper can never leave a stale caller behind.

    @device                       # called by kernels only; inlined into them
    def zigzag(value): ...

    @kernel("int64(uint8[::1], int64[::1])")
    def walk(data, out): ...

Arrays in signatures are C-contiguous (`[::1]`); the caller sees to it (`for_kernels`). A kernel must not call a
kernel, only devices. With NUMBA_DISABLE_JIT=1 both decorators leave plain Python.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Column = TypeVar("Column", bound=NDArray[Any])

_OPTIONS = {"nogil": True, "error_model": "numpy"}
_kernels: list[Kernel] = []
_compiling = threading.Lock()


class Device:
    """A helper for kernels: plain Python outside them, a numba function inside."""

    def __init__(self, function: Callable[..., Any], **options: bool) -> None:
        self.function = function
        self._options = options
        self._dispatcher: Any = None
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def dispatcher(self) -> Any:
        if self._dispatcher is None:
            import numba

            _link(self.function)
            self._dispatcher = numba.njit(**_OPTIONS, **self._options)(self.function)
        return self._dispatcher


class Kernel:
    """A function compiled for fixed signatures at its first call, from the cache where it has one."""

    def __init__(self, function: Callable[..., Any], signatures: tuple[str, ...]) -> None:
        self.function = function
        self.signatures = signatures
        self.name = f"{function.__module__}.{function.__qualname__}"
        self._compiled: Callable[..., Any] | None = None
        self.__doc__ = function.__doc__
        _kernels.append(self)

    def __call__(self, *args: Any) -> Any:
        compiled = self._compiled
        if compiled is None:
            compiled = self.compile()
        return compiled(*args)

    def compile(self) -> Callable[..., Any]:
        """Load the machine code from the cache or make it; both at most once per process."""
        # One thread at a time: a second one must not see numba half imported, or devices half linked.
        with _compiling:
            if self._compiled is None:
                if disabled():
                    self._compiled = self.function
                else:
                    _use_cache_folder()
                    import numba

                    _link(self.function)
                    self._compiled = numba.njit(list(self.signatures), cache=True, **_OPTIONS)(self.function)
            return self._compiled


def kernel(*signatures: str) -> Callable[[Callable[..., Any]], Kernel]:
    """Declare a kernel for these numba signatures."""
    return lambda function: Kernel(function, signatures)


def device(function: Callable[..., Any]) -> Device:
    """Declare a function that kernels call."""
    return Device(function)


def inlined(function: Callable[..., Any]) -> Device:
    """Declare a device whose code has to stand where it is called: for some nanoseconds of work on arrays.

    Others may become functions that count references to their arrays, which takes as long as writing ten digits.
    """
    return Device(function, forceinline=True)


def for_kernels(column: Column) -> Column:
    """The column as kernels take it, contiguous and writeable, whether they write or not; a copy if need be."""
    flags = column.flags
    return column if flags.c_contiguous and flags.writeable else np.require(column, requirements=("C", "W"))


def all_kernels() -> list[Kernel]:
    """Every kernel of the modules imported so far, in order of declaration."""
    return list(_kernels)


def disabled() -> bool:
    return os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")


def cache_folder() -> Path:
    """Where this machine keeps the compiled form of exactly these sources."""
    root = os.environ.get("TABOR_KERNEL_CACHE")
    base = Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tabor"
    return base / f"kernels-{_digest()}"


def _digest() -> str:
    digest = hashlib.blake2b(digest_size=8)
    digest.update(f"{platform.machine()} {sys.version}".encode())
    from importlib.metadata import version

    digest.update(f"{version('numba')} {version('numpy')}".encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        # The path counts too: numba's own index is per file.
        digest.update(f"{path}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _use_cache_folder() -> None:
    if "NUMBA_CACHE_DIR" not in os.environ:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["NUMBA_CACHE_DIR"] = str(folder)
        if "numba" in sys.modules:
            sys.modules["numba"].config.CACHE_DIR = str(folder)


def _link(function: Callable[..., Any]) -> None:
    """Give numba, which looks names up in the function's module, functions of its own kind for devices."""
    assert isinstance(function, FunctionType)
    namespace = function.__globals__
    for name in function.__code__.co_names:
        value = namespace.get(name)
        if isinstance(value, Device):
            namespace[name] = value.dispatcher()
