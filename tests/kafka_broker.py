"""A real Kafka broker for the tests, and in the foreground: `python -m tests.kafka_broker --port 9092`.

The first of these that is there: a broker named by TABOR_TEST_KAFKA=host:port; a Docker engine (testcontainers);
Java 17 or newer with Maven, which fetches Kafka's jars from Maven Central once into `.cache/` of the work tree.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

KAFKA_VERSION = "4.4.0"
START_TIMEOUT_S = 60.0
_CACHE = Path(__file__).resolve().parent.parent / ".cache" / f"kafka-{KAFKA_VERSION}"
_MISSING = (
    "no Kafka for the tests: set TABOR_TEST_KAFKA=host:port, or start a Docker engine,"
    " or install Java 17 and Maven (Debian: apt-get install openjdk-17-jre-headless maven)"
)
_POM = f"""<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>tabor</groupId><artifactId>test-kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""


class NoBroker(RuntimeError):
    """There is no way to get a broker here; the message says what to install."""


class Broker(Protocol):
    """A broker. `description` says where it came from; the rest is for fault tests."""

    description: str
    bootstrap: str

    def start(self) -> None:
        """Start it, with the data it had, and return when it answers."""

    def stop(self) -> None:
        """Stop it in good order; a second call does nothing."""

    def kill(self) -> None:
        """SIGKILL."""

    def remove(self) -> None:
        """Stop it and delete its data."""


class NamedBroker:
    """A broker that somebody else runs; it cannot be stopped from here."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.description = f"the broker at {bootstrap} (TABOR_TEST_KAFKA)"

    def start(self) -> None:
        wait_until_it_answers(self.bootstrap)

    def stop(self) -> None:
        raise NoBroker("fault tests need a broker of their own: unset TABOR_TEST_KAFKA")

    kill = stop

    def remove(self) -> None:
        pass


class DockerBroker:
    """A broker in a container, always on the same port of this machine."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from testcontainers.kafka import KafkaContainer
        self.port = free_ports(1)[0]
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.description = "a container of testcontainers"
        self._container: Any = KafkaContainer().with_kraft().with_bind_ports(9093, self.port)
        self._made = False

    def start(self) -> None:
        if self._made:
            self._container.get_wrapped_container().start()
        else:
            self._container.start()
            self._made = True
        wait_until_it_answers(self.bootstrap)

    def stop(self) -> None:
        self._container.get_wrapped_container().stop()

    def kill(self) -> None:
        self._container.get_wrapped_container().kill()

    def remove(self) -> None:
        self._container.stop()


class JavaBroker:
    """Broker and controller in one Java process, from the jars; keeps port and data over restarts.

    folder: where the data, the configuration and the output of the broker lie; a temporary one if None.
    """

    def __init__(self, *, port: int | None = None, folder: Path | None = None) -> None:
        ports = free_ports(2)
        self.port = port or ports[0]
        self._controller_port = ports[1]
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.description = f"Kafka {KAFKA_VERSION} under Java"
        self._folder = folder or Path(tempfile.mkdtemp(prefix="tabor-kafka-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._jars = f"{fetch_jars()}/*"

    def start(self) -> None:
        assert self._process is None
        data, config = self._folder / "data", self._folder / "server.properties"
        self._folder.mkdir(parents=True, exist_ok=True)
        config.write_text(self._config(data))
        if not data.exists():
            subprocess.run(
                self._java("kafka.tools.StorageTool", *self._format(), "-t", _cluster_id(), "-c", str(config)),
                check=True,
                capture_output=True,
                timeout=START_TIMEOUT_S,
            )
        with (self._folder / "output.log").open("ab") as output:
            self._process = subprocess.Popen(
                self._java("kafka.Kafka", str(config)),
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal goes to Python, which then stops the broker in good order.
                start_new_session=True,
            )
        try:
            wait_until_it_answers(self.bootstrap, lambda: self._ended_early(), self._client_options())
        except BaseException:
            self.kill()
            raise

    def _format(self) -> list[str]:
        return ["format", "--standalone"]

    def _client_options(self) -> dict[str, str]:
        """How librdkafka reaches it."""
        return {}

    def _java(self, *arguments: str) -> list[str]:
        # One tier of compilation: a broker of the tests lives too briefly to earn the second.
        options = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        return ["java", *options, "-cp", self._jars, *arguments]

    def _config(self, data: Path) -> str:
        return "".join(f"{name}={value}\n" for name, value in self._settings(data).items())

    def _settings(self, data: Path) -> dict[str, object]:
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{self._controller_port}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self._controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": data,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "auto.create.topics.enable": "false",
            # After SIGKILL the controller waits for the old session to run out; 9 s by default.
            "broker.session.timeout.ms": 1000,
            "broker.heartbeat.interval.ms": 250,
        }

    def _ended_early(self) -> str | None:
        if self._process is None or self._process.poll() is None:
            return None
        return (self._folder / "output.log").read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            try:
                self._process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Stop in good order and start again."""
        self.stop()
        self.start()

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


def obtain_broker() -> Broker:
    """A broker that is up, by the first way that works.

    Raises:
        NoBroker: there is none; the message says what to install.
    """
    broker: Broker
    named = os.environ.get("TABOR_TEST_KAFKA")
    if named:
        broker = NamedBroker(named)
    elif _docker_engine_runs():
        broker = DockerBroker()
    else:
        broker = JavaBroker()
    broker.start()
    return broker


def _docker_engine_runs() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, timeout=20).returncode == 0


def fetch_jars() -> Path:
    """The folder of Kafka's jars, filled through Maven at the first call.

    Raises:
        NoBroker: Java or Maven is missing or too old, or Maven cannot fetch the jars.
    """
    if _java_version() < 17:
        raise NoBroker(_MISSING)
    libs = _CACHE / "libs"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / "lock").open("w") as lock:
        # Several test runs may come at the same time.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not libs.exists():
            if shutil.which("mvn") is None:
                raise NoBroker(_MISSING)
            with tempfile.TemporaryDirectory(dir=_CACHE) as work:
                Path(work, "pom.xml").write_text(_POM)
                done = subprocess.run(
                    ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=libs"],
                    cwd=work,
                    capture_output=True,
                    text=True,
                    timeout=600,
                )
                if done.returncode != 0:
                    raise NoBroker(f"Maven could not fetch Kafka's jars: {(done.stdout + done.stderr)[-500:]}")
                Path(work, "libs").rename(libs)
    return libs


def _java_version() -> int:
    if shutil.which("java") is None:
        return 0
    done = subprocess.run(["java", "-version"], capture_output=True, text=True, timeout=20)
    match = re.search(r'version "(\d+)', done.stderr)
    return int(match.group(1)) if match else 0


def _cluster_id() -> str:
    import base64

    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that are free just now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def wait_until_it_answers(
    bootstrap: str, ended: Any = lambda: None, options: Mapping[str, str] | None = None
) -> None:
    """Return when the broker answers a metadata request; raise NoBroker when it ended or takes too long.

    options: librdkafka's.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    config = {"bootstrap.servers": bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 200}
    admin = AdminClient({**config, **(options or {})})
    while True:
        with contextlib.suppress(KafkaException):
            if admin.list_topics(timeout=1.0).brokers:
                return
        output = ended()
        if output is not None:
            raise NoBroker(f"the broker ended while starting: {output}")
        if time.monotonic() > deadline:
            raise NoBroker(f"no answer from {bootstrap} within {START_TIMEOUT_S:.0f} s")


@contextlib.contextmanager
def running_broker() -> Iterator[Broker]:
    broker = obtain_broker()
    try:
        yield broker
    finally:
        broker.remove()


def main() -> int:
    """Run a broker in the foreground until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description="Run one Kafka broker on the loopback interface.")
    parser.add_argument("--port", type=int, default=9092)
    parser.add_argument(
        "--data-dir", type=Path, help="keep the data here; by default they go when the broker ends"
    )
    arguments = parser.parse_args()
    try:
        broker = JavaBroker(port=arguments.port, folder=arguments.data_dir)
        broker.start()
    except NoBroker as error:
        print(error, file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"{broker.description} listens on {broker.bootstrap}; Ctrl-C stops it", flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        print("stopping", flush=True)
    finally:
        broker.stop()
        if arguments.data_dir is None:
            broker.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
