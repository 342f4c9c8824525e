"""Tells systemd how far the process is, by its protocol sd_notify: datagrams of lines. Else it does nothing."""

from __future__ import annotations

import contextlib
import os
import socket

MORE_TIME_S = 60


def ready() -> None:
    """Reads and writes are served from now on."""
    _tell("READY=1", "STATUS=serving")


def starting(doing: str) -> None:
    """The start goes on; it may take so much longer before it is taken to hang."""
    _tell(f"EXTEND_TIMEOUT_USEC={MORE_TIME_S * 1_000_000}", f"STATUS={doing}")


def stopping() -> None:
    """The process ends in order."""
    _tell("STOPPING=1", "STATUS=stopping")


def _tell(*lines: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address[0] == "@":
        # A name outside of the file system.
        address = "\0" + address[1:]
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
    ):
        # Nobody waits for it: a full queue means that nobody listens.
        sock.setblocking(False)
        sock.sendto("\n".join(lines).encode(), address)
