"""`tabor web-config`: what it makes is what a door takes."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from common.calling import read_token
from tabor.cli.web_config import web_config
from tests.certificates import Authority


def run(*arguments: str, given: str = "") -> str:
    result = CliRunner().invoke(web_config, arguments, input=given)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_tokens_and_passwords_that_it_makes_are_taken(tmp_path: Path) -> None:
    pair = Authority(tmp_path).sign("server")
    token = tmp_path / "token"
    path = tmp_path / "web.yml"
    entry = run("token", "--name", "prometheus", "--right", "write", "--tenant", "team-a", "--output", str(token))
    hashed = run("hash-password", given="correct horse\n").strip()
    tls = f"tls_server_config: {{cert_file: {pair.cert}, key_file: {pair.key}}}"
    path.write_text(f"{tls}\nbasic_auth_users: {{alice: {hashed}}}\ntokens:\n{entry}")
    path.chmod(0o600)
    shown = run("check", str(path))
    assert "https, 1 token, 1 user" in shown
    assert "until 20" in shown
    assert "write; tenants team-a" in shown
    assert "read, write" in shown
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert read_token(token) not in entry + shown


def test_a_token_never_replaces_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("precious")
    arguments = ["token", "--name", "a", "--right", "read", "--output", str(tmp_path / "token")]
    result = CliRunner().invoke(web_config, arguments)
    assert result.exit_code == 1
    assert "File exists" in result.output
    assert (tmp_path / "token").read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--name", "a", "--tenant", "team a"], "'--tenant': 'team a' is not the name of a tenant"),
        (["--name", "a:b"], "'--name': 'a:b' is no name"),
    ],
)
def test_a_token_that_no_door_would_take_is_not_made(tmp_path: Path, arguments: list[str], said: str) -> None:
    output = tmp_path / "token"
    result = CliRunner().invoke(web_config, ["token", "--right", "read", "--output", str(output), *arguments])
    assert result.exit_code == 2
    assert said in result.output
    assert not output.exists()


def test_a_password_that_bcrypt_would_cut_off_is_refused() -> None:
    result = CliRunner().invoke(web_config, ["hash-password"], input="a" * 73 + "\n")
    assert result.exit_code == 1
    assert "1 to 72 bytes" in result.output
