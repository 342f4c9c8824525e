"""Secrets are planted wherever they may be, and looked for in whatever Tabor says."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.test_doors import PASSWORD, RIGHTS, SECRETS, Keys, make_keys
from tests.processes import Process, running, tabor_command, tabor_run

pytestmark = pytest.mark.acceptance

PLANTED = "planted-hunter2"
IN_ENVIRONMENT = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "OTEL_EXPORTER_OTLP_HEADERS", "KAFKA_PASSWORD")


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, Keys]]:
    folder = tmp_path_factory.mktemp("secrets")
    keys = make_keys(folder)
    process = tabor_run(folder, "--web-config", str(keys.web_config), "--log-level", "debug")
    process.tls = keys.context()
    with pytest.MonkeyPatch.context() as patched, running(process):
        for name in IN_ENVIRONMENT:
            patched.setenv(name, f"authorization={PLANTED}")
        process.start_and_wait()
        yield process, keys


def secrets_in(text: str, keys: Keys) -> list[str]:
    """What of all that is secret is in a text, hashes of tokens and passwords included."""
    config = json.loads(keys.web_config.read_text())
    hashes = [token["sha256"] for token in config["tokens"]] + list(config["basic_auth_users"].values())
    encoded = [base64.b64encode(secret.encode()).decode() for secret in SECRETS]
    key = (keys.folder / "server.key").read_text().splitlines()[1]
    return [secret for secret in (*SECRETS, *hashes, *encoded, key, PLANTED) if secret in text]


@pytest.mark.parametrize("who", RIGHTS)
def test_no_route_shows_a_secret_to_anyone(locked: tuple[Process, Keys], who: str) -> None:
    process, keys = locked
    keys.open(process, "reader")
    paths = json.loads(process.request("GET", "/openapi.json")[1])["paths"]
    keys.open(process, who)
    for path in (*paths, "/", "/nothing", "/api/v1/nothing"):
        if "profile" in path:
            continue  # takes seconds, and shows names of functions
        for query in ("", "?query=up&start=1&end=2&step=1&match[]=up", "?query=(&match[]=("):
            asked = path.replace("{name}", "job").replace("{id}", "1") + query
            status, body = process.request("GET", asked)
            assert secrets_in(body.decode(errors="replace"), keys) == [], (asked, status)


@pytest.mark.parametrize(
    "authorization",
    [
        f"Bearer {PLANTED}",
        f"Bearer secret-of-writer{PLANTED}",
        PLANTED,
        "Basic " + base64.b64encode(f"alice:{PLANTED}".encode()).decode(),
        "Basic " + base64.b64encode(f"{PLANTED}:{PASSWORD}".encode()).decode(),
        f"Basic {PLANTED}!",
    ],
)
def test_wrong_credentials_are_not_said_back(locked: tuple[Process, Keys], authorization: str) -> None:
    process, keys = locked
    process.headers = {"Authorization": authorization}
    for path in ("/api/v1/query?query=up", "/metrics", "/nothing"):
        status, body = process.request("GET", path)
        assert status == 401
        assert secrets_in(body.decode(), keys) == []


def test_nothing_of_all_that_is_in_the_logs(locked: tuple[Process, Keys]) -> None:
    process, keys = locked
    assert process.stop() == 0
    assert "configuration" in process.output
    assert secrets_in(process.output, keys) == []


@pytest.mark.parametrize("source", ["flag", "environment", "config file", "options file"])
@pytest.mark.parametrize(
    "command",
    [("query",), ("ingest",), ("cluster", "status"), ("log", "inspect", "--partition", "0", "--from", "0")],
)
def test_a_password_of_kafka_is_not_said_back(
    tmp_path: Path, source: str, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"kafka://127.0.0.1:9/p?sasl.password={PLANTED}"
    arguments: list[str] = []
    if source == "options file":
        file = tmp_path / "kafka.properties"
        file.write_text(f"sasl.password={PLANTED}\nssl.key.password={PLANTED}\nno.such.option={PLANTED[:7]}\n")
        url = f"kafka://127.0.0.1:9/p?options-file={file}"
    if source == "environment":
        monkeypatch.setenv("TABOR_LOG", url)
    elif source == "config file":
        config = tmp_path / "tabor.toml"
        config.write_text(f'log = "{url}"\n')
        arguments = ["--config", str(config)]
    else:
        arguments = ["--log", url]
    if command[0] in ("query", "ingest"):
        arguments += ["--listen", "127.0.0.1:0"]
    done = subprocess.run(tabor_command(*command, *arguments), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert PLANTED not in done.stdout + done.stderr
    expected = "no.such.option" if source == "options file" else "options-file=FILE"
    assert expected in done.stderr, done.stderr


@pytest.mark.parametrize("source", ["TABOR_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT", "flag"])
@pytest.mark.parametrize("url", [f"http://user:{PLANTED}@127.0.0.1:9", f"http://127.0.0.1:9/?token={PLANTED}"])
def test_credentials_for_a_collector_are_not_said_back(
    tmp_path: Path, source: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0"]
    if source == "flag":
        arguments += ["--otlp-endpoint", url]
    else:
        monkeypatch.setenv(source, url)
    done = subprocess.run(tabor_command("run", *arguments), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert PLANTED not in done.stdout + done.stderr
    assert "OTEL_EXPORTER_OTLP_HEADERS" in done.stderr, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("backup", f"s3://key:{PLANTED}@bucket/prefix"),
        ("backup", f"s3://bucket/prefix?secret={PLANTED}"),
        ("backup", "{folder}", "--url", f"http://user:{PLANTED}@127.0.0.1:9"),
        ("restore", f"s3://key:{PLANTED}@bucket/prefix", "--data-dir", "{folder}"),
        ("run", "--backup", f"s3://key:{PLANTED}@bucket/p", "--data-dir", "{folder}", "--listen", "127.0.0.1:0"),
    ],
)
def test_credentials_for_backups_are_not_said_back(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    line = tabor_command(*(part.format(folder=tmp_path) for part in arguments))
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert PLANTED not in done.stdout + done.stderr
    assert "where others can see them" in done.stderr, done.stderr
