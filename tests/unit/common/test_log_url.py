"""Where a log is, as one string."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import StartupError
from common.log.base import LOCAL_PARTITIONS
from common.log.url import KafkaUrl, open_log, parse_kafka_url, redact


def test_local_lies_in_a_folder_of_the_data_folder(tmp_path: Path) -> None:
    log = open_log("local", data_dir=tmp_path, partitions=None)
    assert log.partitions == LOCAL_PARTITIONS
    log.close()
    assert (tmp_path / "log").is_dir()


def test_local_without_a_folder_is_refused() -> None:
    with pytest.raises(StartupError, match="needs a data folder"):
        open_log("local", data_dir=None, partitions=1)


def test_a_kafka_url_gives_brokers_prefix_and_options() -> None:
    url = "kafka://a:9092,b.example:9093,[::1]:9094/prod?security.protocol=SASL_SSL&sasl.username=p%26%3D%2B"
    assert parse_kafka_url(url) == KafkaUrl(
        "a:9092,b.example:9093,[::1]:9094", "prod", {"security.protocol": "SASL_SSL", "sasl.username": "p&=+"}
    )


def test_options_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "kafka.properties"
    file.write_text('# of the ingestor\n\nsasl.username = ingest\nsasl.password=p=&"# ä \n')
    found = parse_kafka_url(f"kafka://h:1/p?security.protocol=SASL_SSL&options-file={file}")
    assert found.options == {
        "security.protocol": "SASL_SSL",
        "sasl.username": "ingest",
        "sasl.password": 'p=&"# ä',
    }


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"sasl.username=u\nhunter2\n", "line 2: name=value is expected"),
        (b"Hunter2 = ", "line 1: name=value is expected"),
        (b"HUNTER2==", "line 1: name=value is expected"),
        (b"sasl.password=a\nsasl.password=hunter2", "line 2: sasl.password is there twice"),
        (b"sasl.password=hunter2\nclient.dns.lookup=x", "client.dns.lookup is both in the log"),
        (b"sasl.password=hunter2\xff", "not UTF-8"),
        (b"#" * (1 << 17), "more than 65536 bytes"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_file_of_options_that_cannot_be_read_is_named_without_its_secrets(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    file = tmp_path / "kafka.properties"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StartupError, match=reason) as refused:
        parse_kafka_url(f"kafka://h:1/p?client.dns.lookup=y&options-file={file}")
    assert str(file) in str(refused.value)
    assert "hunter2" not in str(refused.value).lower()


@pytest.mark.parametrize(
    "option", ["sasl.password", "ssl.key.password", "%73asl.passwor%64", "ssl.key.pem", "sasl.oauthbearer.config"]
)
def test_a_secret_in_the_url_is_refused_with_where_it_belongs(option: str) -> None:
    with pytest.raises(StartupError, match=r"options-file=FILE") as refused:
        parse_kafka_url(f"kafka://h:1/p?{option}=hunter2")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "Local",
        "file:///x",
        "kafka://",
        "kafka:///prefix",
        "kafka://host/prefix",
        "kafka://host:9092",
        "kafka://host:9092/",
        "kafka://host:9092/a/b",
        "kafka://host:9092/a b",
        "kafka://host:9092,/p",
        "kafka://host:9092/p?novalue",
        "kafka://host:9092/p?a=1&a=2",
        "kafka://host:9092/p#x",
        "kafka://[::1/p",
    ],
)
def test_anything_else_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(StartupError) as refused:
        open_log(url, data_dir=Path("unused"), partitions=1)
    assert "\n" not in str(refused.value)


def test_a_refusal_shows_no_secret() -> None:
    with pytest.raises(StartupError) as refused:
        open_log("kafka://host/p?sasl.password=hunter2", data_dir=None, partitions=1)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("local", "local"),
        ("kafka://h:1/p?sasl.username=u&sasl.password=x", "kafka://h:1/p?sasl.username=u&sasl.password=***"),
        ("kafka://h:1/p?ssl.key.password=x&acks=1", "kafka://h:1/p?ssl.key.password=***&acks=1"),
        ("kafka://h:1/p?ssl.key.pem=x", "kafka://h:1/p?ssl.key.pem=***"),
        ("kafka://h:1/p?sasl.oauthbearer.client.secret=x", "kafka://h:1/p?sasl.oauthbearer.client.secret=***"),
        ("kafka://user:x@h:1/p", "kafka://user:***@h:1/p"),
        ("https://user:x@h:1/p", "https://***@h:1/p"),
        ("https://x@h", "https://***@h"),
        ("https://user:x/y?z@h/p", "https://***@h/p"),
        ("https://h/p?api-key=x&b", "https://h/p?***"),
        ("s3://key:x@bucket/p", "s3://***@bucket/p"),
        ("s3://bucket/p", "s3://bucket/p"),
    ],
)
def test_secrets_are_hidden(url: str, shown: str) -> None:
    assert redact(url) == shown


def test_a_wrong_kafka_option_is_named() -> None:
    with pytest.raises(StartupError, match=r"no\.such\.option"):
        open_log("kafka://127.0.0.1:9/p?no.such.option=1", data_dir=None, partitions=1)
    with pytest.raises(StartupError, match="'acks' cannot be set"):
        open_log("kafka://127.0.0.1:9/p?acks=1", data_dir=None, partitions=1)
