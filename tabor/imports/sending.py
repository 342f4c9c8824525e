"""Samples to a running Tabor, by remote write."""

from __future__ import annotations

from common.store import Selection
from query.remote_read import time_series
from tabor.progress import say
from tabor.remote import Server

_SHOWN_REFUSALS = 10


class Sender:
    """Counts what it sends. Sending anything again does no harm: the first value of a sample stays."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.n_samples = 0
        self.n_refusals = 0
        """Requests of which something was refused."""

    def send(self, message: bytes, n_samples: int, where: str) -> None:
        """Send a `prometheus.WriteRequest`; where: the part of the input that it is, for people.

        Raises:
            TooMuch: the server takes no request as large as this. Unreachable.
        """
        refusal = self._server.write(message)
        self.n_samples += n_samples
        if refusal is not None:
            self.n_refusals += 1
            if self.n_refusals <= _SHOWN_REFUSALS:
                say(f"{where}: refused: {refusal}")

    def send_selection(self, selection: Selection, where: str) -> None:
        """Send samples. Raises as `send`."""
        self.send(b"".join(time_series(selection)), len(selection.timestamps), where)
