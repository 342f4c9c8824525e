"""A node over a log in memory whose partitions are backed up."""

from __future__ import annotations

import shutil
from pathlib import Path

from storage_node.backup.choosing import Backup, choose
from storage_node.backup.manifest import Manifest, run_at
from storage_node.backup.restoring import restore_partition
from storage_node.backup.source import of_this_process
from storage_node.backup.target import Target
from storage_node.backup.writing import Progress, Writer
from storage_node.config import NodeConfig
from storage_node.copies import Copies
from storage_node.disk import RocksDisk
from storage_node.service import StorageNode
from tests.memory_log import MemoryLog

FIRST_S = 1_795_849_200


class Giver:
    """Backs up to one target, an hour apart; remembers the digest of every partition at each backup."""

    def __init__(self, folder: Path, log: MemoryLog, target: Target) -> None:
        self.log, self.target = log, target
        self.node = StorageNode(log, NodeConfig("giver", folder, retry_s=0.05))
        self.node.start()
        self.copies = Copies(lambda: self.node.views, 1e12)
        self.digests: dict[str, list[object]] = {}

    def status(self) -> list[dict[str, int | str]]:
        self.node.store.wait_caught_up(20)
        return self.node.partitions_status(digest=True)

    def back_up(self) -> tuple[str, Progress]:
        run = run_at(FIRST_S + 3600 * len(self.digests))
        self.digests[run] = [(row["next_offset"], row["digest"]) for row in self.status()]
        with Writer(self.target, run, self.log.partitions) as writer:
            for partition in range(self.log.partitions):
                writer.write(of_this_process(self.copies, "giver", partition))
            return run, writer.done

    def chosen(self, run: str) -> Backup:
        return choose(self.target, run)


def restored(target: Target, manifests: dict[int, Manifest], folder: Path, log: MemoryLog) -> StorageNode:
    """A node over what was restored into a folder; it goes on with the log."""
    disk = RocksDisk(folder / "views")
    for manifest in manifests.values():
        restore_partition(target, manifest, disk)
    disk.close()
    node = StorageNode(log, NodeConfig("restored", folder, retry_s=0.05))
    node.start()
    return node


def copy_of(folder: Path, into: Path) -> Path:
    shutil.copytree(folder, into)
    return into
