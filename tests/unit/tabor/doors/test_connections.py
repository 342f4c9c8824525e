"""Hostile connections to a real server: raw bytes over loopback, with limits small enough to be reached."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
import uvloop

from tabor import configs
from tabor.cli.services import run as run_command
from tabor.doors import connections as module
from tabor.doors.connections import Limits
from tabor.doors.door import Door
from tabor.serving import Entrance, listen, serving
from tabor.values import Address
from tests.certificates import Authority

DEADLINE_S = 20.0
SMALL = Limits(
    max_connections=8,
    max_connections_of_peer=6,
    max_head_bytes=4096,
    max_headers=20,
    max_pipelined=4,
    head_s=0.3,
    idle_s=0.5,
    grace_s=0.4,
    min_bytes_per_s=1 << 20,
    max_bodies_bytes=4 << 20,
    max_unread_bytes=256 << 20,
)
PATIENT = Limits(max_head_bytes=4096, max_headers=20, max_pipelined=4, max_bodies_bytes=4 << 20)
"""Only sizes are small: for attacks that must not be ended by a time."""
GOOD = b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(module, "LINGER_S", 0.2)


class Server:
    """The server under attack. bodies: what arrived whole. go_on: lets requests to /wait be answered."""

    def __init__(self, entrance: Entrance, tls: ssl.SSLContext | None) -> None:
        self.port = entrance.address.port
        self._tls = tls
        self.bodies: list[bytes] = []
        self.go_on = asyncio.Event()
        self._peers: list[Peer] = []

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/big":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": bytes(64 << 20)})
            return
        if scope["path"] == "/wait":
            await self.go_on.wait()
        if scope["path"] == "/half":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            await receive()
            assert (await receive())["type"] == "http.disconnect"
            return
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            if not message["more_body"]:
                break
        self.bodies.append(body)
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def connect(self) -> Peer:
        peer = Peer(*await asyncio.open_connection("127.0.0.1", self.port, ssl=self._tls))
        self._peers.append(peer)
        return peer

    async def hang_up(self) -> None:
        for peer in self._peers:
            await peer.close()
        await asyncio.sleep(0)


class Peer:
    """The other end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    async def drip(self, piece: bytes, every_s: float) -> None:
        """The same again and again, until the server has had enough."""
        with contextlib.suppress(ConnectionError):
            while not self.reader.at_eof():
                self.writer.write(piece)
                await self.writer.drain()
                await asyncio.sleep(every_s)

    async def rest(self) -> bytes:
        """All that comes until the server closes."""
        got = b""
        with contextlib.suppress(ConnectionError):
            while piece := await asyncio.wait_for(self.reader.read(1 << 16), DEADLINE_S):
                got += piece
        return got

    async def answer(self) -> bytes:
        """One answer with an empty or short body."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), DEADLINE_S)
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or b"0")
        return head + await asyncio.wait_for(self.reader.readexactly(size), DEADLINE_S)

    async def close(self) -> None:
        self.writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def attacked(limits: Limits, authority: Authority | None) -> AsyncIterator[Server]:
    """A server with these limits, which has to answer a good request in the end."""
    web_config, tls = None, None
    if authority is not None:
        pair = authority.sign("server")
        web_config, tls = pair.cert.parent / "web.yml", ssl.create_default_context(cafile=authority.file)
        web_config.write_text(f"tls_server_config: {{cert_file: {pair.cert}, key_file: {pair.key}}}")
        web_config.chmod(0o600)
    with listen(Address("127.0.0.1", 0), Door(web_config, limits=limits)) as entrance:
        server = Server(entrance, tls)
        async with serving(server.app, entrance):
            try:
                yield server
                peer = await server.connect()
                await peer.send(GOOD)
                assert (await peer.answer()).endswith(b"ok")
            finally:
                await server.hang_up()


def run(
    attack: Callable[[Server], Coroutine[Any, Any, None]],
    limits: Limits = SMALL,
    authority: Authority | None = None,
) -> None:
    async def main() -> None:
        async with attacked(limits, authority) as server:
            await attack(server)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def closed(reason: str) -> float:
    value = prometheus_client.REGISTRY.get_sample_value("tabor_door_closed_connections_total", {"reason": reason})
    return value or 0.0


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


@contextlib.contextmanager
def counted(reason: str, times: int = 1) -> Any:
    before = closed(reason)
    yield
    assert closed(reason) - before == times


@pytest.mark.parametrize(
    "start", [b"", b"GET / HTT", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: t\r\nX-", b"\r\n\r\n"]
)
def test_a_head_that_comes_too_slowly_is_cut_off(start: bytes) -> None:
    async def attack(server: Server) -> None:
        peer = await server.connect()
        await peer.send(start)
        assert (await peer.rest()).startswith(b"HTTP/1.1 408 ")

    with counted("head_too_slow"):
        run(attack)


def test_a_head_that_drips_is_cut_off_even_behind_good_requests() -> None:
    async def attack(server: Server) -> None:
        peer = await server.connect()
        await peer.send(GOOD)
        assert (await peer.answer()).endswith(b"ok")
        await peer.send(b"GET / HTTP/1.1\r\n")
        dripping = asyncio.create_task(peer.drip(b"X-A: b\r\n", 0.05))
        assert (await peer.rest()).startswith(b"HTTP/1.1 408 ")
        await dripping

    with counted("head_too_slow"):
        run(attack)


def test_limits_hold_behind_tls(tmp_path: Path) -> None:
    async def attack(server: Server) -> None:
        slow = await server.connect()
        before = closed("reader_too_slow")
        await slow.send(b"GET / HTTP/1.1\r\nX")
        assert (await slow.rest()).startswith(b"HTTP/1.1 408 ")
        deaf = await server.connect()
        deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await deaf.send(b"GET /big HTTP/1.1\r\nHost: t\r\n\r\n")
        await until(lambda: closed("reader_too_slow") > before)
        large = await server.connect()
        await large.send(b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n")
        assert (await large.rest()).startswith(b"HTTP/1.1 431 ")

    with counted("head_too_slow"), counted("reader_too_slow"), counted("head_too_large"):
        run(attack, authority=Authority(tmp_path))


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000", b"Transfer-Encoding: chunked"])
def test_a_body_that_drips_is_cut_off(framing: bytes) -> None:
    async def attack(server: Server) -> None:
        peer = await server.connect()
        await peer.send(b"POST / HTTP/1.1\r\nHost: t\r\n" + framing + b"\r\n\r\n")
        dripping = asyncio.create_task(peer.drip(b"1\r\na\r\n" if b"chunked" in framing else b"a", 0.05))
        assert (await peer.rest()).startswith(b"HTTP/1.1 408 ")
        await dripping
        assert server.bodies == []

    with counted("body_too_slow"):
        run(attack)


def test_a_body_that_keeps_coming_may_take_longer_than_the_grace() -> None:
    async def attack(server: Server) -> None:
        peer = await server.connect()
        await peer.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 2000000\r\n\r\n")
        for _ in range(20):
            await peer.send(bytes(100_000))
            await asyncio.sleep(0.06)
        assert (await peer.answer()).startswith(b"HTTP/1.1 200 ")

    with counted("body_too_slow", 0):
        run(attack, Limits(grace_s=1.0, min_bytes_per_s=1 << 20))


def test_a_stall_of_the_server_itself_is_not_held_against_senders() -> None:
    async def attack(server: Server) -> None:
        peer = await server.connect()
        await peer.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\no")
        await asyncio.sleep(0.1)
        time.sleep(2 * SMALL.grace_s)
        await peer.send(b"k")
        assert (await peer.answer()).endswith(b"ok")

    with counted("body_too_slow", 0):
        run(attack)


def test_a_sender_is_not_blamed_for_a_server_that_does_not_read() -> None:
    async def attack(server: Server) -> None:
        peer = await server.connect()
        await peer.send(b"POST /wait HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\n")
        sending = asyncio.create_task(peer.send(bytes(1_000_000)))
        await asyncio.sleep(3 * SMALL.grace_s)
        server.go_on.set()
        assert (await peer.answer()).startswith(b"HTTP/1.1 200 ")
        await sending

    with counted("body_too_slow", 0):
        run(attack)


def test_an_idle_connection_is_closed_without_a_word() -> None:
    async def attack(server: Server) -> None:
        peer = await server.connect()
        await peer.send(GOOD)
        assert (await peer.answer()).endswith(b"ok")
        before = time.monotonic()
        assert await peer.rest() == b""
        assert time.monotonic() - before < 10 * SMALL.idle_s

    run(attack)


def test_a_large_answer_that_is_not_read_is_cut_off() -> None:
    async def attack(server: Server) -> None:
        peer = await server.connect()
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        before = closed("reader_too_slow")
        await peer.send(b"GET /big HTTP/1.1\r\nHost: t\r\n\r\n")
        await until(lambda: closed("reader_too_slow") > before)
        await peer.close()

    with counted("reader_too_slow"):
        run(attack)


def test_a_large_answer_that_is_read_steadily_comes_whole() -> None:
    async def attack(server: Server) -> None:
        peer = await server.connect()
        await peer.send(b"GET /big HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        got = 0
        while piece := await peer.reader.read(1 << 20):
            got += len(piece)
            if got % 8 == 0:
                await asyncio.sleep(0.002)
        assert got > 64 << 20

    with counted("reader_too_slow", 0):
        run(attack)


def test_answers_that_nobody_reads_do_not_fill_the_memory() -> None:
    async def attack(server: Server) -> None:
        before = closed("too_much_unread")
        peers = [await server.connect() for _ in range(4)]
        for peer in peers:
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await peer.send(b"GET /big HTTP/1.1\r\nHost: t\r\n\r\n")
        # Of four times 64 MiB two fit.
        await until(lambda: closed("too_much_unread") >= before + 2)
        for peer in peers:
            await peer.close()

    with counted("too_much_unread", 2):
        run(attack, Limits(max_unread_bytes=150 << 20))


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n", "head_too_large"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 5000 + b"\r\n\r\n", "head_too_large"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 5000, "head_too_large"),
        (b"GET /" + b"a" * 5000, "head_too_large"),
        (b"\r\n" * 3000, "head_too_large"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 21 + b"\r\n", "too_many_headers"),
    ],
)
def test_a_head_that_is_too_large_is_refused(head: bytes, reason: str) -> None:
    async def attack(server: Server) -> None:
        peer = await server.connect()
        await peer.send(head)
        assert (await peer.rest()).startswith(b"HTTP/1.1 431 ")

    with counted(reason):
        run(attack, PATIENT)


@pytest.mark.parametrize(
    "between", [b"0\r\nX: " + b"a" * 10_000, b"0\r\n" + b"X: y\r\n" * 1000, b"1;" + b"a" * 10_000, b"1" * 10_000]
)
def test_what_a_chunked_body_has_besides_its_chunks_is_limited(between: bytes) -> None:
    async def attack(server: Server) -> None:
        peer = await server.connect()
        await peer.send(b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        await asyncio.sleep(0.05)
        await peer.send(between)
        assert (await peer.rest()).startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))

    run(attack, PATIENT)


@pytest.mark.parametrize(
    "request_",
    [
        b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: -2\r\n\r\nok",
        b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: +2\r\n\r\nok",
        b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 2,2\r\n\r\nok",
        b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 0x2\r\n\r\nok",
        b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999999999999999999\r\n\r\nok",
        b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length : 2\r\n\r\nok",
        b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000000\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: t\r\n Content-Length: 2\r\n\r\nok",
        b"POST / HTTP/1.1\nHost: t\nContent-Length: 2\n\nok\x00",
        b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: \x00\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"GET http:///// HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        bytes(range(256)),
    ],
)
def test_a_request_that_two_servers_could_read_differently_is_refused_and_the_connection_closed(
    request_: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    async def attack(server: Server) -> None:
        peer = await server.connect()
        await peer.send(request_ + b"GET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n")
        got = await peer.rest()
        assert got.startswith(b"HTTP/1.1 400 "), got
        assert got.count(b"HTTP/1.1") == 1
        assert b"connection: close" in got

    with counted("bad_request"):
        run(attack, PATIENT)
    # Whoever sends nonsense does not fill the logs.
    assert "Invalid HTTP" not in capfd.readouterr().err


def test_garbage_behind_a_request_does_not_get_in_between_its_answer() -> None:
    async def attack(server: Server) -> None:
        peer = await server.connect()
        await peer.send(b"GET /half HTTP/1.1\r\nHost: t\r\n\r\n")
        await peer.reader.readuntil(b"half")
        await peer.send(b"\x00\x00\r\n\r\n")
        assert b"HTTP/1.1" not in await peer.rest()

    run(attack, PATIENT)


def test_requests_far_ahead_of_their_answers_are_refused() -> None:
    async def attack(server: Server) -> None:
        peer = await server.connect()
        await peer.send(b"GET /wait HTTP/1.1\r\nHost: t\r\n\r\n" * 1000)
        await peer.rest()
        assert len(server.bodies) == 0
        server.go_on.set()

    with counted("too_many_pipelined"):
        run(attack, PATIENT)


def test_a_few_requests_ahead_are_answered_in_order() -> None:
    async def attack(server: Server) -> None:
        peer = await server.connect()
        await peer.send(b"".join(GOOD.replace(b"ok", b"%02d" % i) for i in range(4)))
        for i in range(4):
            assert (await peer.answer()).endswith(b"%02d" % i)
        await peer.close()

    run(attack, PATIENT)


def test_connections_of_one_peer_and_of_all_are_limited_and_come_back() -> None:
    async def attack(server: Server) -> None:
        peers = [await server.connect() for _ in range(SMALL.max_connections_of_peer)]
        refused = await server.connect()
        answer = await refused.rest()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in answer
        for peer in peers:
            await peer.send(GOOD)
            assert (await peer.answer()).endswith(b"ok")
            await peer.close()
        await until(lambda: prometheus_client.REGISTRY.get_sample_value("tabor_door_connections") == 0)

    with counted("too_many_connections_of_peer"):
        run(attack)
    with counted("too_many_connections"):
        run(attack, Limits(max_connections=SMALL.max_connections_of_peer))


def test_bodies_that_are_received_at_once_are_limited_together() -> None:
    async def attack(server: Server) -> None:
        large = b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1600000\r\n\r\n"
        first, second, third = [await server.connect() for _ in range(3)]
        before = closed("too_many_bodies")
        for peer in (first, second):
            await peer.send(large + bytes(1_500_000))
        await asyncio.sleep(0.1)
        await third.send(large + bytes(1_500_000))
        assert (await third.rest()).startswith(b"HTTP/1.1 503 ")
        # A small one has room all the while, and the others are not disturbed.
        small = await server.connect()
        await small.send(GOOD)
        for peer in (first, second):
            await peer.send(bytes(100_000))
            assert (await peer.answer()).startswith(b"HTTP/1.1 200 ")
        assert (await small.answer()).endswith(b"ok")
        # All of it has been given back.
        for _ in range(4):
            await first.send(large + bytes(1_600_000))
            assert (await first.answer()).startswith(b"HTTP/1.1 200 ")
        assert closed("too_many_bodies") == before + 1

    run(attack, PATIENT)


def test_many_attackers_at_once_leave_room_for_others() -> None:
    """A few hundred slow connections from one address, while an honest client goes on."""

    async def attack(server: Server) -> None:
        slow = [await server.connect() for _ in range(200)]
        dripping = [asyncio.create_task(peer.drip(b"X", 0.05)) for peer in slow]
        for _ in range(50):
            peer = await server.connect()
            await peer.send(GOOD)
            assert (await peer.answer()).endswith(b"ok")
            await peer.close()
        await asyncio.gather(*dripping)

    run(attack, Limits(head_s=0.5))


def test_flags_say_how_many_connections_there_may_be() -> None:
    flags = ["--max-connections", "50", "--max-connections-per-peer", "7"]
    with run_command.make_context("run", flags) as context:
        assert configs.door(context.params).limits == Limits(max_connections=50, max_connections_of_peer=7)
    with run_command.make_context("run", []) as context:
        assert configs.door(context.params).limits == Limits()


def test_an_upgrade_is_not_taken_up() -> None:
    async def attack(server: Server) -> None:
        peer = await server.connect()
        await peer.send(
            b"GET / HTTP/1.1\r\nHost: t\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"
        )
        assert (await peer.answer()).startswith(b"HTTP/1.1 200 ")
        await peer.close()

    run(attack, PATIENT)
