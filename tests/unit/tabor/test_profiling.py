"""/debug/profile shows what threads do, for so long, one at a time."""

from __future__ import annotations

import asyncio
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI

from tabor.profiling import add_route, flame_graph


@pytest.fixture
def spinning() -> Iterator[None]:
    """A thread that works, and one that waits."""
    stop = threading.Event()

    def spin_round() -> None:
        while not stop.is_set():
            sum(range(1000))

    threads = [
        threading.Thread(target=spin_round, name="spinner"),
        threading.Thread(target=stop.wait, name="waiter"),
    ]
    for thread in threads:
        thread.start()
    yield
    stop.set()
    for thread in threads:
        thread.join()


def ask(*queries: str, **headers: str) -> list[httpx.Response]:
    app = FastAPI()
    add_route(app)

    async def send() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tabor") as client:
            asked = [client.get(f"/debug/profile?{query}", headers=headers) for query in queries]
            return list(await asyncio.gather(*asked))

    return asyncio.run(send())


def test_collapsed_stacks_name_threads_and_functions_and_leave_out_who_waits(spinning: None) -> None:
    (answer,) = ask("seconds=0.3", Accept="text/plain")
    assert answer.status_code == 200
    lines = answer.text.splitlines()
    assert any(line.startswith("spinner;") and "test_profiling:spin_round" in line for line in lines)
    assert all(int(line.rpartition(" ")[2]) > 0 for line in lines)
    assert "waiter;" not in answer.text
    assert "waiter;" in ask("seconds=0.3&format=collapsed&idle=true")[0].text


def test_the_flame_graph_is_an_svg_that_loads_nothing(spinning: None) -> None:
    (answer,) = ask("seconds=0.3")
    assert answer.headers["content-type"].startswith("image/svg+xml")
    assert any("spin_round" in title for title in titles_of(answer.text))
    assert "href" not in answer.text
    assert "<script" not in answer.text


def titles_of(svg: str) -> list[str]:
    root = ET.fromstring(svg)  # noqa: S314, it is our own
    return [one.text or "" for one in root.iter("{http://www.w3.org/2000/svg}title")]


def test_names_are_escaped() -> None:
    assert titles_of(flame_graph({("<b>&\"'", "a"): 3}, 1.0))[0] == "<b>&\"': 3 samples, 100.0 %"


def test_nothing_seen_is_a_graph_too() -> None:
    assert titles_of(flame_graph({}, 1.0)) == []


@pytest.mark.parametrize("query", ["seconds=0", "seconds=61", "seconds=nan", "seconds=x", "seconds=1&format=pdf"])
def test_what_cannot_be_is_refused(query: str) -> None:
    started = time.monotonic()
    assert ask(query)[0].status_code == 400
    assert time.monotonic() - started < 5


def test_one_is_made_at_a_time() -> None:
    assert sorted(answer.status_code for answer in ask("seconds=0.3", "seconds=0.3")) == [200, 429]
    assert ask("seconds=0.1")[0].status_code == 200
