"""Every tier as a process of its own, Kafka between them: nodes die, the broker dies, nothing is lost."""

from __future__ import annotations

import subprocess
import urllib.parse
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kafka_broker import Broker, JavaBroker
from tests.load import START_MS, Load, wait_for_acknowledged
from tests.processes import Process, free_port, running, tabor_command, tabor_run, wait_for

pytestmark = [pytest.mark.acceptance, pytest.mark.kafka]

PARTITIONS = 4


class Tiers:
    """One ingest, two storage nodes, one query server; not started yet."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.url = f"kafka://{bootstrap}/tiers-{uuid.uuid4().hex[:8]}"
        self.folder = folder
        self.ingest = self.tier("ingest", "ingest", "--partitions", str(PARTITIONS))
        self.a, self.b = self.node("a"), self.node("b")
        self.query = self.tier("query", "query")
        self.all = (self.ingest, self.a, self.b, self.query)

    def tier(self, name: str, command: str, *flags: str) -> Process:
        port = free_port()
        line = tabor_command(command, "--log", self.url, "--listen", f"127.0.0.1:{port}", *flags)
        return Process(name, line, self.folder, port)

    def node(self, name: str, *, process: str | None = None) -> Process:
        folder = self.folder / f"data-{process or name}"
        return self.tier(process or name, "storage-node", "--name", name, "--data-dir", str(folder))

    def start(self) -> None:
        # The ingestor first: it says how many partitions the log gets.
        self.ingest.start_and_wait()
        for process in (self.a, self.b, self.query):
            process.start()
        for process in (self.a, self.b, self.query):
            process.wait_until_ready()


@pytest.fixture
def tiers(kafka_broker: Broker, tmp_path: Path) -> Iterator[Tiers]:
    tiers = Tiers(kafka_broker.bootstrap, tmp_path)
    with running(*tiers.all):
        tiers.start()
        yield tiers


def count(query: Process) -> tuple[int, Any]:
    """Status and body of a strong query for everything that the load wrote."""
    status, body = query.get("/api/v1/query", query="count(load)", time=START_MS / 1000 + 1, lookback_delta="1h")
    return status, body


def test_queries_see_what_was_acknowledged_while_one_node_is_left(tiers: Tiers) -> None:
    load = Load()
    load.start(tiers.ingest)
    wait_for_acknowledged(load, 5_000)
    load.stop()
    total = load.check(tiers.query)
    assert total >= 5_000

    tiers.a.kill()
    assert load.check(tiers.query) == total
    # Read after write goes on too: the node that is left is asked to have applied all of it.
    more = Load(seed=3, n_batches=1)
    more.start(tiers.ingest)
    wait_for_acknowledged(more, 500)
    more.stop()

    tiers.b.kill()
    status, body = count(tiers.query)
    assert status == 503, body
    assert b"unavailable" in body
    assert b"no storage node can answer" in body
    assert b"a at 127.0.0.1" in body
    assert b"b at 127.0.0.1" in body
    wait_for(lambda: tiers.query.get("/-/ready")[0] == 503, "the query server says that it is not ready")

    tiers.a.start_and_wait()
    wait_for(lambda: count(tiers.query)[0] == 200, "queries are answered again")
    tiers.query.wait_until_ready()


def test_a_node_that_stops_in_good_order_is_not_missed(tiers: Tiers) -> None:
    load = Load()
    load.start(tiers.ingest)
    wait_for_acknowledged(load, 2_000)
    load.stop()
    total = load.check(tiers.query)
    assert tiers.a.stop() == 0, tiers.a.output
    assert load.check(tiers.query) == total
    for process in (tiers.b, tiers.query, tiers.ingest):
        assert process.stop() == 0, process.output
        assert "Traceback" not in process.output
    assert "topic_made" in tiers.ingest.output, "it says that it was it who made the log, with how many partitions"


def test_a_deletion_reaches_every_replica(tiers: Tiers) -> None:
    load = Load()
    load.start(tiers.ingest)
    wait_for_acknowledged(load, 2_000)
    load.stop()
    load.check(tiers.query)
    before = digest(tiers.a)
    gone = urllib.parse.urlencode({"match[]": 'load{batch="1"}'})
    status, body = tiers.ingest.request("POST", f"/api/v1/admin/tsdb/delete_series?{gone}")
    assert status == 204, body
    found = tiers.query.data("/api/v1/series", **{"match[]": "load"})
    assert {series["batch"] for series in found} == {"0", "2", "3"}
    assert digest(tiers.a) == digest(tiers.b) != before


def last_line(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    return result.stderr.strip().splitlines()[-1]


def run(process: Process, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*process.command, *flags], capture_output=True, text=True, timeout=60)


def test_a_node_that_cannot_take_part_says_why_in_one_line(tiers: Tiers) -> None:
    twin = run(tiers.node("a", process="twin"))
    assert f"a storage node named 'a' is alive at 127.0.0.1:{tiers.a.port}" in last_line(twin)
    everywhere = run(tiers.node("c"), "--listen", f"0.0.0.0:{free_port()}", "--insecure")
    assert "--advertise" in last_line(everywhere)
    local = run(tiers.query, "--log", "local", "--listen", f"127.0.0.1:{free_port()}")
    assert "kafka://" in last_line(local)
    assert count(tiers.query)[0] == 200


def test_the_broker_is_killed_under_a_load_of_the_tiers(own_kafka_broker: JavaBroker, tmp_path: Path) -> None:
    tiers = Tiers(own_kafka_broker.bootstrap, tmp_path)
    with running(*tiers.all):
        tiers.start()
        load = Load(seed=1)
        load.start(tiers.ingest)
        try:
            for _ in range(2):
                wait_for_acknowledged(load, 5_000)
                own_kafka_broker.kill()
                status, body = tiers.query.get(
                    "/api/v1/query", query="count(load)", consistency="eventual", time=START_MS / 1000 + 1
                )
                assert status == 200, body
                own_kafka_broker.start()
            wait_for_acknowledged(load, 5_000, timeout_s=120)
        finally:
            load.stop()
        settled(tiers.query)
        assert load.check(tiers.query) >= 15_000
        digests = [digest(node) for node in (tiers.a, tiers.b)]
        assert digests[0] == digests[1]


def test_the_broker_is_killed_under_a_load_of_tabor_run(own_kafka_broker: JavaBroker, tmp_path: Path) -> None:
    server = tabor_run(tmp_path, "--log", f"kafka://{own_kafka_broker.bootstrap}/run", "--partitions", "4")
    with running(server):
        server.start_and_wait()
        load = Load(seed=2)
        load.start(server)
        try:
            for _ in range(2):
                wait_for_acknowledged(load, 5_000)
                own_kafka_broker.kill()
                own_kafka_broker.start()
            wait_for_acknowledged(load, 5_000, timeout_s=120)
        finally:
            load.stop()
        settled(server)
        total = load.check(server)
        assert total >= 15_000
        server.kill()
        server.start_and_wait()
        assert load.check(server) == total


def settled(server: Process) -> None:
    wait_for(lambda: count(server)[0] == 200, "queries are answered", 60)


def digest(node: Process) -> list[tuple[int, str]]:
    """Digests of a node that has applied all of the log."""

    def applied() -> Any:
        partitions = node.data("/api/v1/status/partitions", digest=1)["partitions"]
        return partitions if all(p["lag"] == 0 for p in partitions) else None

    return [(p["next_offset"], p["digest"]) for p in wait_for(applied, "the node has applied the log")]
