"""Connections with limits: uvicorn's protocol has none for slow senders, slow readers and heads of requests.

    accepted ─► too many already?        ─► 503, closed
    bytes    ─► head too large, too slow ─► 431, 408, closed
             ─► body too slow, too many bodies at once ─► 408, 503, closed
    answer   ─► read too slowly, too many unread ─► cut off

Times are looked at once a second for all connections together, so that a request costs no timer. Each refusal
has a reason, which is counted; docs/security.md, 'Limits of every door', lists them.
"""

from __future__ import annotations

import asyncio
import resource
from collections import Counter as Tally
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, TypeAlias

import httptools
import uvicorn
from prometheus_client import Counter, Gauge
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from tabor.doors.gate import CERTIFICATE_KEY
from tabor.doors.tls import names_in

LOOK_EVERY_S = 1.0
LINGER_S = 1.0
"""How long the rest of a refused request is read and thrown away: a reset takes the answer from its sender."""
_FILES_BESIDES = 512
"""File descriptors that are left to the log and the views."""
_SMALL_BODY_BYTES = 1 << 20

_REASONS = {
    "bad_request": 400,
    "head_too_slow": 408,
    "body_too_slow": 408,
    "head_too_large": 431,
    "too_many_headers": 431,
    "too_many_connections": 503,
    "too_many_connections_of_peer": 503,
    "too_many_bodies": 503,
    "too_many_pipelined": 400,
    "reader_too_slow": 0,
    "too_much_unread": 0,
}
"""Why a connection is closed, and the status that its sender is told, if anything."""
_CLOSED = Counter("tabor_door_closed_connections", "Connections closed for a limit, by reason", ["reason"])
_closed = {reason: _CLOSED.labels(reason) for reason in _REASONS}
_OPEN = Gauge("tabor_door_connections", "Connections that are open")

Make: TypeAlias = Callable[..., asyncio.Protocol]


@dataclass(frozen=True, slots=True)
class Limits:
    """What strangers may take of a process before it is known what they want.

    max_connections, max_connections_of_peer: open at a time; a peer is an address, a proxy for one.
    max_head_bytes, max_headers: of one request: its line and headers.
    max_pipelined: requests that a connection may send ahead of their answers.
    head_s: from the first byte, or from the connection, to the end of a request's head.
    idle_s: between an answer and the next request.
    grace_s, min_bytes_per_s: a body, and the reading of an answer, may take the grace and what they have so far at
      this rate.
    max_bodies_bytes: of all bodies that are not answered yet, together; one may always have 1 MiB.
    max_unread_bytes: of all answers that wait for their readers, together; beyond it the slowest is cut off.
    """

    max_connections: int = 4096
    max_connections_of_peer: int = 1024
    max_head_bytes: int = 64 << 10
    max_headers: int = 100
    max_pipelined: int = 16
    head_s: float = 10.0
    idle_s: float = 75.0
    grace_s: float = 30.0
    min_bytes_per_s: int = 1024
    max_bodies_bytes: int = 1 << 30
    max_unread_bytes: int = 2 << 30


class Connections:
    """All connections of a server, and what they take together. `accept` makes them, `watch` looks after them."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._max_connections = min(limits.max_connections, _room_for_connections(limits.max_connections))
        self._open: set[Connection] = set()
        self._by_peer: Tally[str] = Tally()
        self.bodies_bytes = 0

    def accept(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> asyncio.Protocol:
        """What uvicorn calls for each connection."""
        return Connection(self, config, server_state, app_state, _loop)

    def enter(self, connection: Connection, peer: str) -> str | None:
        """Count a connection in; the reason if there are too many."""
        limits = self.limits
        full = len(self._open) >= self._max_connections
        self._open.add(connection)
        self._by_peer[peer] += 1
        _OPEN.set(len(self._open))
        if full:
            return "too_many_connections"
        return "too_many_connections_of_peer" if self._by_peer[peer] > limits.max_connections_of_peer else None

    def leave(self, connection: Connection, peer: str) -> None:
        if connection not in self._open:
            return
        self._open.discard(connection)
        self._by_peer[peer] -= 1
        if not self._by_peer[peer]:
            del self._by_peer[peer]
        _OPEN.set(len(self._open))

    async def watch(self) -> None:
        """Close what takes too long, again and again, until cancelled."""
        loop = asyncio.get_running_loop()
        last_s = loop.time()
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now_s = loop.time()
            self.look(now_s, max(0.0, now_s - last_s - LOOK_EVERY_S))
            last_s = now_s

    def look(self, now_s: float, late_s: float = 0.0) -> None:
        """Close what takes too long.

        now_s: the event loop's clock. late_s: for how long it did nothing, which is not held against anyone.
        """
        unread = []
        for connection in list(self._open):
            connection.look(now_s, late_s)
            if connection.unread_bytes:
                unread.append(connection)
        too_much = sum(connection.unread_bytes for connection in unread) - self.limits.max_unread_bytes
        unread.sort(key=lambda connection: connection.read_bytes_per_s(now_s))
        for connection in unread:
            if too_much <= 0:
                break
            too_much -= connection.unread_bytes
            connection.cut_off("too_much_unread")


class _Receiving(Enum):
    NOTHING = auto()
    HEAD = auto()
    BODY = auto()


class Connection(HttpToolsProtocol):
    """One connection. Receives one request after the other; the answer to the last may be under way meanwhile."""

    def __init__(
        self,
        connections: Connections,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        super().__init__(config, server_state, app_state, loop)
        self._all = connections
        self._limits = connections.limits
        self._peer = ""
        self._certificate: frozenset[str] = frozenset()
        self._receiving = _Receiving.HEAD
        self._since_s = self._looked_s = self.loop.time()
        self._head_bytes = 0
        self._piece_bytes = 0
        self._body_bytes = 0
        self._held_bytes = 0
        self._refusal: tuple[str, str] | None = None
        self._refused_s: float | None = None
        self.unread_bytes = 0
        self._unread_since_s: float | None = None
        self._read_bytes = 0

    # From the transport.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._peer = "" if self.client is None else self.client[0]
        self._certificate = names_in(transport.get_extra_info("ssl_object"))
        reason = self._all.enter(self, self._peer)
        if reason is not None:
            self._refuse(reason, "too many connections; come again")

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.leave(self, self._peer)
        self._let_go()
        self.unread_bytes = 0
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # As uvicorn's, which logs what is sent to it.
        if self._refused_s is not None:
            return
        if self._receiving is _Receiving.NOTHING:
            self._begin(_Receiving.HEAD)
            self._head_bytes = 0
        self._piece_bytes = len(data)
        body_bytes = self._body_bytes
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # To a protocol that is not spoken here; the request is answered as it is.
            pass
        except httptools.HttpParserError:
            self._refuse(*(self._refusal or ("bad_request", "this is not HTTP")))
            return
        if self._receiving is _Receiving.HEAD or (
            # Trailers, and what else a chunked body may have between its chunks.
            self._receiving is _Receiving.BODY and self._body_bytes == body_bytes
        ):
            # What came before this head in the same piece counts too, which a few KiB more or less do not change.
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.max_head_bytes:
                self._refuse("head_too_large", self._head_too_large())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread_since_s = None

    # From the parser. What is raised there ends in `data_received` as an error of the parser.

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= self._limits.max_pipelined:
            self._refusal = (
                "too_many_pipelined",
                f"more than {self._limits.max_pipelined} requests ahead of answers",
            )
            raise ValueError(self._refusal)
        super().on_message_begin()
        if self._certificate:
            self.scope[CERTIFICATE_KEY] = self._certificate  # type: ignore[literal-required]
        if self._receiving is not _Receiving.HEAD:
            self._begin(_Receiving.HEAD)
            self._head_bytes = 0

    def on_headers_complete(self) -> None:
        limits = self._limits
        if len(self.headers) > limits.max_headers:
            self._refusal = "too_many_headers", f"more than {limits.max_headers} headers"
            raise ValueError(self._refusal)
        # Counted only where it can be too large: the piece may have a body, and further requests.
        if self._head_bytes + self._piece_bytes > limits.max_head_bytes:
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > limits.max_head_bytes:
                self._refusal = "head_too_large", self._head_too_large()
                raise ValueError(self._refusal)
        self._begin(_Receiving.BODY)
        self._body_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if not self.cycle.response_complete:
            self._held_bytes += len(body)
            self._all.bodies_bytes += len(body)
            if self._all.bodies_bytes > self._limits.max_bodies_bytes and self._held_bytes > _SMALL_BODY_BYTES:
                self._refusal = "too_many_bodies", "too many bytes of requests are being received; come again"
                raise ValueError(self._refusal)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._begin(_Receiving.NOTHING)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        # As uvicorn's, but without a timer for each answer: `look` sees who is idle.
        self.server_state.total_requests += 1
        self._let_go()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._receiving is _Receiving.NOTHING:
            self._since_s = self.loop.time()

    # From `Connections`.

    def look(self, now_s: float, late_s: float) -> None:
        """Close the connection if it takes too long; see `Connections.look`."""
        self._since_s += late_s
        if self._unread_since_s is not None:
            self._unread_since_s += late_s
        if self._receiving is not _Receiving.NOTHING and self.flow.read_paused:
            # Not the sender keeps us waiting.
            self._since_s += max(0.0, now_s - self._looked_s - late_s)
        self._looked_s = now_s
        took_s = now_s - self._since_s
        limits = self._limits
        if self._refused_s is not None:
            if now_s - self._refused_s > LINGER_S:
                self.transport.close()
        elif not self.transport.is_closing():
            if self._receiving is _Receiving.HEAD and took_s > limits.head_s:
                self._refuse("head_too_slow", f"the head of the request took more than {limits.head_s:g} s")
            elif self._receiving is _Receiving.BODY and took_s > self._allowed_s(self._body_bytes):
                self._refuse("body_too_slow", f"the body of the request came too slowly: {self._body_bytes} bytes")
            elif self._receiving is _Receiving.NOTHING and not self._answering and took_s > limits.idle_s:
                self.transport.close()
        self._look_at_reader(now_s)

    def read_bytes_per_s(self, now_s: float) -> float:
        """How fast the answer that waits is read."""
        if self._unread_since_s is None:
            return float("inf")
        return self._read_bytes / max(LOOK_EVERY_S, now_s - self._unread_since_s)

    def cut_off(self, reason: str) -> None:
        """Close without waiting for the reader."""
        _closed[reason].inc()
        self.unread_bytes = 0
        self.transport.abort()

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _look_at_reader(self, now_s: float) -> None:
        # A transport that is closing waits for its reader, too.
        left = self.transport.get_write_buffer_size()
        if left == 0:
            self._unread_since_s = None
        elif self._unread_since_s is None:
            self._unread_since_s, self._read_bytes = now_s, 0
        else:
            self._read_bytes += max(0, self.unread_bytes - left)
        self.unread_bytes = left
        if self._unread_since_s is not None and now_s - self._unread_since_s > self._allowed_s(self._read_bytes):
            self.cut_off("reader_too_slow")

    def _allowed_s(self, n_bytes: int) -> float:
        return self._limits.grace_s + n_bytes / self._limits.min_bytes_per_s

    def _begin(self, receiving: _Receiving) -> None:
        self._receiving = receiving
        self._since_s = self.loop.time()

    def _let_go(self) -> None:
        self._all.bodies_bytes -= self._held_bytes
        self._held_bytes = 0

    def _head_too_large(self) -> str:
        return f"the head of the request has more than {self._limits.max_head_bytes} bytes"

    def _refuse(self, reason: str, text: str) -> None:
        """Say why, unless an answer is under way, and close."""
        if self.transport.is_closing():
            return
        _closed[reason].inc()
        self._let_go()
        linger = self.transport.can_write_eof() and not reason.startswith("too_many_connections")
        if self._answering and self.cycle.response_started:
            linger = False
        else:
            body = text.encode() + b"\n"
            status = _REASONS[reason]
            head = [STATUS_LINE[status], b"content-type: text/plain; charset=utf-8\r\n"]
            head += [b"retry-after: 1\r\n"] if status == 503 else []
            head += [b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body), body]
            self.transport.write(b"".join(head))
        if self._answering:
            # For the application the sender has gone.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if linger:
            self._refused_s = self.loop.time()
            self.transport.write_eof()
            self.flow.resume_reading()
        else:
            self.transport.close()


def _room_for_connections(wanted: int) -> int:
    """How many connections the limit of open files leaves room for; it is raised as far as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _FILES_BESIDES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(64, soft - _FILES_BESIDES)
    return wanted
