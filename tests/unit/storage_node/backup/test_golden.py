"""A backup of the first release is read by this one."""

from __future__ import annotations

import shutil
from pathlib import Path

from common.store import MAX_TIME_MS, MIN_TIME_MS, Matcher, MatchOp
from storage_node.backup.choosing import all_backups
from storage_node.backup.manifest import encode, manifest_name
from storage_node.backup.target import FolderTarget
from storage_node.backup.verifying import missing_objects, verify_partition
from storage_node.config import NodeConfig
from storage_node.service import StorageNode
from tests.golden.backup_case import FOLDER, N_SAMPLES, N_SERIES, PARTITIONS, RUN, filled_log
from tests.unit.storage_node.backup.givers import restored


def test_a_backup_of_version_1_is_whole_and_restores_what_it_was_made_of(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "backups")
    target = FolderTarget(tmp_path / "backups", create=False)
    (backup,) = all_backups(target)
    assert (backup.run, backup.partitions, backup.is_whole) == (RUN, PARTITIONS, True)
    assert not list(missing_objects(target, backup))
    for partition, manifest in backup.manifests.items():
        verify_partition(target, manifest, tmp_path)
        assert target.get(manifest_name(RUN, partition)) == encode(manifest), (
            "manifests are written the same today"
        )

    log = filled_log()
    node = restored(target, backup.manifests, tmp_path / "restored", log)
    node.store.wait_caught_up(10)
    assert [shard.records for shard in node.views.shards.values()] == [0, 0, 0]
    fresh = StorageNode(log, NodeConfig("fresh", tmp_path / "fresh"))
    fresh.start()
    fresh.store.wait_caught_up(10)
    digests = [[row["digest"] for row in one.partitions_status(digest=True)] for one in (node, fresh)]
    assert digests[0] == digests[1]
    found = node.store.select([Matcher(MatchOp.NOT_EQUAL, "series", "")], MIN_TIME_MS, MAX_TIME_MS, 10_000)
    assert len(found.timestamps) == 2 * N_SERIES * N_SAMPLES
    node.close()
    fresh.close()
