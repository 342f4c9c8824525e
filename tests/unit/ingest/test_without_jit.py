"""The kernels of ingest as plain Python."""

from __future__ import annotations

import os
import subprocess
import sys

_CODE = """
import numpy as np
from tests.memory_log import MemoryLog
from tests.oracles import remote_write as oracle
from tests.unit.ingest.logs import key_of, own_metrics, samples_of
from ingest.ingestor import Ingestor

# Plain numpy warns of wraparound, which the hash is made of.
np.seterr(over="ignore")
log = MemoryLog(3)
ingestor = Ingestor(log, metrics=own_metrics())
series = [({"__name__": "m", "é": str(i)}, [(i, i / 2), (-i, -0.0)]) for i in range(20)]
odd = oracle.delimited(
    1, oracle.label_field(b"__name__", b"odd") + oracle.sample_field(5, 0) + oracle.label_field(b"a", b"b")
)
ingestor.start()
for _ in range(2):
    assert ingestor.submit(oracle.snappy(oracle.request(series) + odd)).result(60).n_samples == 41
assert ingestor.close(5)
want = {key_of(labels): samples * 2 for labels, samples in series}
want[key_of({"__name__": "odd", "a": "b"})] = [(5, 0.0)] * 2
assert samples_of(log) == want
"""


def test_the_write_path_gives_the_same_without_compiled_kernels() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CODE], env=os.environ | {"NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
