"""Kafka brokers of a cluster, each broker and controller in one Java process, each on a host of its own."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import uuid
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.cluster.hosts import Host, Network
from tests.kafka_broker import START_TIMEOUT_S, fetch_jars
from tests.processes import wait_for


class Brokers:
    """Brokers that keep each record on three of them, or on all if there are fewer. ports: two for each."""

    def __init__(self, network: Network, folder: Path, ports: list[int]) -> None:
        n_brokers = len(ports) // 2
        self._folder = folder
        self.hosts = [network.host(f"broker-{i + 1}") for i in range(n_brokers)]
        self._ports, self._controller_ports = ports[:n_brokers], ports[n_brokers:]
        self._jars = f"{fetch_jars()}/*"
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * n_brokers
        self.bootstrap = ",".join(
            f"{host.address}:{port}" for host, port in zip(self.hosts, self._ports, strict=True)
        )

    def start(self) -> None:
        """Format all, start them, and return when all of them belong to the cluster."""
        directories = [_uuid() for _ in self.hosts]
        controllers = ",".join(
            f"{i + 1}@{host.address}:{port}:{directory}"
            for i, (host, port, directory) in enumerate(
                zip(self.hosts, self._controller_ports, directories, strict=True)
            )
        )
        cluster = _uuid()
        formats = []
        for i, host in enumerate(self.hosts):
            config = self._folder / f"broker-{i + 1}.properties"
            config.write_text(self._config(i))
            tool = ("kafka.tools.StorageTool", "format", "-t", cluster, "--initial-controllers", controllers)
            formats.append(
                subprocess.Popen(
                    [*self._java(host), *tool, "-c", str(config)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
                )
            )
        for process in formats:
            output, _ = process.communicate(timeout=60)
            assert process.returncode == 0, output.decode()
        for i in range(len(self.hosts)):
            self.start_one(i)
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        wait_for(lambda: len(_registered(admin)) == len(self.hosts), "all brokers are registered", START_TIMEOUT_S)

    def start_one(self, i: int) -> None:
        with (self._folder / f"broker-{i + 1}.log").open("ab") as output:
            self._processes[i] = subprocess.Popen(
                [*self._java(self.hosts[i]), "kafka.Kafka", str(self._folder / f"broker-{i + 1}.properties")],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill_one(self, i: int) -> None:
        """SIGKILL."""
        self._end(i, signal.SIGKILL)

    def stop_one(self, i: int) -> None:
        self._end(i, signal.SIGTERM)

    def close(self) -> None:
        for i in range(len(self.hosts)):
            self._end(i, signal.SIGKILL)
            shutil.rmtree(self._folder / f"broker-{i + 1}", ignore_errors=True)

    def _end(self, i: int, how: signal.Signals) -> None:
        process = self._processes[i]
        if process is not None:
            # `ip netns exec` becomes the command, so the process is the broker itself.
            os.kill(process.pid, how)
            process.wait(timeout=60)
            self._processes[i] = None

    def _java(self, host: Host) -> list[str]:
        options = ["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        return [*host.prefix, "java", *options, "-cp", self._jars]

    def _config(self, i: int) -> str:
        factor = min(3, len(self.hosts))
        address = self.hosts[i].address
        settings = {
            "process.roles": "broker,controller",
            "node.id": i + 1,
            "controller.quorum.bootstrap.servers": ",".join(
                f"{host.address}:{port}" for host, port in zip(self.hosts, self._controller_ports, strict=True)
            ),
            "listeners": f"PLAINTEXT://{address}:{self._ports[i]},CONTROLLER://{address}:{self._controller_ports[i]}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": self._folder / f"broker-{i + 1}",
            "default.replication.factor": factor,
            "min.insync.replicas": max(1, factor - 1),
            "offsets.topic.replication.factor": factor,
            "transaction.state.log.replication.factor": factor,
            "transaction.state.log.min.isr": max(1, factor - 1),
            "auto.create.topics.enable": "false",
            "broker.session.timeout.ms": 2000,
            "broker.heartbeat.interval.ms": 500,
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())


def _registered(admin: Any) -> Any:
    """The brokers that the cluster knows; none while it does not answer."""
    try:
        return admin.list_topics(timeout=2.0).brokers
    except KafkaException:
        return {}


def _uuid() -> str:
    """A random one as Kafka writes them."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text
