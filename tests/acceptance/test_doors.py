"""Locked doors, from outside: a real Prometheus gets in with its standard settings, and so do the tiers."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import ssl
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import bcrypt
import pytest

from bench.requests import compress, encode_labels, encode_sample
from common.log.base import Append
from common.log.url import open_log
from common.record import NOTHING, encode_record
from storage_node.acquiring import SHORT_LOG_RECORDS
from tabor.doors.rights import OPEN, right_for
from tests.acceptance.test_prometheus import program
from tests.certificates import Authority, Pair
from tests.kafka_broker import Broker
from tests.load import Load, wait_for_acknowledged
from tests.processes import Process, free_port, running, tabor_command, tabor_run, wait_for

pytestmark = pytest.mark.acceptance

RIGHTS = {"writer": "write", "reader": "read", "operator": "admin", "tier": "node"}
PASSWORD = "correct horse battery staple"
SECRETS = (PASSWORD, *(f"secret-of-{name}" for name in RIGHTS))


class Keys(NamedTuple):
    """Files of a locked door, and of those who get in."""

    folder: Path
    authority: Authority
    client: Pair
    web_config: Path

    def token_file(self, name: str) -> str:
        return str(self.folder / name)

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.authority.file)
        context.load_cert_chain(*self.client)
        return context

    def open(self, process: Process, name: str) -> Process:
        """Have requests to a process be made by one of the tokens."""
        process.tls = self.context()
        process.headers = {"Authorization": f"Bearer secret-of-{name}"}
        return process


def mutual_tls(server: Pair, authority: Authority) -> dict[str, str]:
    """What a web configuration says of TLS where clients have to show certificates."""
    return {
        "cert_file": server.cert.name,
        "key_file": server.key.name,
        "client_ca_file": authority.file.name,
        "client_auth_type": "RequireAndVerifyClientCert",
    }


def make_keys(folder: Path) -> Keys:
    authority = Authority(folder)
    server, client = authority.sign("server"), authority.sign("client")
    for name in RIGHTS:
        (folder / name).touch(0o600)
        (folder / name).write_text(f"secret-of-{name}\n")
    (folder / "password").touch(0o600)
    (folder / "password").write_text(PASSWORD)
    web_config = folder / "web.yml"
    web_config.touch(0o600)
    content = {
        "tls_server_config": mutual_tls(server, authority),
        "basic_auth_users": {"alice": bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()},
        "tokens": [
            {"name": name, "sha256": hashlib.sha256(f"secret-of-{name}".encode()).hexdigest(), "rights": [right]}
            for name, right in RIGHTS.items()
        ],
    }
    # JSON is YAML.
    web_config.write_text(json.dumps(content))
    return Keys(folder, authority, client, web_config)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path)


def refuses_strangers(process: Process, keys: Keys) -> None:
    """Every route that a process has asks who one is, but for those that are declared to be open."""
    described = keys.open(process, "reader").request("GET", "/openapi.json")
    assert described[0] == 200, described
    process.headers = {}
    for path, methods in json.loads(described[1])["paths"].items():
        example = re.sub(r"\{.*?\}", "job", path)
        for method in methods:
            status, _ = process.request(method.upper(), example)
            assert (status == 401) is (right_for(example) is not OPEN), (method, path, status)


def prometheus_config(keys: Keys, tabor: Process, port: int) -> dict[str, Any]:
    url = f"https://127.0.0.1:{tabor.port}"
    tls = {
        "ca_file": str(keys.authority.file),
        "cert_file": str(keys.client.cert),
        "key_file": str(keys.client.key),
    }

    def token(name: str) -> dict[str, Any]:
        return {"authorization": {"credentials_file": keys.token_file(name)}, "tls_config": tls}

    password = {"username": "alice", "password_file": str(keys.folder / "password")}

    def labelled(by: str) -> list[dict[str, str]]:
        return [{"target_label": "by", "replacement": by}]

    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [
            {"job_name": "prometheus", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]},
            {
                "job_name": "tabor",
                "scheme": "https",
                "static_configs": [{"targets": [f"127.0.0.1:{tabor.port}"]}],
                **token("reader"),
            },
        ],
        "remote_write": [
            {"url": f"{url}/api/v1/write", "write_relabel_configs": labelled("token"), **token("writer")},
            {
                "url": f"{url}/api/v1/write",
                "write_relabel_configs": labelled("password"),
                "basic_auth": password,
                "tls_config": tls,
            },
        ],
        "remote_read": [{"url": f"{url}/api/v1/read", "read_recent": True, **token("reader")}],
    }


@pytest.fixture
def tabor(keys: Keys) -> Iterator[Process]:
    process = tabor_run(keys.folder, "--web-config", str(keys.web_config))
    process.tls = keys.context()
    with running(process):
        process.start_and_wait()
        yield process


def test_prometheus_writes_reads_and_scrapes_with_its_standard_settings(keys: Keys, tabor: Process) -> None:
    keys.open(tabor, "writer")
    now_ms = int(time.time() * 1000)
    sample = encode_labels({"__name__": "only_in_tabor"}) + encode_sample(42.0, now_ms)
    assert tabor.write(compress([sample]))[0] == 204
    keys.open(tabor, "reader")
    port = free_port()
    config = keys.folder / "prometheus.yml"
    config.write_text(json.dumps(prometheus_config(keys, tabor, port)))
    command = [
        program("prometheus", "prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={keys.folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    prometheus = Process("prometheus", command, keys.folder, port)
    with running(prometheus):
        prometheus.start_and_wait()

        def ways() -> bool:
            found = tabor.data("/api/v1/query", query='up{job="tabor"} == 1')["result"]
            return {series["metric"]["by"] for series in found} == {"token", "password"}

        wait_for(ways, f"what Prometheus scraped has come in by token and by password\n{prometheus.output}")
        read = prometheus.data("/api/v1/query", query="only_in_tabor", time=now_ms / 1000)["result"]
        assert [series["value"][1] for series in read] == ["42"]
    refuses_strangers(tabor, keys)
    assert not [secret for secret in SECRETS if secret in tabor.output]


def test_secrets_are_shown_nowhere(keys: Keys, tabor: Process) -> None:
    hashes = [hashlib.sha256(f"secret-of-{name}".encode()).hexdigest() for name in RIGHTS]
    keys.open(tabor, "reader")
    shown = [tabor.output]
    for path in ("/metrics", "/api/v1/status/flags", "/api/v1/status/config", "/api/v1/status/runtimeinfo"):
        status, body = tabor.get(path)
        assert status == 200
        shown.append(body.decode())
    wrong = {"Authorization": "Basic " + base64.b64encode(b"alice:hunter2").decode()}
    shown.append(tabor.request("GET", "/api/v1/query?query=up", headers=wrong)[1].decode())
    shown.append(tabor.output)
    for text in shown:
        assert not [secret for secret in (*SECRETS, *hashes, "$2b$", "hunter2") if secret in text]


def test_who_has_no_certificate_gets_no_answer(keys: Keys, tabor: Process) -> None:
    tabor.tls = ssl.create_default_context(cafile=keys.authority.file)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        tabor.get("/-/healthy")


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(tabor_command(*arguments), capture_output=True, text=True, timeout=120)


def test_samples_are_imported_and_exported_through_a_locked_door(keys: Keys, tabor: Process) -> None:
    (keys.folder / "samples.txt").write_text("answer 42 1790000000\n# EOF\n")
    url = ["--url", f"https://127.0.0.1:{tabor.port}"]
    shown = ["--ca-file", str(keys.authority.file)]
    shown += ["--cert-file", str(keys.client.cert), "--key-file", str(keys.client.key)]
    samples = str(keys.folder / "samples.txt")
    without = cli("import", samples, *url, *shown)
    assert without.returncode == 1
    assert "credentials are missing (--token-file)" in without.stderr.strip().splitlines()[-1]
    done = cli("import", samples, *url, *shown, "--token-file", keys.token_file("writer"))
    assert done.returncode == 0, done.stderr
    export = ["export", "--match", "answer", "--format", "openmetrics", "--output", "-", *url, *shown]
    wrong = cli(*export, "--token-file", keys.token_file("writer"))
    assert wrong.returncode == 1
    assert "writer lacks the right 'read'" in wrong.stderr.strip().splitlines()[-1]
    right = cli(*export, "--token-file", keys.token_file("reader"))
    assert right.returncode == 0, right.stderr
    assert "answer 42" in right.stdout
    in_url = cli(*export, "--url", f"https://alice:hunter2@127.0.0.1:{tabor.port}")
    assert "--token-file" in in_url.stderr
    assert "hunter2" not in in_url.stderr


def lengthen(url: str) -> None:
    """Have the log be so long that a node rather copies a partition than reads it."""
    log = open_log(url, data_dir=None, partitions=None)
    record = encode_record(NOTHING)
    log.append([Append(p, record) for p in range(log.partitions) for _ in range(SHORT_LOG_RECORDS + 1)]).result(30)
    log.close()


@pytest.mark.kafka
def test_tiers_get_in_to_one_another_and_strangers_do_not(kafka_broker: Broker, keys: Keys) -> None:
    log = f"kafka://{kafka_broker.bootstrap}/doors-{uuid.uuid4().hex[:8]}"
    node_files = ["--node-ca-file", str(keys.authority.file), "--node-cert-file", str(keys.client.cert)]
    node_files += ["--node-key-file", str(keys.client.key)]
    node_flags = ["--node-token-file", keys.token_file("tier"), *node_files]

    def tier(name: str, command: str, *flags: str) -> Process:
        port = free_port()
        where = ["--log", log, "--listen", f"127.0.0.1:{port}", "--web-config", str(keys.web_config)]
        process = Process(name, tabor_command(command, *where, *flags), keys.folder, port)
        process.tls = keys.context()
        return process

    def node(name: str, *, flags: list[str] = node_flags) -> Process:
        folder = str(keys.folder / f"data-{name}")
        return tier(name, "storage-node", "--name", name, "--data-dir", folder, "--replicas", "2", *flags)

    ingest = tier("ingest", "ingest", "--partitions", "2")
    a, b = node("a"), node("b")
    query = tier("query", "query", *node_flags)
    stranger = tier("stranger", "query", "--node-token-file", keys.token_file("reader"), *node_files)
    with running(ingest, a, b, query, stranger):
        for process in (ingest, a):
            process.start_and_wait()
        for process in (query, stranger):
            process.start()
        load = Load()
        load.start(keys.open(ingest, "writer"))
        wait_for_acknowledged(load, 2_000)
        load.stop()
        for process in (query, stranger):
            process.wait_until_ready()
        lengthen(log)
        b.start_and_wait()
        assert load.check(keys.open(query, "reader")) >= 2_000
        wait_for(lambda: "partition_copied" in b.output, "node b has copied partitions of node a")

        status, body = keys.open(stranger, "reader").get("/api/v1/query", query="count(load)")
        assert status == 503
        assert b"reader lacks the right 'node'" in body

        def verify(*flags: str) -> subprocess.CompletedProcess[str]:
            return cli("cluster", "verify", "--log", log, "--wait", "20s", *flags)

        good = wait_for(
            lambda: (done := verify(*node_flags)).returncode == 0 and done, "all replicas are there and equal", 60
        )
        assert "2 of 2 partitions" in good.stdout
        bad = verify(*node_files, "--wait", "1s")
        assert bad.returncode == 1
        assert "credentials are missing" in bad.stdout
        for process in (ingest, a, query):
            refuses_strangers(process, keys)
        for process in (ingest, a, b, query, stranger):
            assert not [secret for secret in SECRETS if secret in process.output], process.name


def test_certificates_alone_open_what_their_names_may(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server, reader, tier, stranger = map(authority.sign, ("server", "grafana", "node", "stranger"))
    entries = [("grafana", ["read"]), ("node", ["read", "node"])]
    content = {
        "tls_server_config": mutual_tls(server, authority),
        "client_certs": [{"name": name, "subject": f"CN:{name}", "rights": rights} for name, rights in entries],
    }
    web_config = tmp_path / "web.yml"
    web_config.touch(0o600)
    web_config.write_text(json.dumps(content))
    process = tabor_run(tmp_path, "--web-config", str(web_config))

    def shown(pair: Pair) -> Process:
        process.tls = ssl.create_default_context(cafile=authority.file)
        process.tls.load_cert_chain(*pair)
        return process

    def backed_up(pair: Pair, where: str) -> subprocess.CompletedProcess[str]:
        files = ("--ca-file", authority.file, "--cert-file", pair.cert, "--key-file", pair.key)
        command = tabor_command("backup", where, "--url", f"https://127.0.0.1:{process.port}", *map(str, files))
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    with running(process):
        shown(reader).start_and_wait()
        assert process.request("GET", "/api/v1/query?query=up")[0] == 200
        status, body = process.request("POST", "/api/v1/write", b"")
        assert (status, b"grafana lacks the right 'write'" in body) == (403, True)
        # What nodes ask of one another, over TLS alone.
        assert backed_up(tier, str(tmp_path / "backup")).returncode == 0
        refused = backed_up(reader, str(tmp_path / "other"))
        assert refused.returncode == 1
        assert "lacks the right 'node'" in refused.stderr
        assert shown(stranger).request("GET", "/api/v1/query?query=up")[0] == 401
        # Rights go with the file, for connections that are open too.
        web_config.write_text(json.dumps({**content, "client_certs": content["client_certs"][1:]}))
        shown(reader)
        wait_for(lambda: process.request("GET", "/api/v1/query?query=up")[0] == 401, "it is not let in any more")
