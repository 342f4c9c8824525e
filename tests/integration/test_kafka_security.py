"""Kafka with passwords, certificates and ACLs: each tier with its own user and the rights of docs/security.md."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AclBinding, AdminClient

from common.control.kafka import KafkaControlTopic
from common.errors import StartupError
from common.log.base import Append
from common.log.kafka import KafkaLog
from common.log.url import open_log
from tests.kafka_broker import NoBroker
from tests.load import START_MS, Load, wait_for_acknowledged
from tests.processes import Process, free_port, running, tabor_command, wait_for
from tests.secured_broker import SecuredBroker, acls_of, password_of

pytestmark = pytest.mark.kafka

PREFIX = "metrics"
INGEST, NODE, QUERY, OPERATOR = USERS = ("tabor-ingest", "tabor-node", "tabor-query", "tabor-operator")
NOBODY = "tabor-nobody"
DOCUMENT = Path(__file__).parents[2] / "docs" / "security.md"


def documented_acls() -> list[AclBinding]:
    """What the commands in the document grant."""
    commands = re.findall(r"^kafka-acls .*$", DOCUMENT.read_text(), re.MULTILINE)
    return [acl for command in commands for acl in acls_of(command)]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    try:
        broker = SecuredBroker(tmp_path_factory.mktemp("secured"))
        broker.start()
    except NoBroker as error:
        pytest.fail(str(error), pytrace=False)
    try:
        broker.add_users([*USERS, NOBODY])
        broker.grant(documented_acls())
        done = run(broker, OPERATOR, "cluster", "create-topics", "--partitions", "4", "--replicas", "1")
        assert done.returncode == 0, done.stderr
        yield broker
    finally:
        broker.remove()


def url_of(broker: SecuredBroker, user: str, *, mutual: bool = False) -> str:
    """The log's URL, with a file that holds the user's password, or names its certificate."""
    options = broker.certificate_options(user) if mutual else broker.options(user)
    file = broker.ca_file.parent / f"{user}-{'certificate' if mutual else 'password'}.properties"
    file.write_text("".join(f"{name}={value}\n" for name, value in options.items()))
    file.chmod(0o600)
    return f"kafka://{broker.mutual if mutual else broker.bootstrap}/{PREFIX}?options-file={file}"


def run(broker: SecuredBroker, user: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = tabor_command(*arguments, "--log", url_of(broker, user))
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def tier(
    broker: SecuredBroker, user: str, folder: Path, command: str, *flags: str, mutual: bool = False
) -> Process:
    port = free_port()
    url = url_of(broker, user, mutual=mutual)
    line = tabor_command(command, "--log", url, "--listen", f"127.0.0.1:{port}", *flags)
    return Process(f"{command}-{user}", line, folder, port)


def test_every_tier_and_command_works_with_the_documented_rights_of_its_own_user(
    broker: SecuredBroker, tmp_path: Path
) -> None:
    node_flags = ("--name", "a", "--data-dir", str(tmp_path / "a"), "--audit-every", "1s")
    ingest = tier(broker, INGEST, tmp_path, "ingest")
    node = tier(broker, NODE, tmp_path, "storage-node", *node_flags)
    query = tier(broker, QUERY, tmp_path, "query", mutual=True)
    processes = (ingest, node, query)
    with running(*processes):
        for process in processes:
            process.start()
        for process in processes:
            process.wait_until_ready()
        load = Load(n_batches=1)
        load.start(ingest)
        wait_for_acknowledged(load, 500)
        load.stop()
        assert load.check(query) >= 500
        status, body = ingest.request(
            "POST", "/api/v1/admin/tsdb/delete_series?match[]=load%7Bseries%3D%220001%22%7D"
        )
        assert status == 204, body
        at = {"time": str(START_MS / 1000 + 1), "lookback_delta": "1h"}
        wait_for(
            lambda: query.data("/api/v1/query", query="count(load)", **at)["result"][0]["value"][1] == "49",
            "the deletion is carried out",
        )
        audited = re.compile(rb"tabor_storage_node_differing_replicas 0")
        wait_for(lambda: audited.search(node.get("/metrics")[1]), "the node has compared its replicas")

        with ThreadPoolExecutor(3) as threads:
            commands = [
                threads.submit(run, broker, user, *arguments)
                for user, *arguments in (
                    (OPERATOR, "cluster", "status"),
                    (QUERY, "cluster", "status"),
                    (OPERATOR, "cluster", "verify"),
                    (OPERATOR, "log", "inspect", "--partition", "0", "--from", "0"),
                )
            ]
        for command in commands:
            done = command.result()
            assert done.returncode == 0, done.stderr
        checkup = run(broker, OPERATOR, "doctor")
        assert f"{PREFIX}.control timestamps" in checkup.stdout, checkup.stdout + checkup.stderr
        assert "cannot be read" not in checkup.stdout
        drained = run(broker, OPERATOR, "cluster", "drain", "a", "--force", "--wait", "1ms")
        assert "still has 4 partitions" in drained.stderr, drained.stderr
        assert run(broker, OPERATOR, "cluster", "drain", "a", "--undo").returncode == 0
        for process in processes:
            for path in ("/metrics", "/api/v1/status/config", "/api/v1/status/flags", "/-/ready"):
                said = process.get(path)[1].decode()
                assert not [user for user in USERS if password_of(user) in said]
            assert process.stop() == 0, process.output
            for user in USERS:
                assert password_of(user) not in process.output
            assert "authorization" not in process.output.lower()


@pytest.mark.parametrize(
    ("user", "topic", "rights", "missing"),
    [
        (INGEST, "samples", {"reads": True}, "Read"),
        (INGEST, "control", {"writes": False}, "Read"),
        (QUERY, "samples", {"reads": False}, "Write"),
        (QUERY, "samples", {"writes": False}, "Read"),
        (QUERY, "control", {}, "Write"),
        (NOBODY, "samples", {}, "Read and Write"),
        (NOBODY, "samples", {"reads": False, "writes": False}, "Describe"),
        (NOBODY, "control", {}, "Read and Write"),
    ],
)
@pytest.mark.parametrize("mutual", [False, True])
def test_a_right_that_is_missing_is_named_at_the_start(
    broker: SecuredBroker, user: str, topic: str, rights: dict[str, bool], missing: str, mutual: bool
) -> None:
    bootstrap = broker.mutual if mutual else broker.bootstrap
    options = broker.certificate_options(user) if mutual else broker.options(user)

    def open_it() -> None:
        if topic == "samples":
            KafkaLog(bootstrap, PREFIX, None, options=options, create=False, **rights)
        else:
            KafkaControlTopic(bootstrap, PREFIX, options=options, **rights)

    before = time.monotonic()
    with pytest.raises(StartupError) as refused:
        open_it()
    assert time.monotonic() - before < 8.0
    message = str(refused.value)
    who = f"the owner of {broker.ca_file.parent}/{user}.pem" if mutual else f"the user {user!r}"
    assert f"{who} lacks the right {missing} on the topic '{PREFIX}.{topic}' at {bootstrap}" in message
    assert "\n" not in message
    assert password_of(user) not in message
    # What it says grants the right, and no other.
    if not mutual:
        [command] = re.findall(r"(kafka-acls .*) \(docs/security.md\)", message)
        granted = acls_of(command + " --command-config x")
        assert {acl.operation.name.capitalize() for acl in granted} == set(missing.split(" and "))


def test_a_tier_that_may_not_make_its_topic_says_what_does(broker: SecuredBroker) -> None:
    command = "kafka-acls --bootstrap-server b --command-config c --add"
    for topic in ("absent.samples", "absent.control"):
        rights = f"--allow-principal User:{NOBODY} --operation Read --operation Write --topic {topic}"
        broker.grant(acls_of(f"{command} {rights}"))
    options = broker.options(NOBODY)
    reason = f"no topic 'absent.{{}}'.*and the user '{NOBODY}' lacks the right Create.*tabor cluster create-topics"
    with pytest.raises(StartupError, match=reason.format("samples")):
        KafkaLog(broker.bootstrap, "absent", 4, options=options)
    with pytest.raises(StartupError, match=reason.format("control")):
        KafkaControlTopic(broker.bootstrap, "absent", options=options)


def wrong_password(broker: SecuredBroker) -> dict[str, str]:
    return {**broker.options(INGEST), "sasl.password": "hunter2"}


def unknown_ca(broker: SecuredBroker) -> dict[str, str]:
    return {name: value for name, value in broker.options(INGEST).items() if name != "ssl.ca.location"}


def no_certificate(broker: SecuredBroker) -> dict[str, str]:
    return {"security.protocol": "SSL", "ssl.ca.location": str(broker.ca_file)}


@pytest.mark.parametrize(
    ("options", "mutual", "cause"),
    [
        (wrong_password, False, "let the user 'tabor-ingest' in: .*invalid credentials.*see .*sasl.password"),
        (unknown_ca, False, "let the user 'tabor-ingest' in: .*certificate verify failed.*see ssl.ca.location"),
        (no_certificate, True, "let an anonymous user in: .*certificate required.*see .*ssl.certificate.location"),
    ],
)
def test_who_is_not_let_in_hears_why_at_once(
    broker: SecuredBroker, options: object, mutual: bool, cause: str
) -> None:
    assert callable(options)
    bootstrap = broker.mutual if mutual else broker.bootstrap
    before = time.monotonic()
    with pytest.raises(StartupError, match=cause) as refused:
        KafkaLog(bootstrap, PREFIX, None, options=options(broker))
    assert time.monotonic() - before < 5.0
    assert bootstrap in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_the_command_line_says_it_in_one_line(broker: SecuredBroker) -> None:
    done = run(broker, QUERY, "cluster", "drain", "a")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "the user 'tabor-query' lacks the right Write on the topic 'metrics.control'" in done.stderr


def test_the_broker_itself_refuses_what_a_user_may_not(broker: SecuredBroker) -> None:
    """The rights are Kafka's to keep, whatever Tabor asks of itself."""
    errors: list[object] = []
    producer = Producer({**broker.options(QUERY), "bootstrap.servers": broker.bootstrap, "log_level": 0})
    producer.produce(f"{PREFIX}.samples", value=b"x", partition=0, on_delivery=lambda e, _: errors.append(e))
    producer.flush(20.0)
    assert "authorization failed" in str(errors[0])
    for user in USERS:
        admin = AdminClient({**broker.options(user), "bootstrap.servers": broker.bootstrap, "log_level": 0})
        for name in (f"{PREFIX}.samples", f"{PREFIX}.control"):
            with pytest.raises(KafkaException, match="authorization failed"):
                admin.delete_topics([name])[name].result(20.0)


def test_a_producer_in_python_needs_the_right_to_write_alone(broker: SecuredBroker) -> None:
    log = open_log(url_of(broker, INGEST), data_dir=None, partitions=None, reads=False)
    try:
        # Not a record of Tabor's, which storage nodes count and leave out.
        assert log.append([Append(3, b"not a record")]).result(20.0)[0] >= 0
    finally:
        log.close()
