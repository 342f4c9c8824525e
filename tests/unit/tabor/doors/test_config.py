"""The web configuration file: what it may hold, and what is said of what it may not."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import bcrypt
import pytest

from common.access import Principal, Right
from common.errors import StartupError
from tabor.doors.config import load
from tabor.doors.tokens import entry, new_token
from tests.certificates import Authority

# Always the same, for names of tests are made of it.
HASH = bcrypt.hashpw(b"secret", b"$2b$04$" + b"abcdefghijklmnopqrstuu").decode()
TOKEN = "ab" * 32
PROMETHEUS_PART = f"""
tls_server_config:
  cert_file: server.pem
  key_file: server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.pem
  min_version: TLS12
  max_version: TLS13
  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]
  prefer_server_cipher_suites: true
http_server_config:
  http2: true
  headers:
    X-Frame-Options: deny
    Strict-Transport-Security: max-age=31536000
basic_auth_users:
  alice: {HASH}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "web.yml"
    path.write_text(text)
    return path


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(StartupError) as refused:
        load(write(folder, text))
    return str(refused.value)


def test_what_prometheus_takes_tabor_takes(tmp_path: Path) -> None:
    pair = Authority(tmp_path).sign("server")
    path = write(tmp_path, PROMETHEUS_PART)
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing; on Debian: apt-get install prometheus"
    subprocess.run([promtool, "check", "web-config", path], check=True, capture_output=True)
    loaded = load(path)
    assert loaded.tls is not None
    assert (loaded.tls.cert, loaded.tls.key) == pair
    assert loaded.tls.client_auth is True
    assert loaded.tls.min_version is ssl.TLSVersion.TLSv1_2
    assert (b"x-frame-options", b"deny") in loaded.headers
    assert loaded.users["alice"].principal == Principal("alice", Right.READ | Right.WRITE)
    assert loaded.locks


def test_tokens_and_users_have_rights_and_tenants(tmp_path: Path) -> None:
    token = new_token()
    text = f"""
basic_auth_users: {{alice: {HASH}, bob: {HASH}}}
users:
  alice: {{rights: [read, admin], tenants: [team-a, team-b]}}
tokens:
{entry(token, "node of Würzburg", ["node"], [])}
  - {{name: prometheus, sha256: "{TOKEN}", rights: [write], tenants: [team-a]}}
"""
    loaded = load(write(tmp_path, text))
    assert loaded.users["alice"].principal == Principal("alice", Right.READ | Right.ADMIN, ("team-a", "team-b"))
    assert loaded.users["bob"].principal.rights == Right.READ | Right.WRITE
    assert set(loaded.tokens.values()) == {
        Principal("node of Würzburg", Right.NODE),
        Principal("prometheus", Right.WRITE, ("team-a",)),
    }


def test_an_empty_file_locks_nothing(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, ""))
    assert not loaded.asks_who
    assert not loaded.locks


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a", "the file has to be a table"),
        ("tokns: []", "tokns is unknown; known are tls_server_config"),
        ("tls_server_config: {cert_file: a}", "tls_server_config.key_file is missing"),
        ("tls_server_config: {cert_file: 5, key_file: b}", "tls_server_config.cert_file has to be a text"),
        ("tls_server_config: {cert: a}", "tls_server_config.cert is unknown"),
        (
            "tls_server_config: {cert_file: a, key_file: b, min_version: TLS11}",
            "tls_server_config.min_version is 'TLS11'; known are TLS12, TLS13",
        ),
        (
            "tls_server_config: {cert_file: a, key_file: b, client_auth_type: RequireAndVerifyClientCert}",
            "tls_server_config.client_ca_file is missing",
        ),
        (
            "tls_server_config: {cert_file: a, key_file: b, client_ca_file: c}",
            "tls_server_config.client_ca_file is of no use without client_auth_type",
        ),
        (
            "tls_server_config: {cert_file: a, key_file: b, client_auth_type: RequireAnyClientCert}",
            "RequireAnyClientCert, which checks nothing",
        ),
        (
            "tls_server_config: {cert_file: a, key_file: b, cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]}",
            "tls_server_config.cipher_suites has 'TLS_RSA_WITH_RC4_128_SHA'",
        ),
        ("http_server_config: {headers: {X-Other: a}}", "http_server_config.headers.X-Other is unknown"),
        (
            'http_server_config: {headers: {X-Frame-Options: "a\\r\\nb: c"}}',
            "characters that a header cannot have",
        ),
        ("basic_auth_users: {alice: plain}", "basic_auth_users.alice is no bcrypt hash"),
        (f"basic_auth_users: {{alice: {HASH.replace('$04$', '$31$')}}}", "a bcrypt cost of 31"),
        (f"basic_auth_users: {{'a:b': {HASH}}}", "basic_auth_users.a:b is no name of a user"),
        ("users: {alice: {rights: [read]}}", "users.alice has no password in basic_auth_users"),
        ("tokens: {a: b}", "tokens has to be a list"),
        (f"tokens: [{{sha256: '{TOKEN}', rights: [read]}}]", "tokens[0].name has to be there"),
        ("tokens: [{name: a, sha256: abc, rights: [read]}]", "tokens[0].sha256 has to be the SHA-256"),
        (f"tokens: [{{name: a, sha256: '{TOKEN}'}}]", "tokens[0].rights is missing; a list of read, write"),
        (f"tokens: [{{name: a, sha256: '{TOKEN}', rights: [root]}}]", "tokens[0].rights has 'root'"),
        (f"tokens: [{{name: a, sha256: '{TOKEN}', rights: [read], tenants: ['a|b']}}]", "'a|b' is not"),
        (f"tokens: [{{name: a, sha256: '{TOKEN}', rights: [read], tenants: []}}]", "leave it out for all tenants"),
        (
            f"tokens: [{{name: a, sha256: &h '{TOKEN}', rights: &r [read]}}, {{name: b, sha256: *h, rights: *r}}]",
            "tokens[1].sha256 is that of the token 'a' too",
        ),
        ("basic_auth_users: {a: b}\nbasic_auth_users: {}", "the key 'basic_auth_users' is there twice (line 1)"),
        ("tokens: [", "is not YAML"),
        ("a: !!python/object:os.system {}", "is not YAML"),
        ("\0", "is not YAML"),
        ("? {a: b}\n: c", "is not YAML"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_key(tmp_path: Path, text: str, said: str) -> None:
    message = refusal(tmp_path, text)
    assert str(tmp_path / "web.yml") in message
    assert said in message
    assert "\n" not in message


def test_a_broken_file_does_not_show_its_secrets(tmp_path: Path) -> None:
    assert "hunter2" not in refusal(tmp_path, "basic_auth_users:\n  alice: hunter2\n")
    assert "hunter2" not in refusal(tmp_path, 'tokens: [{name: a, sha256: "hunter2", rights: [read]}]')
    assert "hunter2" not in refusal(tmp_path, 'tokens: [{name: a, sha256: "hunter2"\n')


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"cannot read .*gone\.yml: No such file"):
        load(tmp_path / "gone.yml")


TLS = (
    "tls_server_config: {cert_file: a, key_file: b, client_auth_type: VerifyClientCertIfGiven, client_ca_file: c}"
)


def test_names_in_certificates_have_rights(tmp_path: Path) -> None:
    loaded = load(
        write(
            tmp_path,
            f"""
{TLS}
client_certs:
  - {{name: tiers, subject: "DNS:node.example", rights: [node]}}
  - {{name: team, subject: "CN:team a", rights: [read], tenants: [a]}}
""",
        )
    )
    assert loaded.asks_who
    assert loaded.certificates == {
        "DNS:node.example": Principal("tiers", Right.NODE),
        "CN:team a": Principal("team", Right.READ, ("a",)),
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("client_certs: [{name: x, subject: 'CN:x', rights: [read]}]", "without client_auth_type"),
        (TLS + "\nclient_certs: [{subject: 'CN:x', rights: [read]}]", "client_certs[0].name has to be there"),
        (TLS + "\nclient_certs: [{name: x, subject: x, rights: [read]}]", "client_certs[0].subject has to be"),
        (TLS + "\nclient_certs: [{name: x, subject: 'CN:', rights: [read]}]", "client_certs[0].subject has to be"),
        (TLS + "\nclient_certs: [{name: x, subject: 'CN:x'}]", "client_certs[0].rights is missing"),
        (TLS + "\nclient_certs: [{name: x, subject: 'CN:x', rights: [all]}]", "client_certs[0].rights has 'all'"),
        (
            TLS + "\nclient_certs:\n- {name: x, subject: 'CN:x', rights: [read]}"
            "\n- {name: y, subject: 'CN:x', rights: [node]}",
            "client_certs[1].subject is that of 'x' too",
        ),
    ],
)
def test_what_is_wrong_about_certificates_is_said(text: str, reason: str, tmp_path: Path) -> None:
    assert reason in refusal(tmp_path, text)
