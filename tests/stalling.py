"""Servers that do not do what they should: one takes connections and says nothing, one says always the same."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Stub:
    """On the loopback interface. connections: that it was called on; they stay open."""

    def __init__(self, answer: bytes) -> None:
        self.connections: list[socket.socket] = []
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections.append(connection)
                if self._answer:
                    connection.recv(1 << 16)
                    connection.sendall(self._answer)

    def close(self) -> None:
        # Wakes who waits in `accept`, which a plain close does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        for one in (self._listener, *self.connections):
            one.close()


@contextlib.contextmanager
def stub(answer: bytes = b"") -> Iterator[Stub]:
    """answer: to the first request of each connection; nothing: it is never answered."""
    server = Stub(answer)
    try:
        yield server
    finally:
        server.close()
