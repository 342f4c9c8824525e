"""`python -m tests.odd_machine FOLDER run …` is `tabor run …` where clock and memory are what files say.

FOLDER/clock: seconds by which the clock is wrong. FOLDER/memory.max: as a control group's.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace

from tabor import cli, server_metrics

if __name__ == "__main__":
    folder = Path(sys.argv.pop(1))
    server_metrics.time = SimpleNamespace(  # type: ignore[assignment]
        time=lambda: time.time() + float((folder / "clock").read_text())
    )
    server_metrics._CGROUP_FILES = (folder / "memory.max",)  # type: ignore[assignment]
    cli.main()
