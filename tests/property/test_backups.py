"""Whatever is written, deleted and merged between backups: each of them restores the partition of its offset."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from unittest import mock

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from common.attachments import NO_REF, Attachments, Kind
from common.store import Matcher, MatchOp
from common.tombstones import Tombstone
from storage_node.backup import pieces
from storage_node.backup.choosing import all_backups
from storage_node.backup.pruning import prune
from storage_node.backup.restoring import is_restored, restore_partition
from storage_node.backup.verifying import missing_objects, verify_partition
from tests.memory_disk import MemoryDisk
from tests.memory_log import MemoryLog
from tests.memory_target import MemoryTarget
from tests.unit.storage_node.backup.givers import Giver
from tests.unit.storage_node.batches import HOUR_MS, T0, labels_of, make_batch, write

N_SERIES = 6
partitions = st.integers(0, 1)
samples = st.lists(
    st.tuples(st.integers(0, N_SERIES - 1), st.integers(0, 200), st.integers(0, 50)), min_size=1, max_size=40
)
steps = st.one_of(
    st.tuples(st.just("write"), partitions, samples),
    st.tuples(st.just("delete"), partitions, st.tuples(st.integers(0, N_SERIES - 1), st.integers(0, 200))),
    st.tuples(st.just("save"), partitions, st.none()),
    st.tuples(st.just("merge"), partitions, st.none()),
    st.tuples(st.just("back up"), partitions, st.none()),
    st.tuples(st.just("prune"), partitions, st.integers(1, 3)),
)


def take(giver: Giver, what: str, partition: int, more: object) -> None:
    series = [(ref, labels_of(100 * partition + ref)) for ref in range(N_SERIES)]
    if what == "write":
        rows = [(ref, T0 + hour * HOUR_MS, float(value)) for ref, hour, value in more]  # type: ignore[attr-defined]
        write(giver.log, partition, make_batch(series, rows))
    elif what == "delete":
        ref, hour = more  # type: ignore[misc]
        matcher = Matcher(MatchOp.EQUAL, "series", f"{100 * partition + ref:03d}")
        tombstone = Tombstone((matcher,), T0, T0 + hour * HOUR_MS).encode()
        row = Kind.TOMBSTONE, NO_REF, 0, tombstone
        write(giver.log, partition, replace(make_batch([], [], producer_id=9), attached=Attachments.of([row])))
    elif what == "save":
        giver.node.store.wait_caught_up(20)
        giver.node.views.checkpoint(giver.node.views.shards[partition], 0.0)
    elif what == "merge":
        while giver.node._merge_one(partition):
            pass
    elif what == "back up":
        giver.back_up()
    elif giver.digests:
        prune(giver.target, int(more))  # type: ignore[call-overload]


@settings(max_examples=10, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.lists(steps, min_size=5, max_size=25))
def test_every_backup_restores_the_samples_of_its_offset(found: list[tuple[str, int, object]]) -> None:
    target, log = MemoryTarget(), MemoryLog(2)
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(pieces, "LEAST_BYTES", 100),
        mock.patch.object(pieces, "MEAN_BYTES", 100),
    ):
        giver = Giver(Path(folder, "giver"), log, target)
        try:
            for what, partition, more in [*found, ("back up", 0, None)]:
                take(giver, what, partition, more)
            check(giver, Path(folder))
        finally:
            giver.node.close()
            log.close()


def check(giver: Giver, folder: Path) -> None:
    for backup in all_backups(giver.target):
        assert not list(missing_objects(giver.target, backup))
        for partition, manifest in backup.manifests.items():
            assert (manifest.next_offset, manifest.digest) == giver.digests[backup.run][partition]
            verify_partition(giver.target, manifest, folder)
            disk = MemoryDisk()
            restore_partition(giver.target, manifest, disk)
            assert is_restored(disk, manifest)
