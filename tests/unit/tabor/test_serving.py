"""What every service answers, whatever it serves besides."""

from __future__ import annotations

import asyncio
import socket

import httpx
import pytest

from tabor.doors.door import Door
from tabor.serving import build_app, listen
from tabor.values import Address


def ask(method: str, path: str) -> httpx.Response:
    app = build_app(lambda: (False, {"reason": "a test"}))

    @app.get("/api/v1/thing")
    def thing(flag: bool = False) -> dict[str, bool]:
        return {"flag": flag}

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tabor") as client:
            return await client.request(method, path)

    return asyncio.run(send())


def test_an_unknown_path_of_the_api_is_answered_in_the_form_of_the_api() -> None:
    answer = ask("GET", "/api/v1/nothing")
    assert answer.status_code == 404
    assert answer.json() == {
        "status": "error",
        "errorType": "not_found",
        "error": "GET /api/v1/nothing: Not Found",
    }


def test_an_unknown_path_elsewhere_is_answered_in_words() -> None:
    answer = ask("GET", "/nothing")
    assert answer.status_code == 404
    assert answer.text == "GET /nothing: Not Found\n"


def test_a_wrong_method_is_answered_with_the_right_ones() -> None:
    answer = ask("DELETE", "/api/v1/thing")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET"
    assert answer.json()["errorType"] == "bad_data"


def test_a_wrong_parameter_is_bad_data() -> None:
    answer = ask("GET", "/api/v1/thing?flag=perhaps")
    assert answer.status_code == 400
    assert answer.json()["errorType"] == "bad_data"
    assert "flag" in answer.json()["error"]


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_pages_that_load_scripts_from_elsewhere_are_not_there(path: str) -> None:
    assert ask("GET", path).status_code == 404


def test_not_ready_says_why_and_when_to_come_again() -> None:
    answer = ask("GET", "/-/ready")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json() == {"ready": False, "reason": "a test"}


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", socket.gethostname())])
def test_the_address_for_people_is_one_that_can_be_called(host: str, shown: str) -> None:
    with listen(Address(host, 0), Door(insecure=True)) as entrance:
        assert entrance.url == f"http://{shown}:{entrance.address.port}"
