"""The processes of a cluster: brokers, ingestors, storage nodes, query servers."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.cluster.brokers import Brokers
from tests.cluster.checker import Endpoint
from tests.cluster.hosts import Host, Network
from tests.processes import wait_for


class Service:
    """One process on its host; its output is kept in a file."""

    def __init__(self, name: str, host: Host, port: int, arguments: list[str], folder: Path) -> None:
        self.name, self.host, self.port = name, host, port
        self._command = [*host.prefix, sys.executable, "-m", "tabor", *arguments]
        self.more_flags: list[str] = []
        """Given with the next start, besides the usual ones."""
        self._log_path = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.name, self.host.address, self.port)

    @property
    def output(self) -> str:
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        assert not self.runs
        with self._log_path.open("ab") as log:
            command = [*self._command, *self.more_flags]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """SIGKILL, the crash."""
        self.signal(signal.SIGKILL)
        self._wait()

    def stop(self) -> None:
        """SIGTERM; it has to end in good order."""
        self.signal(signal.SIGTERM)
        status = self._wait()
        assert status == 0, f"{self.name} ended with {status}:\n{self.output[-3000:]}"

    def close(self) -> None:
        if self.runs:
            self.signal(signal.SIGKILL)
            self._wait()

    def _wait(self) -> int:
        assert self._process is not None
        return self._process.wait(timeout=60)

    def get(self, path: str, timeout_s: float = 10.0) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.host.address, self.port, timeout=timeout_s)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def is_ready(self) -> bool:
        assert self.runs, f"{self.name} has ended:\n{self.output[-3000:]}"
        try:
            return self.get("/-/ready")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def partitions(self, *, digest: bool = False) -> list[dict[str, Any]]:
        """What the storage node says of its partitions; none if it does not answer."""
        try:
            status, body = self.get(f"/api/v1/status/partitions{'?digest=1' if digest else ''}")
        except (OSError, http.client.HTTPException):
            return []
        found: list[dict[str, Any]] = json.loads(body)["data"]["partitions"] if status == 200 else []
        return found


class Cluster:
    """n_nodes storage nodes named a, b, c …, not started yet. Everything lies in `folder`."""

    def __init__(
        self,
        network: Network,
        folder: Path,
        *,
        n_brokers: int = 3,
        n_ingestors: int = 2,
        n_nodes: int = 5,
        n_queries: int = 2,
        partitions: int = 8,
        replicas: int = 3,
        node_flags: tuple[str, ...] = ("--rebuild-after", "45s"),
    ) -> None:
        self.network, self.folder = network, folder
        self.n_partitions, self.n_replicas = partitions, replicas
        ports = network.ports(2 * n_brokers + 40)
        self._ports = iter(ports[2 * n_brokers :])
        self.brokers = Brokers(network, folder, ports[: 2 * n_brokers])
        self.url = f"kafka://{self.brokers.bootstrap}/cluster"
        self._node_flags = ("--replicas", str(replicas), *node_flags)
        self.ingestors = [
            self._service(f"ingest-{i + 1}", "ingest", "--partitions", str(partitions)) for i in range(n_ingestors)
        ]
        self.nodes: dict[str, Service] = {}
        for name in "abcdefghij"[:n_nodes]:
            self.add_node(name)
        self.queries = [self._service(f"query-{i + 1}", "query") for i in range(n_queries)]

    def add_node(self, name: str) -> Service:
        flags = ["--name", name, "--data-dir", str(self.data_of(name)), *self._node_flags]
        self.nodes[name] = self._service(f"node-{name}", "storage-node", *flags)
        return self.nodes[name]

    def data_of(self, name: str) -> Path:
        return self.folder / f"data-{name}"

    def wipe(self, name: str) -> None:
        """The node's disk is lost."""
        shutil.rmtree(self.data_of(name))

    @property
    def services(self) -> list[Service]:
        return [*self.ingestors, *self.nodes.values(), *self.queries]

    def start(self) -> None:
        self.brokers.start()
        self.ingestors[0].start()
        wait_for(self.ingestors[0].is_ready, "the first ingestor is ready", 90)
        for service in self.services[1:]:
            service.start()
        for service in self.services:
            wait_for(service.is_ready, f"{service.name} is ready", 90)
        self.wait_until_settled()

    def close(self) -> None:
        for service in self.services:
            service.close()
        self.brokers.close()

    def command(self, *arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run `tabor cluster …` on the first query server's host."""
        line = [*self.queries[0].host.prefix, sys.executable, "-m", "tabor", "cluster", *arguments]
        return subprocess.run([*line, "--log", self.url], capture_output=True, text=True, timeout=timeout_s)

    def holders(self) -> dict[int, list[str]]:
        """Names of the running nodes that hold each partition."""
        found: dict[int, list[str]] = {partition: [] for partition in range(self.n_partitions)}
        for name, node in self.nodes.items():
            if node.runs:
                for status in node.partitions():
                    found[status["partition"]].append(name)
        return found

    def wait_until_settled(self, timeout_s: float = 120.0) -> None:
        """Every partition is on exactly as many nodes as it should be."""
        running = sum(node.runs for node in self.nodes.values())
        wanted = min(self.n_replicas, running)

        def settled() -> bool:
            return all(len(names) == wanted for names in self.holders().values())

        wait_for(settled, f"each partition is on {wanted} nodes; now: {self.holders()}", timeout_s)

    def assert_equal_digests(self, timeout_s: float = 60.0) -> None:
        """With no load: all replicas of a partition come to the same digest."""
        seen: dict[int, set[tuple[int, str]]] = {}

        def equal() -> bool:
            seen.clear()
            for node in self.nodes.values():
                for status in node.partitions(digest=True) if node.runs else ():
                    if status["lag"]:
                        return False
                    seen.setdefault(status["partition"], set()).add((status["next_offset"], status["digest"]))
            return len(seen) == self.n_partitions and all(len(digests) == 1 for digests in seen.values())

        wait_for(equal, f"digests are equal: {seen}", timeout_s)

    def free_port(self) -> int:
        """A port that nobody has yet."""
        return next(self._ports)

    def _service(self, name: str, tier: str, *flags: str) -> Service:
        host, port = self.network.host(name), next(self._ports)
        # A network of its own, which only these processes are in.
        common = ["--log", self.url, "--listen", f"{host.address}:{port}", "--insecure"]
        return Service(name, host, port, [tier, *common, *flags], self.folder)
