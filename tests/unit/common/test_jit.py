"""How kernels are compiled and loaded."""

from __future__ import annotations

import subprocess
import sys

_TOGETHER = """
import sys, threading
import numpy as np
from common.kernels import head, index, jit

assert "numba" not in sys.modules
kernels = jit.all_kernels()[:4]
barrier = threading.Barrier(2 * len(kernels))
errors = []
def load(kernel):
    barrier.wait()
    try:
        kernel.compile()
    except BaseException as error:
        errors.append(repr(error))
threads = [threading.Thread(target=load, args=(kernel,)) for kernel in kernels for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not errors, errors
print("loaded", len(kernels))
"""


def test_threads_that_need_their_first_kernels_at_the_same_moment_all_get_them() -> None:
    # In a process of its own, for it is about the import of numba and the first use of the cache.
    done = subprocess.run([sys.executable, "-c", _TOGETHER], capture_output=True, text=True, timeout=120)
    assert done.stdout == "loaded 4\n", done.stderr
