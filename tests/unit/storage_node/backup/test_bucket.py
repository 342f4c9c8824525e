"""What is said of a bucket that does not answer, or not as it should."""

from __future__ import annotations

from datetime import timedelta

import pytest

from storage_node.backup import bucket
from storage_node.backup.bucket import BucketTarget
from storage_node.backup.errors import TargetError
from tests.stalling import stub

_XML = (
    b"<?xml version='1.0'?><Error><Code>InvalidAccessKeyId</Code><Message>There is no such key.</Message></Error>"
)
REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(_XML) + _XML
_HEAD = b"HTTP/1.1 200 OK\r\nETag: x\r\nLast-Modified: Sat, 28 Nov 2026 10:00:00 GMT\r\nContent-Length: 1000"
HALF = _HEAD + b"\r\n\r\nabc"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "_TIMEOUT", timedelta(seconds=0.5))
    monkeypatch.setattr(bucket, "_RETRIES", {"max_retries": 1, "retry_timeout": timedelta(seconds=0.2)})
    for name in ("AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("ACCESS_KEY_ID", "key"), ("SECRET_ACCESS_KEY", "hidden"), ("REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)


def said_of(url: str, monkeypatch: pytest.MonkeyPatch, *, gets: bool = False) -> str:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    target = BucketTarget("s3://bucket/prefix")
    with pytest.raises(TargetError) as refused:
        target.get("objects/x") if gets else target.put("objects/x", b"data")
    said = str(refused.value)
    assert said.startswith("objects/x in s3://bucket/prefix: ")
    assert "\n" not in said
    assert "hidden" not in said
    return said.partition("prefix: ")[2]


def test_a_server_that_does_not_answer_is_named_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    with stub() as server:
        assert said_of(server.url, monkeypatch) == f"no answer from {server.url} within 0.5 s"


def test_a_download_that_stalls_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with stub(HALF) as server:
        assert said_of(server.url, monkeypatch, gets=True)


def test_a_server_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said_of("http://127.0.0.1:9", monkeypatch) == "no answer from http://127.0.0.1:9: Connection refused"


def test_wrong_credentials_are_refused_in_the_words_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with stub(REFUSAL) as server:
        assert said_of(server.url, monkeypatch) == "There is no such key. (InvalidAccessKeyId)"
        assert len(server.connections) == 1


def test_missing_credentials_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    # Elsewhere than on EC2 nobody is there.
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    said = said_of("http://127.0.0.1:9", monkeypatch)
    assert said.startswith("no credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set")


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_half_of_the_credentials_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(name)
    with pytest.raises(Exception, match=f"{name} is not set"):
        BucketTarget("s3://bucket/prefix")
