"""The id of a request, the same in every process and log event that has to do with it."""

from __future__ import annotations

import random
import re
from contextvars import ContextVar

HEADER = "X-Request-ID"
SCOPE_KEY = "tabor.request_id"
"""Where the ASGI scope has it."""
_ACCEPTED = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")

_random = random.Random()

current: ContextVar[str] = ContextVar("tabor_request_id", default="")
"""The id of the request that this context works for; '' if it works for none."""


def accepted(sent: bytes | None) -> str:
    """The id that a client sent, if it can be written into logs and headers as it is; else a new one."""
    if sent is not None and _ACCEPTED.fullmatch(sent):
        return sent.decode()
    return new()


def new() -> str:
    """An id that nothing else has, in all likelihood: 16 hex digits. Not a secret, and no system call."""
    return f"{_random.getrandbits(64):016x}"


def passed_on() -> dict[str, str]:
    """The header by which another process learns of the request that this context works for."""
    request_id = current.get()
    return {HEADER: request_id} if request_id else {}
