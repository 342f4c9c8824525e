"""Deleting series over HTTP, up to the log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future

import httpx
import pytest
from fastapi import FastAPI

from common.errors import LogUnavailable
from common.store import MAX_TIME_MS, MIN_TIME_MS, Matcher, MatchOp
from common.tombstones import Tombstone
from query.http_admin import router

PATH = "/api/v1/admin/tsdb/delete_series"
UP = Matcher(MatchOp.EQUAL, "__name__", "up")


class Deleter:
    def __init__(self) -> None:
        self.asked: list[Tombstone] = []
        self.error: Exception | None = None

    def __call__(self, tombstones: Sequence[Tombstone]) -> Future[list[int]]:
        done: Future[list[int]] = Future()
        if self.error is not None:
            done.set_exception(self.error)
        else:
            self.asked += tombstones
            done.set_result([])
        return done


@pytest.fixture
def deleter() -> Deleter:
    return Deleter()


def ask(deleter: Deleter, query: str, method: str = "POST", form: str = "", path: str = PATH) -> httpx.Response:
    app = FastAPI()
    app.include_router(router(deleter))
    headers = {"content-type": "application/x-www-form-urlencoded"} if form else {}

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tabor") as client:
            return await client.request(method, f"{path}?{query}", content=form.encode(), headers=headers)

    return asyncio.run(send())


def test_each_selector_becomes_a_tombstone_of_the_range(deleter: Deleter) -> None:
    answer = ask(deleter, "match[]=up&match[]={job!~%22a%7Cb%22,x=%22y%22}&start=1&end=2.5", "PUT")
    assert (answer.status_code, answer.content) == (204, b"")
    job = Matcher(MatchOp.NOT_REGEX, "job", "a|b"), Matcher(MatchOp.EQUAL, "x", "y")
    assert deleter.asked == [Tombstone((UP,), 1000, 2500), Tombstone(job, 1000, 2500)]


def test_without_a_range_all_of_time_is_meant(deleter: Deleter) -> None:
    assert ask(deleter, "", form="match[]=up").status_code == 204
    assert deleter.asked == [Tombstone((UP,), MIN_TIME_MS, MAX_TIME_MS)]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("", "no match[] parameter provided"),
        ("match[]=up&start=2&end=1", "end timestamp must not be before start time"),
        ("match[]={job=~%22(%22}", 'invalid parameter "match[]"'),
        ("match[]={}", 'invalid parameter "match[]"'),
        ("match[]=rate(up[5m])", 'invalid parameter "match[]"'),
        ("match[]=up&start=soon", 'cannot parse "soon" to a valid timestamp'),
    ],
)
def test_a_bad_request_deletes_nothing_and_says_why(deleter: Deleter, query: str, reason: str) -> None:
    answer = ask(deleter, query)
    assert answer.status_code == 400
    assert answer.json()["errorType"] == "bad_data"
    assert reason in answer.json()["error"]
    assert deleter.asked == []


def test_a_log_that_does_not_take_it_is_answered_503(deleter: Deleter) -> None:
    deleter.error = LogUnavailable("the log is away", retry_after_s=3)
    answer = ask(deleter, "match[]=up")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "3"
    assert "the log is away" in answer.json()["error"]


def test_reading_does_not_delete(deleter: Deleter) -> None:
    assert ask(deleter, "match[]=up", "GET").status_code == 405
    assert deleter.asked == []


def test_there_are_no_tombstones_to_be_cleaned_by_hand(deleter: Deleter) -> None:
    assert ask(deleter, "", path="/api/v1/admin/tsdb/clean_tombstones").status_code == 204
