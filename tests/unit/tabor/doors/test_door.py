"""The door of a real server: TLS, certificates that change, files that break, and what is refused at the start."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import prometheus_client
import pytest
import uvloop

from common.calling import Caller, CallerFiles
from common.errors import RetryableError, StartupError
from tabor import serving as serving_module
from tabor.doors import door as door_module
from tabor.doors.door import Door
from tabor.serving import Entrance, build_app, listen, serving
from tabor.values import Address
from tests.certificates import Authority, Pair

LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [uvloop.new_event_loop, asyncio.new_event_loop]


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_module, "LOOK_EVERY_S", 0.01)


class Files:
    """A web configuration file with what it names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.server = self.authority.sign("server")
        self.path = folder / "web.yml"
        self.tls = f"tls_server_config: {{cert_file: {self.server.cert}, key_file: {self.server.key}}}\n"

    def say(self, *tokens: str, tls: str | None = None, rights: str = "[read, admin]") -> None:
        lines = [self.tls if tls is None else tls, "tokens:\n" if tokens else ""]
        for token in tokens:
            digest = hashlib.sha256(token.encode()).hexdigest()
            lines.append(f'  - {{name: {token}, sha256: "{digest}", rights: {rights}}}\n')
        new = self.folder / "web.new"
        new.write_text("".join(lines))
        new.chmod(0o600)
        new.rename(self.path)

    def client_ca(self, authority: Authority) -> str:
        return self.tls.replace(
            "}", f", client_auth_type: RequireAndVerifyClientCert, client_ca_file: {authority.file}}}"
        )


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@contextlib.asynccontextmanager
async def served(door: Door) -> AsyncIterator[Entrance]:
    app: Any = build_app(lambda: (True, {}))
    with listen(Address("127.0.0.1", 0), door) as entrance:
        async with serving(app, entrance):
            yield entrance


async def ask(
    entrance: Entrance, ca: Path, token: str = "one", client: Pair | None = None, path: str = "/metrics"
) -> int:
    """The status of a request on a connection of its own."""
    context = ssl.create_default_context(cafile=ca)
    if client is not None:
        context.load_cert_chain(*client)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(verify=context, trust_env=False) as http:
        return (await http.get(entrance.url + path, headers=headers)).status_code


async def until(condition: Callable[[], Any], what: str) -> None:
    async with asyncio.timeout(10):
        while True:
            value = condition()
            if value if isinstance(value, bool) else await value:
                return
            await asyncio.sleep(0.01)
    raise AssertionError(what)


def reloads(outcome: str) -> float:
    return prometheus_client.REGISTRY.get_sample_value("tabor_door_reloads_total", {"outcome": outcome}) or 0.0


def run(body: Any, loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(body)


@pytest.mark.parametrize("loop", LOOPS)
def test_tokens_come_and_go_without_a_restart(files: Files, loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    files.say("one")

    async def body() -> None:
        async with served(Door(files.path)) as entrance:
            assert await ask(entrance, files.authority.file) == 200
            assert await ask(entrance, files.authority.file, "two") == 401
            done = reloads("done")
            files.say("two")
            await until(lambda: reloads("done") > done, "the file is read again")
            assert await ask(entrance, files.authority.file) == 401
            assert await ask(entrance, files.authority.file, "two") == 200

    run(body(), loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_new_connections_get_a_renewed_certificate(
    files: Files, tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    files.say("one")
    other = Authority(tmp_path, "other")

    async def body() -> None:
        async with served(Door(files.path)) as entrance:
            assert await ask(entrance, files.authority.file) == 200
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await ask(entrance, other.file)
            done = reloads("done")
            files.server.replace_by(other.sign("renewed"))
            await until(lambda: reloads("done") > done, "the certificate is read again")
            assert await ask(entrance, other.file) == 200
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await ask(entrance, files.authority.file)

    run(body(), loop)


def test_only_certificates_of_the_authority_get_in_and_it_can_be_changed(files: Files, tmp_path: Path) -> None:
    first, second = Authority(tmp_path, "first"), Authority(tmp_path, "second")
    mine, others = first.sign("mine"), second.sign("others")
    files.say(tls=files.client_ca(first))

    async def body() -> None:
        door = Door(files.path)
        async with served(door) as entrance:

            async def refused(client: Pair | None) -> bool:
                try:
                    await ask(entrance, files.authority.file, "", client)
                except httpx.TransportError:
                    return True
                return False

            assert not await refused(mine)
            assert await refused(others)
            assert await refused(None)
            done = reloads("done")
            first.file.write_bytes(second.file.read_bytes())
            await until(lambda: reloads("done") > done, "the authority is read again")
            assert not await refused(others)
            assert await refused(mine)

    run(body())


def test_versions_before_1_2_are_not_spoken(files: Files) -> None:
    files.say("one")

    async def body() -> None:
        async with served(Door(files.path)) as entrance:
            old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
            old.set_ciphers("ALL:@SECLEVEL=0")
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
            with pytest.raises(httpx.ConnectError):
                async with httpx.AsyncClient(verify=old, trust_env=False) as http:
                    await http.get(entrance.url + "/-/healthy")

    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        run(body())


def test_who_does_not_finish_the_handshake_is_hung_up_on(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_module, "HANDSHAKE_S", 0.2)
    files.say("one")

    async def body() -> None:
        async with served(Door(files.path)) as entrance:
            for begin in (b"", b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\n\r\n"):
                reader, writer = await asyncio.open_connection("127.0.0.1", entrance.address.port)
                try:
                    writer.write(begin)
                    async with asyncio.timeout(5):
                        with contextlib.suppress(ConnectionError):
                            await reader.read()
                finally:
                    # Else the server would wait for it when it stops.
                    writer.transport.abort()
            assert await ask(entrance, files.authority.file) == 200

    run(body())


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("tokens: [", "is not YAML"),
        ("tokns: []", "tokns is unknown"),
        ("", "tls_server_config came or went"),
    ],
)
def test_a_file_that_breaks_leaves_the_old_one_in_force(
    files: Files, capfd: pytest.CaptureFixture[str], broken: str, said: str
) -> None:
    files.say("one")

    async def body() -> None:
        async with served(Door(files.path)) as entrance:
            refused, done = reloads("refused"), reloads("done")
            files.path.write_text(broken)
            await until(lambda: reloads("refused") > refused, "the file is refused")
            assert prometheus_client.REGISTRY.get_sample_value("tabor_door_config_current") == 0
            assert await ask(entrance, files.authority.file) == 200
            files.say("two")
            await until(lambda: reloads("done") > done, "the mended file is read")
            assert prometheus_client.REGISTRY.get_sample_value("tabor_door_config_current") == 1
            assert await ask(entrance, files.authority.file, "two") == 200
            assert reloads("refused") == refused + 1

    run(body())
    assert said in capfd.readouterr().out


def test_a_file_that_goes_away_while_it_is_read_does_not_end_the_looking(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.say("one")
    make = door_module.server_context
    attempts: list[int] = []

    def at_first_gone(tls: Any) -> ssl.SSLContext:
        attempts.append(1)
        if len(attempts) == 1:
            raise FileNotFoundError(2, "No such file or directory")
        return make(tls)

    async def body() -> None:
        async with served(Door(files.path)) as entrance:
            monkeypatch.setattr(door_module, "server_context", at_first_gone)
            refused, done = reloads("refused"), reloads("done")
            files.say("two")
            await until(lambda: reloads("refused") > refused, "the attempt is counted")
            files.say("three")
            await until(lambda: reloads("done") > done, "the next change is taken")
            assert await ask(entrance, files.authority.file, "three") == 200

    run(body())


def test_a_key_that_does_not_fit_is_taken_when_it_does(files: Files) -> None:
    files.say("one")
    renewed = files.authority.sign("renewed")

    async def body() -> None:
        async with served(Door(files.path)) as entrance:
            refused, done = reloads("refused"), reloads("done")
            renewed.cert.rename(files.server.cert)
            await until(lambda: reloads("refused") > refused, "the certificate without its key is refused")
            assert await ask(entrance, files.authority.file) == 200
            renewed.key.rename(files.server.key)
            await until(lambda: reloads("done") > done, "both are taken")
            assert await ask(entrance, files.authority.file) == 200

    run(body())


def test_when_the_certificate_ends_is_on_metrics(files: Files) -> None:
    def shown() -> float:
        name = "tabor_door_certificate_expires_timestamp_seconds"
        return prometheus_client.REGISTRY.get_sample_value(name) or 0.0

    files.say("one")
    door = Door(files.path)
    assert shown() == pytest.approx(time.time() + 30 * 86_400, abs=120)
    files.server.replace_by(files.authority.sign("renewed", days=90))
    door.reload_if_changed()
    assert shown() == pytest.approx(time.time() + 90 * 86_400, abs=120)
    files.server.replace_by(files.authority.sign("ended", days=-1))
    door.reload_if_changed()
    assert shown() == 0.0


@contextlib.contextmanager
def bound(host: str) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as sock:
        yield sock


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_to_listen_everywhere_needs_a_lock_or_insistence(files: Files, host: str) -> None:
    with bound(host) as sock:
        with pytest.raises(
            StartupError, match=r"can be reached from other machines.*--web-config FILE.*--insecure"
        ):
            Door().check_exposure(sock)
        files.say()
        with pytest.raises(StartupError, match=r"web\.yml has neither tokens nor users"):
            Door(files.path).check_exposure(sock)
        Door(insecure=True).check_exposure(sock)
        files.say("one")
        Door(files.path).check_exposure(sock)
        files.say(tls=files.client_ca(files.authority))
        Door(files.path).check_exposure(sock)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1"])
def test_to_listen_on_loopback_needs_nothing(host: str) -> None:
    with bound(host) as sock:
        Door().check_exposure(sock)


def test_a_reload_does_not_open_what_others_can_reach(files: Files) -> None:
    files.say("one")
    door = Door(files.path)
    with bound("0.0.0.0") as sock:
        door.check_exposure(sock)
    refused = reloads("refused")
    files.say()
    door.reload_if_changed()
    assert reloads("refused") == refused + 1
    assert "1 token" in door.describe()


def test_what_is_wrong_with_certificates_is_said_at_the_start(files: Files, tmp_path: Path) -> None:
    files.say("one")
    good = files.server.key.read_bytes()
    files.server.key.write_bytes(files.authority.sign("other").key.read_bytes())
    with pytest.raises(StartupError, match=r"server\.key is not the key of the certificate in .*server\.pem"):
        Door(files.path)
    files.server.key.write_bytes(files.authority.sign("locked", password=b"secret").key.read_bytes())
    with pytest.raises(StartupError, match=r"server\.key is locked with a password"):
        Door(files.path)
    files.server.key.write_bytes(b"nonsense")
    with pytest.raises(StartupError, match=r"no certificate and key in PEM form in .*server\.key"):
        Door(files.path)
    files.server.key.unlink()
    with pytest.raises(StartupError, match=r"cannot read .*server\.key: No such file"):
        Door(files.path)
    files.server.key.write_bytes(good)
    Door(files.path)


def test_a_secret_that_everybody_can_read_is_warned_of(files: Files, capfd: pytest.CaptureFixture[str]) -> None:
    files.say("one")
    Door(files.path)
    assert "secret_file_readable_by_all" not in capfd.readouterr().out
    files.path.chmod(0o644)
    Door(files.path)
    said = capfd.readouterr().out
    assert "secret_file_readable_by_all" in said
    assert f"chmod o-rwx {files.path}" in said


def test_a_caller_shows_its_token_and_trusts_its_authority(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.calling.LOOK_EVERY_S", 0.0)
    files.say("one")
    token = files.folder / "token"
    token.write_text("one\n")
    caller = Caller(CallerFiles(token=token, ca=files.authority.file))

    async def body() -> None:
        async with (
            served(Door(files.path)) as entrance,
            httpx.AsyncClient(verify=caller.context(), trust_env=False) as http,
        ):
            url = caller.url(entrance.url, "/metrics")
            assert (await http.get(url, headers=caller.headers())).status_code == 200
            token.write_text("a-newer-one\n")
            assert caller.headers() == {"Authorization": "Bearer a-newer-one"}
            assert (await http.get(url, headers=caller.headers())).status_code == 401
            token.write_text("")
            assert caller.headers() == {"Authorization": "Bearer a-newer-one"}

    run(body())


def test_a_caller_shows_a_renewed_certificate(
    files: Files, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("common.calling.LOOK_EVERY_S", 0.0)
    first, second = Authority(tmp_path, "first"), Authority(tmp_path, "second")
    files.say(tls=files.client_ca(first))
    mine = second.sign("mine")
    caller = Caller(CallerFiles(ca=files.authority.file, cert=mine.cert, key=mine.key))

    async def asked(entrance: Entrance) -> int:
        headers = caller.headers()
        async with httpx.AsyncClient(verify=caller.context(), trust_env=False) as http:
            return (await http.get(caller.url(entrance.url, "/-/healthy"), headers=headers)).status_code

    async def body() -> None:
        async with served(Door(files.path)) as entrance:
            with pytest.raises(httpx.TransportError):
                await asked(entrance)
            mine.replace_by(first.sign("renewed"))
            assert await asked(entrance) == 200

    run(body())


def test_a_caller_with_an_authority_asks_nobody_without_tls(files: Files) -> None:
    caller = Caller(CallerFiles(ca=files.authority.file))
    assert caller.url("https://10.0.0.1:9080", "/a") == "https://10.0.0.1:9080/a"
    with pytest.raises(RetryableError, match=r"10\.0\.0\.1:9080 has no TLS"):
        caller.url("10.0.0.1:9080", "/a")
    assert Caller().url("10.0.0.1:9080", "/a") == "http://10.0.0.1:9080/a"


@pytest.mark.parametrize("content", [b"", b" \n", b"two words", b"two\nlines", b"caf\xc3\xa9", b"a" * 5000])
def test_a_file_without_one_token_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(StartupError, match="has to hold one token on one line"):
        Caller(CallerFiles(token=file))


def test_a_certificate_comes_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="belong together"):
        Caller(CallerFiles(cert=tmp_path / "cert"))
