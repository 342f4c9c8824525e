"""Passwords against bcrypt hashes: off the event loop, one at a time, few of them waiting, outcomes remembered."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import Counter, OrderedDict
from concurrent.futures import ThreadPoolExecutor

MAX_WAITING = 16
MAX_WAITING_OF_ONE = 4
"""Of one address, so that who guesses passwords does not keep out who knows his."""
MAX_REMEMBERED = 1024
"""Outcomes, right ones and wrong ones apart: wrong ones never drive out right ones."""
_NOBODYS = "$2b${cost:02}$abcdefghijklmnopqrstuu5s8aNMV3ZMgyZCmTnEXiVYtXFJ3wZbe"


class Busy(Exception):
    """So many passwords are being checked that this one was not."""


class Passwords:
    """Checks passwords. What is remembered of one is a hash under a key that this process alone knows."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()
        self._wrong: OrderedDict[bytes, None] = OrderedDict()
        self._running: dict[bytes, asyncio.Future[bool]] = {}
        self._waiting: Counter[str] = Counter()
        self._thread: ThreadPoolExecutor | None = None

    async def check(self, name: bytes, password: bytes, hashed: bytes, peer: str) -> bool:
        """Whether a password is that of a hash; equal questions at one time are one.

        Raises:
            Busy
        """
        # Of the hash too: when a user gets another password, nothing of the old one is known any more.
        question = hashlib.blake2b(
            b"%d:%b%b%b" % (len(name), name, hashed, password), key=self._key, digest_size=32
        ).digest()
        for remembered, outcome in ((self._right, True), (self._wrong, False)):
            if question in remembered:
                remembered.move_to_end(question)
                return outcome
        running = self._running.get(question)
        if running is None:
            if self._waiting.total() >= MAX_WAITING or self._waiting[peer] >= MAX_WAITING_OF_ONE:
                raise Busy
            self._waiting[peer] += 1
            running = asyncio.ensure_future(self._ask(question, password, hashed, peer))
            self._running[question] = running
        # Shielded: whoever hangs up does not end it for the others.
        return await asyncio.shield(running)

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _ask(self, question: bytes, password: bytes, hashed: bytes, peer: str) -> bool:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="passwords")
        try:
            is_right = await asyncio.get_running_loop().run_in_executor(self._thread, _matches, password, hashed)
        finally:
            self._waiting[peer] -= 1
            self._waiting += Counter()  # leaves out those at zero
            del self._running[question]
        remembered = self._right if is_right else self._wrong
        remembered[question] = None
        if len(remembered) > MAX_REMEMBERED:
            remembered.popitem(last=False)
        return is_right


def hash_of_nobody(cost: int) -> bytes:
    """A hash that no password is known for, so that an unknown user is refused no sooner than a known one."""
    return _NOBODYS.format(cost=cost).encode()


def _matches(password: bytes, hashed: bytes) -> bool:
    import bcrypt

    # bcrypt looks at 72 bytes at most; its libraries differ in whether they refuse or cut off what is longer.
    return b"\0" not in password and bcrypt.checkpw(password[:72], hashed)
