"""Storage nodes write one backup together; with every disk gone and the log cut off, they come back from it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from storage_node.backup.choosing import all_backups
from storage_node.backup.target import open_target
from tests.acceptance.test_cluster import PARTITIONS, Nodes
from tests.kafka_broker import Broker
from tests.load import Load, wait_for_acknowledged
from tests.processes import Process, running, tabor_command, wait_for

pytestmark = [pytest.mark.acceptance, pytest.mark.kafka]


class BackedUp(Nodes):
    """Its nodes write backups every `every`."""

    every = "3s"

    def node(self, name: str, *flags: str) -> Process:
        backups = ("--backup", str(self.folder / "backups"), "--backup-every", self.every, "--backup-keep", "3")
        process = super().node(name, *backups, *flags)
        process.command[1:3] = ["-m", "tests.hasty_nodes"]
        assert process.command[0] == sys.executable
        return process


def cut_off(broker: Broker, prefix: str, ends: list[int]) -> None:
    """Let Kafka forget all records below these offsets, as its retention does."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    wanted = [TopicPartition(f"{prefix}.samples", p, end) for p, end in enumerate(ends)]
    for future in admin.delete_records(wanted).values():
        future.result()


def test_a_cluster_without_disks_comes_back_from_its_backup_and_the_rest_of_the_log(
    kafka_broker: Broker, tmp_path: Path
) -> None:
    cluster = BackedUp(kafka_broker.bootstrap, tmp_path)
    load = cluster.load = Load(n_batches=2, n_series=30)
    with running(cluster.ingest, cluster.query, *cluster.nodes.values()):
        cluster.start()
        load.start(cluster.ingest)
        wait_for_acknowledged(load, 3_000)
        target = open_target(str(tmp_path / "backups"), create=True)
        wait_for(lambda: sum(one.is_whole for one in all_backups(target)) >= 2, "backups that are whole", 60)
        newest = [one for one in all_backups(target) if one.is_whole][-1]
        assert len({manifest.node for manifest in newest.manifests.values()}) > 1, "nodes have shared the work"
        load.stop()
        cluster.total = load.check(cluster.query)
        for node in cluster.nodes.values():
            node.kill()
            shutil.rmtree(tmp_path / f"data-{node.name}")
        # What the newest backup has is no longer in the log; what came after it is.
        newest = [one for one in all_backups(target) if one.is_whole][-1]
        ends = [newest.manifests[partition].next_offset for partition in range(PARTITIONS)]
        assert sum(ends) > 0
        cut_off(kafka_broker, cluster.url.rpartition("/")[2], ends)

        # The same from the command line, of which one `tabor run` is made. It is done while nobody writes backups.
        single = subprocess.run(
            tabor_command(
                "restore", target.where, "--data-dir", str(tmp_path / "single"), "--log-from", cluster.url
            ),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert single.returncode == 0, single.stderr

        for node in cluster.nodes.values():
            node.start()
        for node in cluster.nodes.values():
            node.wait_until_ready()
        cluster.settle()
        wait_for(cluster.has_everything, "every sample is there again, once", 60)
        assert any("partition_from_backup" in node.output for node in cluster.nodes.values())
        verified = cluster.command("verify")
        assert verified.returncode == 0, verified.stdout + verified.stderr
        # And a backup of all of it through the log, with what the target has already.
        done = subprocess.run(
            tabor_command("backup", target.where, "--log", cluster.url),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
