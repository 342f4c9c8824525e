"""Every alert of docs/alerts: the fault raises it, its repair clears it; real processes, real expressions."""

from __future__ import annotations

import contextlib
import random
import re
import resource
import shutil
import signal
import ssl
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from bench.requests import compress, encode_labels, encode_sample
from common.log.base import Append
from common.log.local import LocalLog
from tests.acceptance.test_disk_full import MIB, SMALL_MIB, small_disk
from tests.acceptance.test_quarantine import BROKEN
from tests.certificates import Authority
from tests.cluster.damage import damage
from tests.kafka_broker import Broker
from tests.processes import Process, free_port, running, tabor_command, tabor_run, wait_for
from tests.watcher import Case, Watcher, alerts

pytestmark = pytest.mark.acceptance

INJECTED = {
    "TaborDown": "the process is stopped",
    "TaborNotReady": "files may not grow, so the log takes nothing",
    "TaborRequestsFailing": "the same, under writes",
    "TaborLogUnavailable": "the same",
    "TaborWritesRefused": "bodies that cannot be read are sent",
    "TaborLagging": "a storage node's files may not grow, and its heads are full",
    "TaborRecordsQuarantined": "a broken record is put into the log",
    "TaborCutOff": "the log's retention deletes what a storage node has not read",
    "TaborReplicasMissing": "a storage node is killed",
    "TaborPartitionsUnavailable": "all storage nodes are killed",
    "TaborDiskNearlyFull": "a small file system is filled up",
    "TaborOpenFilesNearlyUsedUp": "the limit of open files is lowered",
    "TaborMemoryNearlyUsedUp": "the limit of the control group is lowered, as far as the process can see",
    "TaborClockSkew": "the clock is put forward, as far as the process can see",
    "TaborReplicasDiffer": "the digests of a storage node are damaged on its disk",
    "TaborNodeHangs": "a storage node is stopped (SIGSTOP) while many ask",
    "TaborDoorNotReloaded": "the web configuration file is broken",
    "TaborLimitsNotRead": "the file of tenants' limits is broken",
    "TaborSlowQueries": "with a threshold that every query exceeds",
    "TaborBackupTooOld": "the folder of backups is put out of the way",
    "TaborCertificateEnds": "a certificate of six days is put in the place of the other",
}
LONG = 70
"""Minutes after which even an increase of the last hour is over."""


def sample(name: str = "x", time_ms: int = 1_790_000_000_000, n: int = 20) -> bytes:
    return compress([encode_labels({"__name__": name, "n": str(i)}) + encode_sample(i, time_ms) for i in range(n)])


@pytest.fixture(scope="module")
def watcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watcher]:
    tabor = tabor_run(tmp_path_factory.mktemp("watcher"), name="watcher")
    with running(tabor):
        tabor.start_and_wait()
        yield Watcher(tabor, 1_790_000_000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("server")
    config = folder / "web.yml"
    config.write_text("http_server_config: {}\n")
    limits = folder / "limits.toml"
    limits.write_text("[limits]\n")
    tenants = ("--tenancy", "optional", "--tenant-limits", str(limits))
    tabor = tabor_run(folder, "--web-config", str(config), "--slow-query-threshold", "1ms", *tenants)
    with running(tabor):
        tabor.start_and_wait()
        yield tabor


def begin(watcher: Watcher, names: list[str], *targets: Process) -> Case:
    case = watcher.case(names, targets)
    assert case.see(LONG) == dict.fromkeys(names, False), "before the fault"
    return case


def raised(case: Case, names: list[str], minutes: int = 20) -> None:
    assert case.see(minutes) == dict.fromkeys(names, True), "during the fault"


def cleared(case: Case, names: list[str]) -> None:
    assert case.see(LONG) == dict.fromkeys(names, False), "after the repair"


def test_every_alert_has_a_row() -> None:
    assert INJECTED.keys() == alerts().keys()


def test_a_process_that_is_gone_and_records_that_cannot_be_read(watcher: Watcher, server: Process) -> None:
    down = begin(watcher, ["TaborDown"], server)
    broken = begin(watcher, ["TaborRecordsQuarantined"], server)
    assert server.stop() == 0
    raised(down, ["TaborDown"])
    append(server, BROKEN)
    server.start_and_wait()
    cleared(down, ["TaborDown"])
    raised(broken, ["TaborRecordsQuarantined"])
    cleared(broken, ["TaborRecordsQuarantined"])


def test_records_that_are_gone_before_they_were_read(watcher: Watcher, server: Process) -> None:
    case = begin(watcher, names := ["TaborCutOff"], server)
    assert server.stop() == 0
    append(server, *[bytes(900 << 10)] * 8, retention_bytes=MIB)
    server.start_and_wait()
    raised(case, names)
    cleared(case, names)


def test_writes_that_cannot_be_read(watcher: Watcher, server: Process) -> None:
    case = begin(watcher, names := ["TaborWritesRefused"], server)
    assert server.write(b"no snappy")[0] == 400
    raised(case, names)
    assert server.write(sample())[0] == 204
    cleared(case, names)


def test_slow_queries(watcher: Watcher, server: Process) -> None:
    assert server.write(sample(n=2000))[0] == 204
    case = begin(watcher, names := ["TaborSlowQueries"], server)
    for i in range(30):
        assert server.get("/api/v1/query", query=f"sum(x * {i}) by (n)", time=1_790_000_000)[0] == 200
    raised(case, names, 15)
    cleared(case, names)


def test_few_files_left(watcher: Watcher, server: Process) -> None:
    case = begin(watcher, names := ["TaborOpenFilesNearlyUsedUp"], server)
    before = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    n_open = len(list(Path(f"/proc/{server.pid}/fd").iterdir()))
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (n_open + 4, before[1]))
    raised(case, names)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, before)
    cleared(case, names)


@contextlib.contextmanager
def spoiled(server: Process, flag: str, text: str, current: Callable[[], bool]) -> Iterator[None]:
    """Another text in the file of a flag, which the server does not take over; the right one again afterwards."""
    file = Path(server.command[server.command.index(flag) + 1])
    whole = file.read_text()
    file.write_text(text)
    wait_for(lambda: not current(), "the file was read again")
    yield
    file.write_text(whole + "\n")
    wait_for(current, "the file was read again")


def test_a_web_configuration_that_cannot_be_taken_over(watcher: Watcher, server: Process) -> None:
    case = begin(watcher, names := ["TaborDoorNotReloaded"], server)

    def current() -> bool:
        return b"tabor_door_config_current 1.0" in server.get("/metrics")[1]

    with spoiled(server, "--web-config", "no_such_key: 1\n", current):
        raised(case, names)
    cleared(case, names)


def test_limits_of_tenants_that_cannot_be_read(watcher: Watcher, server: Process) -> None:
    case = begin(watcher, names := ["TaborLimitsNotRead"], server)

    def current() -> bool:
        server.get("/api/v1/query", query="x")
        return shown(server, "tabor_tenant_limits_current") == 1

    with spoiled(server, "--tenant-limits", "[limits]\nsamples_per_sec = 5\n", current):
        raised(case, names)
    cleared(case, names)


def test_backups_that_fail_and_a_certificate_that_ends(watcher: Watcher, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    good, ending = authority.sign("good"), authority.sign("ending", days=6)
    renewed = authority.sign("renewed")
    config, target, away = tmp_path / "web.yml", tmp_path / "backups", tmp_path / "away"
    config.write_text(f"tls_server_config: {{cert_file: {good.cert}, key_file: {good.key}}}\n")
    flags = ("--web-config", str(config), "--backup", str(target), "--backup-every", "1s", "--backup-keep", "1")
    tabor = tabor_run(tmp_path, *flags)
    tabor.tls = ssl.create_default_context(cafile=authority.file)

    def age_s() -> float:
        """Of the newest backup."""
        return time.time() - shown(tabor, "tabor_backup_last_success_timestamp_seconds")

    def ends_s() -> float:
        return shown(tabor, "tabor_door_certificate_expires_timestamp_seconds") - time.time()

    with running(tabor):
        tabor.start_and_wait()
        wait_for(lambda: age_s() < 2, "a backup was written")
        case = begin(watcher, names := ["TaborBackupTooOld", "TaborCertificateEnds"], tabor)
        target.rename(away)
        target.write_text("not a folder")
        good.replace_by(ending)
        wait_for(lambda: age_s() > 3, "backups fail")
        wait_for(lambda: ends_s() < 7 * 86_400, "the certificate was read again")
        raised(case, names, 40)
        target.unlink()
        away.rename(target)
        good.replace_by(renewed)
        wait_for(lambda: age_s() < 2, "a backup was written again", 90)
        wait_for(lambda: ends_s() > 20 * 86_400, "the certificate was read again")
        cleared(case, names)


def shown(process: Process, metric: str) -> float:
    """What a process shows of a metric without labels."""
    found = re.search(rf"^{metric} (\S+)$", process.get("/metrics")[1].decode(), re.MULTILINE)
    assert found is not None, metric
    return float(found[1])


def test_a_log_that_takes_nothing(watcher: Watcher, server: Process) -> None:
    names = ["TaborNotReady", "TaborRequestsFailing", "TaborLogUnavailable"]
    case = begin(watcher, names, server)
    _, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (1, hard))
    wait_for(lambda: server.write(sample())[0] == 503, "a write is refused")
    for _ in range(20):
        assert server.write(sample())[0] == 503
    wait_for(lambda: server.get("/-/ready")[0] == 503, "not ready")
    raised(case, names)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (hard, hard))
    wait_for(lambda: server.get("/-/ready")[0] == 200, "ready again by itself", 60)
    case.see(5)  # What failed until then is counted.
    cleared(case, names)


def append(server: Process, *values: bytes, retention_bytes: int | None = None) -> None:
    """Put records into the log of a server that does not run."""
    folder = Path(server.command[server.command.index("--data-dir") + 1]) / "log"
    log = LocalLog(folder, None, retention_bytes=retention_bytes, maintenance_interval_s=0.05)
    with contextlib.closing(log):
        for value in values:
            appended: Future[list[int]] = log.append([Append(0, value)])
            appended.result(10)
        if retention_bytes is not None:
            wait_for(lambda: log.bounds(0).start > 3, "the log's start is gone")


def test_a_clock_that_is_wrong_and_little_memory(watcher: Watcher, tmp_path: Path) -> None:
    clock, memory = tmp_path / "clock", tmp_path / "memory.max"
    clock.write_text("0")
    memory.write_text("max\n")
    server = tabor_run(tmp_path, name="odd")
    at = server.command.index("tabor")
    server.command[at : at + 1] = ["tests.odd_machine", str(tmp_path)]
    with running(server):
        server.start_and_wait()
        case = begin(watcher, names := ["TaborClockSkew", "TaborMemoryNearlyUsedUp"], server)
        clock.write_text("30")
        memory.write_text(f"{round(metric(server, 'process_resident_memory_bytes') * 1.1)}\n")
        raised(case, names)
        clock.write_text("0")
        memory.write_text("max\n")
        cleared(case, names)


def test_a_disk_that_fills_up(watcher: Watcher, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small") as small:
        server = tabor_run(tmp_path, data_dir=small / "data")
        with running(server):
            server.start_and_wait()
            case = begin(watcher, names := ["TaborDiskNearlyFull"], server)
            ballast = small / "ballast"
            ballast.write_bytes(bytes((SMALL_MIB - 4) * MIB))
            raised(case, names)
            ballast.unlink()
            cleared(case, names)


class Tiers:
    """One ingestor, two storage nodes with full heads soon, one query server."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self._folder = folder
        self._url = f"kafka://{bootstrap}/alerts-{uuid.uuid4().hex[:8]}"
        self.ingest = self._tier("ingest", "ingest", "--partitions", "2")
        self.a, self.b = (self._node(name) for name in "ab")
        self.query = self._tier("query", "query", "--node-timeout", "3s")
        self.all = (self.ingest, self.a, self.b, self.query)

    def _tier(self, name: str, command: str, *flags: str) -> Process:
        port = free_port()
        line = tabor_command(command, "--log", self._url, "--listen", f"127.0.0.1:{port}", *flags)
        line[line.index("tabor")] = "tests.small_heads"
        return Process(name, line, self._folder, port)

    def _node(self, name: str) -> Process:
        data = str(self._folder / name)
        flags = (
            "--name",
            name,
            "--data-dir",
            data,
            "--replicas",
            "2",
            "--node-timeout",
            "3s",
            "--audit-every",
            "1s",
        )
        return self._tier(name, "storage-node", *flags)

    def start(self) -> None:
        self.ingest.start_and_wait()
        for process in (self.a, self.b, self.query):
            process.start()
        for process in (self.a, self.b, self.query):
            process.wait_until_ready()
        wait_for(lambda: self.missing() == 0, "all replicas are there")

    def missing(self) -> float:
        return metric(self.query, "tabor_cluster_missing_replicas")


def metric(process: Process, name: str) -> float:
    lines = process.get("/metrics")[1].decode().splitlines()
    return next((float(line.split()[1]) for line in lines if line.startswith(name + " ")), -1.0)


@pytest.fixture(scope="module")
def tiers(kafka_broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiers]:
    tiers = Tiers(kafka_broker.bootstrap, tmp_path_factory.mktemp("tiers"))
    with running(*tiers.all):
        tiers.start()
        yield tiers


@pytest.mark.kafka
def test_storage_nodes_that_are_gone(watcher: Watcher, tiers: Tiers) -> None:
    some = begin(watcher, ["TaborReplicasMissing"], tiers.query)
    every = begin(watcher, ["TaborPartitionsUnavailable"], tiers.query)
    tiers.b.kill()
    wait_for(lambda: tiers.missing() == 2, "one node is missed")
    raised(some, ["TaborReplicasMissing"], 40)
    tiers.a.kill()
    wait_for(lambda: tiers.missing() == 4, "both nodes are missed")
    raised(every, ["TaborPartitionsUnavailable"])
    for node in (tiers.a, tiers.b):
        node.start()
    wait_for(lambda: tiers.missing() == 0, "both are back", 60)
    cleared(some, ["TaborReplicasMissing"])
    cleared(every, ["TaborPartitionsUnavailable"])


@pytest.mark.kafka
def test_a_storage_node_that_hangs(watcher: Watcher, tiers: Tiers) -> None:
    assert tiers.ingest.write(sample())[0] == 204
    case = begin(watcher, names := ["TaborNodeHangs"], tiers.query)

    def ask(_: int) -> int:
        return tiers.query.get("/api/v1/query", query="count(x)", time=1_790_000_000)[0]

    def hedges() -> float:
        return metric(tiers.query, 'tabor_query_node_hedges_total{reason="silent"}')

    assert ask(0) == 200
    for node in (tiers.a, tiers.b):
        # Which of them is asked first is for the query server to say.
        node.signal(signal.SIGSTOP)
        with ThreadPoolExecutor(20) as pool:
            assert set(pool.map(ask, range(20))) == {200}
        node.signal(signal.SIGCONT)
    assert hedges() > 14
    raised(case, names, 15)
    cleared(case, names)


@pytest.mark.kafka
def test_a_replica_that_is_damaged(watcher: Watcher, tiers: Tiers) -> None:
    assert tiers.ingest.write(sample())[0] == 204
    case = begin(watcher, names := ["TaborReplicasDiffer"], tiers.a)
    data = Path(tiers.b.command[tiers.b.command.index("--data-dir") + 1])

    def differing() -> float:
        return metric(tiers.a, "tabor_storage_node_differing_replicas")

    assert differing() == 0
    assert tiers.b.stop() == 0
    damage(data)
    tiers.b.start_and_wait()
    wait_for(lambda: differing() > 0, "the replicas are compared")
    raised(case, names)
    assert tiers.b.stop() == 0
    shutil.rmtree(data)
    tiers.b.start_and_wait()
    wait_for(lambda: differing() == 0 and tiers.missing() == 0, "it has fetched them anew", 60)
    cleared(case, names)


@pytest.mark.kafka
def test_a_storage_node_that_falls_behind(watcher: Watcher, tiers: Tiers) -> None:
    case = begin(watcher, names := ["TaborLagging"], tiers.b)
    _, hard = resource.prlimit(tiers.b.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(tiers.b.pid, resource.RLIMIT_FSIZE, (64 << 10, hard))
    n_sent, noise = 0, random.Random(1)
    labels = [encode_labels({"__name__": "y", "n": str(i)}) for i in range(1000)]

    def behind() -> bool:
        nonlocal n_sent
        for _ in range(50):
            n_sent += 1
            time_ms = 1_790_000_000_000 + n_sent
            # Values that no codec makes small, so that files soon have to grow beyond that.
            series = (each + encode_sample(noise.random(), time_ms) for each in labels)
            assert tiers.ingest.write(compress(series))[0] == 204
        return metric(tiers.b, "tabor_storage_node_lag_records") > 100

    wait_for(behind, "the node is behind", 60)
    raised(case, names)
    resource.prlimit(tiers.b.pid, resource.RLIMIT_FSIZE, (hard, hard))
    wait_for(lambda: 0 <= metric(tiers.b, "tabor_storage_node_lag_records") < 100, "it has caught up", 60)
    cleared(case, names)
