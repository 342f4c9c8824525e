"""What is done to a cluster under load. Each scenario leaves it whole again.

In every one of them no acknowledged sample is lost or doubled and no answer is wrong; `Run.fault` says how long
the query servers may go without an answer.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.cluster.checker import Checker
from tests.cluster.cluster import Cluster, Service
from tests.cluster.damage import damage
from tests.cluster.hosts import Namespaces
from tests.cluster.slow import delaying
from tests.processes import wait_for

MAX_GAP_MS = 2_000
PROGRESS = 2_000


@dataclass(slots=True)
class Run:
    """A cluster under load. report: one line a fault."""

    cluster: Cluster
    checker: Checker
    report: list[str] = field(default_factory=list)

    @contextmanager
    def fault(
        self, what: str, *, max_gap_ms: int | None = MAX_GAP_MS, may_fail: bool = False, without: str = ""
    ) -> Iterator[None]:
        """Something that is done to the cluster, and what its users notice meanwhile.

        max_gap_ms: None if it is only stated. may_fail: queries may fail. without: a query server that is gone.
        """
        checker = self.checker
        checker.begin_fault()
        yield
        gaps = {name: gap for name, gap in checker.gaps_ms().items() if name != without}
        failures = [reason for name in gaps for _, reason in checker.answers[name].failures]
        worst = max(gaps.values())
        self.report.append(f"{what}: longest gap {worst} ms, {len(failures)} queries failed")
        print(f"  {self.report[-1]}", flush=True)
        checker.assert_never_wrong()
        assert may_fail or not failures, f"{what}: {len(failures)} queries failed, first: {failures[0]}"
        assert max_gap_ms is None or worst <= max_gap_ms, f"{what}: no answer for {worst} ms"

    def go_on(self) -> None:
        """Users go on for a while."""
        self.checker.wait_for_progress(PROGRESS)

    def restart(self, service: Service) -> None:
        service.start()
        wait_for(service.is_ready, f"{service.name} is ready again", 90)


Scenario = Callable[[Run], None]


def kill_each_node(run: Run) -> None:
    """SIGKILL of each storage node in turn."""
    for name, node in run.cluster.nodes.items():
        with run.fault(f"node {name} killed"):
            node.kill()
            run.go_on()
        with run.fault(f"node {name} started"):
            run.restart(node)
            run.go_on()


def kill_two_replicas(run: Run) -> None:
    """SIGKILL of two of the three nodes that hold a partition."""
    run.cluster.wait_until_settled()
    first, second, *_ = run.cluster.holders()[0]
    with run.fault(f"nodes {first} and {second} killed"):
        run.cluster.nodes[first].kill()
        run.cluster.nodes[second].kill()
        run.go_on()
    for name in (first, second):
        run.restart(run.cluster.nodes[name])
    run.go_on()


def kill_ingestor(run: Run) -> None:
    """SIGKILL of an ingestor."""
    with run.fault("ingestor killed"):
        run.cluster.ingestors[0].kill()
        run.go_on()
    run.restart(run.cluster.ingestors[0])


def kill_query_server(run: Run) -> None:
    """SIGKILL of a query server; the other one goes on."""
    gone = run.cluster.queries[0]
    with run.fault("query server killed", without=gone.name):
        gone.kill()
        time.sleep(3)
        run.restart(gone)
    run.go_on()


def kill_leader_broker(run: Run) -> None:
    """SIGKILL of the brokers one after the other, so that every leader was killed once."""
    for i in range(len(run.cluster.brokers.hosts)):
        # Strong reads ask the leaders for the end of the log, and wait until there is a new one.
        with run.fault(f"broker {i + 1} killed", max_gap_ms=None, may_fail=True):
            run.cluster.brokers.kill_one(i)
            run.go_on()
        run.cluster.brokers.start_one(i)
        run.go_on()
        time.sleep(5)


def stop_node(run: Run) -> None:
    """SIGSTOP of a node for 30 s: it hangs, and its connections stay."""
    node = run.cluster.nodes["b"]
    with run.fault("node b hangs for 30 s"):
        node.signal(signal.SIGSTOP)
        time.sleep(30)
        run.go_on()
    with run.fault("node b goes on"):
        node.signal(signal.SIGCONT)
        run.go_on()


def wipe_disk(run: Run) -> None:
    """A node loses its disk and comes back empty, by the same name."""
    node = run.cluster.nodes["c"]
    with run.fault("node c loses its disk"):
        node.kill()
        run.cluster.wipe("c")
        run.go_on()
        run.restart(node)
        run.go_on()
    run.cluster.wait_until_settled()


def add_node(run: Run) -> None:
    """A sixth node joins and takes its share."""
    with run.fault("node added"):
        node = run.cluster.add_node("z")
        run.restart(node)
        wait_for(node.partitions, "the new node holds something", 60)
        run.cluster.wait_until_settled()
        run.go_on()


def drain_node(run: Run) -> None:
    """A node gives its partitions away, and is gone."""
    name = "z" if "z" in run.cluster.nodes else "e"
    node = run.cluster.nodes[name]
    with run.fault(f"node {name} drained"):
        done = run.cluster.command("drain", name, timeout_s=120)
        assert done.returncode == 0, done.stdout + done.stderr
        node.stop()
        run.go_on()
    if name == "z":
        del run.cluster.nodes["z"]
    else:
        run.restart(node)
    run.cluster.wait_until_settled()


def rebuild_elsewhere(run: Run) -> None:
    """A node that stays away for longer than --rebuild-after: its partitions are rebuilt on the others."""
    node = run.cluster.nodes["d"]
    with run.fault("node d stays away"):
        node.kill()
        run.cluster.wait_until_settled(180)
        run.go_on()
    with run.fault("node d comes back"):
        run.restart(node)
        run.cluster.wait_until_settled()
        run.go_on()


def verify(run: Run) -> None:
    """All replicas are compared while they are written to; a damaged one is named, and fetched anew."""
    done = run.cluster.command("verify")
    assert done.returncode == 0, done.stdout + done.stderr
    name = run.cluster.holders()[0][0]
    node = run.cluster.nodes[name]
    with run.fault(f"a replica on node {name} is damaged and repaired"):
        node.stop()
        damage(run.cluster.data_of(name), 0)
        run.restart(node)
        named = run.cluster.command("verify", "--repair", timeout_s=120)
        assert f"{name} differs from 2 others in 1 windows" in named.stdout, named.stdout + named.stderr
        assert named.returncode == 0, named.stdout + named.stderr
        run.go_on()


def rolling_restart(run: Run) -> None:
    """Everything is restarted, one after the other."""
    for service in [*run.cluster.nodes.values(), *run.cluster.ingestors]:
        with run.fault(f"{service.name} restarted"):
            service.stop()
            run.restart(service)
            run.go_on()
    for query in run.cluster.queries:
        with run.fault(f"{query.name} restarted", without=query.name):
            query.stop()
            run.restart(query)
        run.go_on()
    for i in range(len(run.cluster.brokers.hosts)):
        with run.fault(f"broker {i + 1} restarted", max_gap_ms=None, may_fail=True):
            run.cluster.brokers.stop_one(i)
            run.cluster.brokers.start_one(i)
            run.go_on()
        time.sleep(5)


def slow_node(run: Run) -> None:
    """Everything to and from a node takes 200 ms longer."""
    node, port = run.cluster.nodes["e"], run.cluster.free_port()
    checker = run.cluster.network.host("checker").address
    with delaying((checker, port), (node.host.address, node.port), 0.2):
        with run.fault("node e answers 400 ms later"):
            node.stop()
            node.more_flags = ["--advertise", f"{checker}:{port}"]
            run.restart(node)
            run.go_on()
            time.sleep(10)
            run.go_on()
        node.stop()
    node.more_flags = []
    run.restart(node)


def lossy_node(run: Run) -> None:
    """20 % of the packets to a node are lost, and what it sends waits up to 200 ms."""
    network = run.cluster.network
    assert isinstance(network, Namespaces)
    with run.fault("node b loses 20 % of its packets and is slow"):
        network.lose("node-b", 0.2)
        network.delay("node-b", 200)
        run.go_on()
        time.sleep(10)
        run.go_on()
    network.heal("node-b")
    run.go_on()


def node_without_brokers(run: Run) -> None:
    """A node is cut off from the brokers: it falls behind, and its partitions are read elsewhere."""
    network = run.cluster.network
    assert isinstance(network, Namespaces)
    brokers = [host.name for host in run.cluster.brokers.hosts]
    with run.fault("node c cut off from the brokers"):
        network.cut("node-c", brokers)
        run.go_on()
        time.sleep(15)
        run.go_on()
    with run.fault("node c has the brokers again"):
        network.heal("node-c")
        run.go_on()


def node_without_query_servers(run: Run) -> None:
    """A node is cut off from the query servers, and still announces itself as well."""
    network = run.cluster.network
    assert isinstance(network, Namespaces)
    with run.fault("node d cut off from the query servers"):
        network.cut("node-d", [query.host.name for query in run.cluster.queries])
        run.go_on()
        time.sleep(10)
        run.go_on()
    network.heal("node-d")
    run.go_on()


SCENARIOS: dict[str, Scenario] = {
    one.__name__.replace("_", "-"): one
    for one in (
        kill_each_node,
        kill_two_replicas,
        kill_ingestor,
        kill_query_server,
        stop_node,
        wipe_disk,
        add_node,
        drain_node,
        rebuild_elsewhere,
        verify,
        kill_leader_broker,
        rolling_restart,
        slow_node,
        lossy_node,
        node_without_brokers,
        node_without_query_servers,
    )
}
OF_THE_NETWORK = frozenset({"lossy-node", "node-without-brokers", "node-without-query-servers"})
"""Scenarios that need hosts of their own."""
