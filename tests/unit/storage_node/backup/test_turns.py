"""A backup and a prune never do their work at the same time."""

from __future__ import annotations

import threading

import pytest

from storage_node.backup import turns
from storage_node.backup.errors import TargetError
from storage_node.backup.turns import Turn, pruning, writing
from tests.memory_target import MemoryTarget


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PAUSE_S", 0.005)


def go_on() -> threading.Event:
    return threading.Event()


def test_nothing_may_be_deleted_while_somebody_writes() -> None:
    target = MemoryTarget()
    with writing(target, go_on()), writing(target, go_on()), pruning(target) as turn:
        assert not turn.is_alone
    with pruning(target) as turn:
        assert turn.is_alone
        with pruning(target) as other:
            assert not other.is_alone
    assert not target.objects


def test_who_writes_waits_until_pruning_is_over() -> None:
    target, began, order = MemoryTarget(), threading.Event(), []

    def write() -> None:
        began.set()
        with writing(target, go_on(), wait_s=30):
            order.append("wrote")

    with pruning(target) as turn:
        assert turn.is_alone
        thread = threading.Thread(target=write)
        thread.start()
        assert began.wait(10)
        order.append("pruned")
    thread.join(10)
    assert order == ["pruned", "wrote"]


def test_waiting_has_an_end_and_can_be_stopped() -> None:
    target, stop = MemoryTarget(), threading.Event()
    with pruning(target):
        with pytest.raises(TargetError, match="pruned for 0 s"), writing(target, go_on(), wait_s=0):
            raise AssertionError
        stop.set()
        with pytest.raises(TargetError, match="stopped"), writing(target, stop):
            raise AssertionError
    assert not target.objects


def test_what_dead_processes_have_left_counts_for_nothing_after_a_while() -> None:
    target = MemoryTarget()
    target.put("running/dead", b"")
    target.now_s = turns.STALE_S - 1
    with pruning(target) as turn:
        assert not turn.is_alone
    target.now_s = turns.STALE_S
    with pruning(target) as turn:
        assert turn.is_alone


def test_a_turn_is_kept_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "TOUCH_S", 0.005)
    target, touched = MemoryTarget(), threading.Event()
    with writing(target, go_on()) as turn:
        target.before = lambda what, name: what == "put" and touched.set()
        assert touched.wait(10)
        turn.check()


def test_a_turn_that_others_may_have_taken_for_dead_is_lost() -> None:
    target, now_s = MemoryTarget(), 0.0
    turn = Turn(target, turns.RUNNING, clock=lambda: now_s)
    now_s = turns.HELD_S
    turn.check()
    now_s = turns.HELD_S + 1
    with pytest.raises(TargetError, match="begin anew"):
        turn.check()
    now_s = 0.0
    with pytest.raises(TargetError, match="begin anew"):
        turn.check()
    turn.close()


def test_in_every_order_of_their_steps_at_most_one_of_two_goes_ahead() -> None:
    # Each puts its entry before it looks, so whoever looks second sees the first.
    for prune_first in (True, False):
        target = MemoryTarget()
        if prune_first:
            with pruning(target) as turn:
                assert turn.is_alone
                with pytest.raises(TargetError), writing(target, go_on(), wait_s=0):
                    raise AssertionError
        else:
            with writing(target, go_on()), pruning(target) as turn:
                assert not turn.is_alone
