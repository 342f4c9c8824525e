"""Asking for what may take long, such as where a log that is away ends, for those who must not wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from common.errors import TaborError

T = TypeVar("T")


class LastAnswer(Generic[T]):
    """Asks in a thread of its own, never twice at a time, and gives the last answer. Any thread may call.

    wait_s: how long to wait for an answer. keep_s: how old one may be that is given.
    """

    def __init__(self, ask: Callable[[], T], *, wait_s: float = 0.5, keep_s: float = 30.0) -> None:
        self._ask = ask
        self._wait_s = wait_s
        self._keep_s = keep_s
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._answer: tuple[float, T] | None = None

    def __call__(self) -> T | None:
        """The answer; None if there has been none lately, or whoever is asked raised a TaborError."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="last-answer", daemon=True)
                self._thread.start()
            thread = self._thread
        thread.join(self._wait_s)
        answer = self._answer
        return None if answer is None or time.monotonic() - answer[0] > self._keep_s else answer[1]

    def _run(self) -> None:
        try:
            self._answer = time.monotonic(), self._ask()
        except TaborError:
            self._answer = None
