"""The backup in `backup-v1`: `python -m tests.golden.backup_case` writes it, once and for all.

Every later release has to read it; a change of the format gets a folder of its own beside it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from storage_node.backup.target import FolderTarget
from tests.memory_log import MemoryLog
from tests.unit.storage_node.backup.givers import Giver
from tests.unit.storage_node.batches import T0, fill

FOLDER = Path(__file__).with_name("backup-v1")
RUN = "20261128T070000Z"
PARTITIONS = 3
N_SERIES = 5
N_SAMPLES = 40
STEP_MS = 3_600_000


def filled_log() -> MemoryLog:
    """The log that was backed up: two partitions with series `metric_…`, and one that never had a record."""
    log = MemoryLog(2)
    fill(log, n_series=N_SERIES, n_samples=N_SAMPLES, first_ms=T0, step_ms=STEP_MS)
    log._records.append([])
    log._starts.append(0)
    return log


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        giver = Giver(Path(folder), filled_log(), FolderTarget(FOLDER, create=True))
        assert giver.back_up()[0] == RUN
        giver.node.close()


if __name__ == "__main__":
    main()
