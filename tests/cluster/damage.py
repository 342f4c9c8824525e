"""Damage to a stopped node's views, as a bad disk or a bug might do it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_SCRIPT = """
import sys
from pathlib import Path
from storage_node import keys
from storage_node.disk import Batch, RocksDisk, end_of
disk = RocksDisk(Path(sys.argv[1]) / "views")
batch = Batch()
partitions = [int(number) for number in sys.argv[2:]]
ranges = [keys.of_partition(keys.WINDOW, p) for p in partitions] or [(keys.WINDOW, end_of(keys.WINDOW))]
for first, end in ranges:
    for key, value in disk.scan(first, end):
        batch.put(key, bytes([value[0] ^ 1]) + value[1:])
disk.write(batch)
disk.flush()
disk.close()
"""


def damage(data_dir: Path, *partitions: int) -> None:
    """Change the digest of every window of these partitions, or of all that the node has."""
    command = [sys.executable, "-c", _SCRIPT, str(data_dir), *map(str, partitions)]
    subprocess.run(command, check=True, timeout=60)
