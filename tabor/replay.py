"""`tabor replay`: rebuild the views from the log and show that they are the same."""

from __future__ import annotations

import time
from pathlib import Path

from common.errors import StartupError
from common.log.url import LOCAL_FOLDER
from storage_node.config import NodeConfig
from storage_node.replay import replay
from tabor import kernels
from tabor.folder import DataFolder
from tabor.progress import Bar, say
from tabor.run import LogOptions


def run_replay(data_dir: Path, log: LogOptions, config: NodeConfig, *, force: bool) -> bool:
    """Replay and print a line a partition; False if a digest differs.

    Raises:
        StartupError: there is no log to replay.
    """
    if log.url == "local" and not (data_dir / LOCAL_FOLDER / "CURRENT").exists():
        # Otherwise a folder that was mistyped would become an empty Tabor.
        raise StartupError(f"there is no log in {data_dir / LOCAL_FOLDER}; give the --data-dir of an existing one")
    with DataFolder(data_dir) as folder:
        kernels.ensure()
        opened = log.open(folder.path)
        begin = time.monotonic()
        n_samples = 0
        try:
            with Bar("replaying the log") as bar:

                def report(done: int, total: int, samples: int) -> None:
                    nonlocal n_samples
                    n_samples = samples
                    rate = samples / max(time.monotonic() - begin, 1e-3)
                    bar.update(done, total, f"records, {samples:,} samples, {rate:,.0f} samples/s")

                replayed = replay(opened, config, force=force, progress=report)
        finally:
            opened.close()
    seconds = time.monotonic() - begin
    print("partition  digest before                     digest after")
    for row in replayed:
        before = row.digest_before or "(no views)"
        verdict = "" if row.digest_before in (None, row.digest_after) else "   DIFFERENT"
        print(f"{row.partition:>9}  {before:<32}  {row.digest_after}{verdict}")
    say(f"replayed {n_samples:,} samples in {seconds:.1f} s, {n_samples / seconds:,.0f} samples/s")
    return all(row.digest_before in (None, row.digest_after) for row in replayed)
