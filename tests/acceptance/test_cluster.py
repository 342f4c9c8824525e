"""A cluster whose partitions are spread over its nodes, and the commands that look after it."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.wire.peers import ask_to_repair
from tests.cluster.damage import damage
from tests.kafka_broker import Broker
from tests.load import Load, wait_for_acknowledged
from tests.processes import Process, free_port, running, tabor_command, wait_for

pytestmark = [pytest.mark.acceptance, pytest.mark.kafka]

PARTITIONS = 8


class Nodes:
    """One ingestor, nodes that keep two replicas of each partition, one query server."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.url = f"kafka://{bootstrap}/cluster-{uuid.uuid4().hex[:8]}"
        self.folder = folder
        self.ingest = self.tier("ingest", "ingest")
        self.nodes = {name: self.node(name) for name in "abc"}
        self.query = self.tier("query", "query")
        self.load, self.total = Load(), 0

    def tier(self, name: str, command: str, *flags: str) -> Process:
        port = free_port()
        line = tabor_command(command, "--log", self.url, "--listen", f"127.0.0.1:{port}", *flags)
        return Process(name, line, self.folder, port)

    def node(self, name: str, *flags: str) -> Process:
        return self.tier(
            name, "storage-node", "--name", name, "--data-dir", str(self.folder / f"data-{name}"), *flags
        )

    def start(self) -> None:
        done = self.command("create-topics", "--partitions", str(PARTITIONS), "--replicas", "2")
        assert done.returncode == 0, done.stderr
        everything = (self.ingest, *self.nodes.values(), self.query)
        for process in everything:
            process.start()
        for process in everything:
            process.wait_until_ready()
        self.settle()

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        line = tabor_command("cluster", *arguments, "--log", self.url)
        return subprocess.run(line, capture_output=True, text=True, timeout=120)

    def status(self) -> dict[str, Any]:
        """As `tabor cluster status --json` has it, without starting a process for each look."""
        status: dict[str, Any] = self.query.data("/api/v1/status/cluster")
        return status

    def has_everything(self) -> bool:
        """Whether a query finds every acknowledged sample, once and with its value."""
        return self.load.check(self.query) == self.total

    def settle(self) -> None:
        """Wait until each partition is where it belongs and nowhere else."""

        def settled() -> bool:
            states = self.status()["partition_states"]
            return all(len(one["on"]) == 2 and not one["missing"] and not one["coming"] for one in states)

        wait_for(settled, "every partition is on two nodes", 60)


@pytest.fixture(scope="module")
def one_cluster(kafka_broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    nodes = Nodes(kafka_broker.bootstrap, tmp_path_factory.mktemp("cluster"))
    with running(nodes.ingest, nodes.query, *nodes.nodes.values()):
        nodes.start()
        load = Load()
        load.start(nodes.ingest)
        wait_for_acknowledged(load, 5_000)
        load.stop()
        nodes.load, nodes.total = load, load.check(nodes.query)
        yield nodes


@pytest.fixture
def cluster(one_cluster: Nodes) -> Nodes:
    """The cluster, whole again whatever the last test did to it."""
    for node in one_cluster.nodes.values():
        if node.returncode is not None:
            node.start()
    for node in one_cluster.nodes.values():
        node.wait_until_ready()
    one_cluster.settle()
    return one_cluster


def held(cluster: Nodes) -> list[int]:
    """How many partitions each node holds."""
    return [len(node.data("/api/v1/status/partitions")["partitions"]) for node in cluster.nodes.values()]


def test_without_a_replica_a_query_fails_and_names_the_partition(cluster: Nodes) -> None:
    for name in "ab":
        cluster.nodes[name].kill()
    status, body = cluster.query.get("/api/v1/query", query="count(load)")
    assert status == 503, body
    assert b"no storage node can answer for partition" in body
    status, body = cluster.query.get("/api/v1/query", query="count(load)", partial_response="true")
    assert status == 200, body
    (warning,) = json.loads(body)["warnings"]
    assert "partial answer, without partition" in warning
    assert cluster.query.get("/api/v1/read", partial_response="true")[0] != 200
    wait_for(lambda: cluster.status()["unavailable"], "partitions without a live replica are seen")
    seen = cluster.query.data("/api/v1/status/cluster")
    states = {replica["state"] for one in seen["partition_states"] for replica in one["replicas"]}
    assert states == {"whole", "missing"}
    assert seen["log"]["kind"] == "kafka"
    assert len(seen["log"]["starts"]) == seen["partitions"]
    assert json.loads(cluster.command("status", "--json").stdout)["unavailable"] == seen["unavailable"]
    text = cluster.command("status")
    assert text.returncode == 1
    assert "NOT AVAILABLE: partitions" in text.stdout
    assert "'a' is silent and keeps its seat: start it, or `tabor cluster drain a`" in text.stdout
    assert cluster.command("status", "--wait", "2s").returncode == 1, "it waits, and then says that it was in vain"
    for name in "ab":
        cluster.nodes[name].start()
    waited = cluster.command("status", "--wait", "1m")
    assert waited.returncode == 0, waited.stdout
    assert "every partition has all its replicas" in waited.stdout


def test_commands_say_in_one_line_what_cannot_be_done(cluster: Nodes) -> None:
    for arguments, reason in (
        (("drain", "nobody"), "there is no node 'nobody' in this cluster; its nodes are: a, b, c"),
        (("create-topics", "--partitions", "4"), "the log has 8 partitions, not 4"),
        (("create-topics", "--partitions", "8", "--replicas", "3"), "--replicas is 3, but"),
        (("create-topics", "--partitions", "8", "--topic-replication-factor", "3"), "need as many brokers"),
    ):
        done = cluster.command(*arguments)
        assert done.returncode == 1
        assert reason in done.stderr.strip().splitlines()[-1], done.stderr
        assert "Traceback" not in done.stderr
    assert cluster.command("drain", "a", "--wait", "1ms").returncode == 1
    assert cluster.command("drain", "a", "--undo").returncode == 0
    wrong = cluster.node("x", "--replicas", "3")
    done = subprocess.run(wrong.command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "--replicas is 3, but" in done.stderr
    elsewhere = subprocess.run(
        tabor_command("cluster", "status", "--log", cluster.url + "-nowhere"), capture_output=True, text=True
    )
    assert elsewhere.returncode == 1
    assert "there is no topic" in elsewhere.stderr


def test_a_replica_that_differs_is_named_and_can_be_fetched_anew(cluster: Nodes) -> None:
    third = cluster.nodes["c"]
    assert third.stop() == 0
    damage(cluster.folder / "data-c")
    third.start_and_wait()
    cluster.settle()
    verified = cluster.command("verify")
    assert verified.returncode == 1
    assert "no majority" in verified.stdout, "with two replicas nobody is outvoted"
    for one in third.data("/api/v1/status/partitions")["partitions"]:
        ask_to_repair("c", f"127.0.0.1:{third.port}", one["partition"])
    # What the cluster says of itself may be some seconds old, and from before the repair.
    wait_for(lambda: cluster.command("verify").returncode == 0, "all replicas are equal again", 60)
    assert cluster.has_everything()


def test_a_cluster_loses_nothing_when_nodes_join_drain_die_and_lose_their_disks(cluster: Nodes) -> None:
    wait_for(lambda: sum(held(cluster)) == 2 * PARTITIONS, "nothing is held more often than it should be")
    assert max(held(cluster)) < PARTITIONS, "no node has everything"

    newcomer = cluster.node("d")
    with running(newcomer):
        newcomer.start_and_wait()
        wait_for(lambda: newcomer.data("/api/v1/status/partitions")["partitions"], "the newcomer has partitions")
        cluster.settle()
        assert cluster.has_everything()

        drained = cluster.command("drain", "a")
        assert drained.returncode == 0, drained.stderr
        assert "stop it, and it leaves the cluster" in drained.stderr
        assert cluster.nodes["a"].stop() == 0
        cluster.settle()
        seated = {node["name"] for node in cluster.status()["nodes"] if node["ordinal"] is not None}
        assert seated == {"b", "c", "d"}
        assert cluster.has_everything()

        cluster.nodes["b"].kill()
        assert cluster.has_everything()
        wait_for(lambda: cluster.status()["under_replicated"], "partitions lack a replica")
        assert cluster.command("status").returncode == 1
        shutil.rmtree(cluster.folder / "data-b")
        cluster.nodes["b"].start_and_wait()
        cluster.settle()
        assert cluster.has_everything()
        verified = cluster.command("verify")
        assert verified.returncode == 0, verified.stdout + verified.stderr
        assert f"{PARTITIONS} of {PARTITIONS} partitions have all their replicas" in verified.stdout
