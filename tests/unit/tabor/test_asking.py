"""What commands say when a server does not answer as it should."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from unittest.mock import Mock

import httpx
import pytest
from click.testing import CliRunner

from storage_node.copy_client import CopyForbidden
from tabor.backup import command
from tabor.backup.sources import Source
from tabor.cli.backup import backup
from tabor.remote import Server, Unreachable, what_to_look_at


@pytest.fixture
def silent() -> Iterator[str]:
    """Address of a server that hangs up on whatever it hears, as one that waits for TLS does."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def hang_up() -> None:
            connection, _ = listening.accept()
            connection.recv(1000)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        host, port = listening.getsockname()
        yield f"{host}:{port}"
        thread.join()


def test_a_server_that_wants_tls_is_to_be_asked_with_it(silent: str) -> None:
    with (
        Server(f"http://{silent}") as server,
        pytest.raises(Unreachable, match="if it speaks TLS, write --url https://"),
    ):
        server.data("/api/v1/status/tenants", {})


def test_an_address_without_a_scheme_gets_one() -> None:
    with (
        Server("localhost:9080") as server,
        pytest.raises(Unreachable, match="write --url http://localhost:9080 or"),
    ):
        server.data("/api/v1/status/tenants", {})


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", "--ca-file"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", "does not speak TLS"),
        ("[Errno 111] Connection refused", "does Tabor run there"),
    ],
)
def test_what_tls_has_against_a_server_leads_to_the_flag(error: str, advice: str) -> None:
    assert advice in what_to_look_at("https://localhost:9080", httpx.ConnectError(error))


def test_a_mistyped_command_writes_no_backup_of_that_name() -> None:
    done = CliRunner().invoke(backup, ["verfy", "/mnt/backups"])
    assert done.exit_code == 2
    assert "No such command 'verfy'. Did you mean 'verify'?" in done.output


def test_a_backup_that_is_forbidden_is_not_asked_for_again() -> None:
    asked = []

    def freeze(partition: int) -> None:
        asked.append(partition)
        raise CopyForbidden("HTTP status 403")

    with pytest.raises(CopyForbidden):
        command._write(Mock(), Source(1, freeze), 0)  # type: ignore[arg-type]
    assert asked == [0]
