"""Who must not wait gets the last answer."""

from __future__ import annotations

import threading

from common.errors import LogUnavailable
from common.patience import LastAnswer
from tests.processes import wait_for


def test_an_answer_that_comes_in_time_is_given() -> None:
    assert LastAnswer(lambda: 7)() == 7


def test_while_nobody_answers_the_last_answer_is_given_and_nobody_is_asked_twice() -> None:
    go_on, n_asked = threading.Event(), 0
    go_on.set()

    def ask() -> int:
        nonlocal n_asked
        n_asked += 1
        assert go_on.wait(30)
        return n_asked

    last = LastAnswer(ask, wait_s=0.01)
    wait_for(lambda: last() is not None, "there is a first answer")
    go_on.clear()
    before = wait_for(lambda: last(), "an answer that is not new")
    assert [last() for _ in range(5)] == [before] * 5
    assert n_asked == before + 1
    go_on.set()
    wait_for(lambda: last() == before + 1, "the answer that was waited for")


def test_an_answer_that_is_too_old_and_an_error_are_none() -> None:
    def fail() -> int:
        raise LogUnavailable("away")

    assert LastAnswer(fail)() is None
    assert LastAnswer(lambda: 7, keep_s=-1.0)() is None
