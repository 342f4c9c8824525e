"""The gate: who gets through, and what the others are told."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import bcrypt
import httpx
import prometheus_client
import pytest

from common.access import Principal, Right, principal_of
from tabor.doors import passwords
from tabor.doors.config import User, WebConfig
from tabor.doors.gate import CERTIFICATE_KEY, Gate, Keys
from tabor.doors.passwords import Passwords

PASSWORD = "correct horse"
HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4))
TOKENS = {
    "t-read": Principal("grafana", Right.READ),
    "t-write": Principal("prometheus", Right.WRITE, ("team-a",)),
    "t-admin": Principal("operator", Right.ADMIN),
    "t-node": Principal("node-a", Right.NODE),
}
DELETE = "/api/v1/admin/tsdb/delete_series"


def config(**changes: Any) -> WebConfig:
    values: dict[str, Any] = {
        "path": Path("web.yml"),
        "tls": None,
        "headers": (),
        "tokens": {hashlib.sha256(token.encode()).digest(): who for token, who in TOKENS.items()},
        "users": {"alice": User(Principal("alice", Right.READ | Right.ADMIN), HASH)},
    }
    return WebConfig(**{**values, **changes})


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the name of who asks."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-frame-options", b"own")]})
    await send({"type": "http.response.body", "body": principal_of(scope).name.encode()})


Ask = Callable[..., Awaitable[httpx.Response]]


def through(body: Callable[[Ask], Awaitable[None]], keys: Keys | None = None) -> None:
    """Run a test's body with a client of the gate."""
    held = keys or Keys.of(config())
    gate = Gate(echo, lambda: held, Passwords())

    async def run() -> None:
        transport = httpx.ASGITransport(gate)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://tabor") as client:

            async def ask(path: str, method: str = "GET", **headers: str) -> httpx.Response:
                named = {name.replace("_", "-"): value for name, value in headers.items()}
                return await client.request(method, path, headers=named)

            await body(ask)

    asyncio.run(run())


def answered(path: str, method: str = "GET", keys: Keys | None = None, **headers: str) -> httpx.Response:
    answers: list[httpx.Response] = []

    async def body(ask: Ask) -> None:
        answers.append(await ask(path, method, **headers))

    through(body, keys)
    return answers[0]


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def refusals(reason: str) -> float:
    return prometheus_client.REGISTRY.get_sample_value("tabor_door_refusals_total", {"reason": reason}) or 0.0


@pytest.mark.parametrize(
    ("path", "needed"),
    [
        ("/api/v1/query", "read"),
        ("/metrics", "read"),
        ("/api/v1/write", "write"),
        (DELETE, "admin"),
        ("/internal/v1/select", "node"),
    ],
)
def test_a_token_opens_what_its_rights_say_and_nothing_else(path: str, needed: str) -> None:
    for token, who in TOKENS.items():
        answer = answered(path, Authorization=f"Bearer {token}")
        if token == f"t-{needed}":
            assert (answer.status_code, answer.text) == (200, who.name)
        else:
            assert answer.status_code == 403
            assert f"{who.name} lacks the right '{needed}'" in answer.text


@pytest.mark.parametrize("path", ["/metrics", "/api/v1/status/partitions"])
def test_who_is_bound_to_tenants_sees_no_numbers_of_all(path: str) -> None:
    bound = Keys.of(config(tokens={hashlib.sha256(b"t").digest(): Principal("a", Right.READ, ("team-a",))}))
    answer = answered(path, keys=bound, Authorization="Bearer t")
    assert answer.status_code == 403
    assert "numbers of all tenants" in answer.text
    assert answered("/api/v1/query", keys=bound, Authorization="Bearer t").status_code == 200


def test_without_credentials_nobody_gets_in_and_is_told_how() -> None:
    before = refusals("no_credentials")
    answer = answered("/api/v1/query")
    assert answer.status_code == 401
    assert answer.headers.get_list("www-authenticate") == ['Basic realm="tabor"', 'Bearer realm="tabor"']
    assert answer.json() == {
        "status": "error",
        "errorType": "unauthorized",
        "error": "GET /api/v1/query: credentials are missing",
    }
    assert refusals("no_credentials") == before + 1


def test_elsewhere_refusals_are_words() -> None:
    assert answered("/metrics").text == "GET /metrics: credentials are missing\n"


def test_tiers_read_why_they_were_refused() -> None:
    assert answered("/internal/v1/select", "POST").json()["message"].endswith("credentials are missing")


@pytest.mark.parametrize(
    "header",
    [
        "Bearer wrong",
        "Bearer",
        "Bearer ",
        "bearer t-readx",
        "t-read",
        "Basic t-read",
        "Basic !!!",
        "Basic " + base64.b64encode(b"\xff\xfe:\x00").decode(),
        "Digest username=alice",
        basic("alice", "wrong"),
        basic("alice", ""),
        basic("alice", PASSWORD + "\0"),
        basic("bob", PASSWORD),
        basic("", PASSWORD),
        "Bearer " + "a" * 9000,
    ],
)
def test_wrong_credentials_are_refused(header: str) -> None:
    before = refusals("wrong_credentials")
    answer = answered("/api/v1/query", Authorization=header)
    assert answer.status_code == 401
    assert answer.json()["error"] == "GET /api/v1/query: the credentials are wrong"
    assert refusals("wrong_credentials") == before + 1


def test_a_user_gets_in_with_his_password() -> None:
    answer = answered("/api/v1/query", Authorization=basic("alice", PASSWORD))
    assert (answer.status_code, answer.text) == (200, "alice")
    assert answered("/api/v1/write", "POST", Authorization=basic("alice", PASSWORD)).status_code == 403


def test_two_credentials_in_one_request_are_wrong() -> None:
    async def body(_: Ask) -> None:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        held = Keys.of(config())
        headers = [(b"authorization", b"Bearer t-read")] * 2
        scope = {"type": "http", "method": "GET", "path": "/metrics", "headers": headers}
        await Gate(echo, lambda: held, Passwords())(scope, send, send)  # type: ignore[arg-type]
        assert sent[0]["status"] == 401

    through(body)


def test_supervisors_are_not_asked() -> None:
    assert answered("/-/healthy").status_code == 200
    assert answered("/-/ready").status_code == 200


@pytest.mark.parametrize("path", ["/api/v1/secret", "/api/v1/query/", "/debug"])
def test_a_route_that_nobody_declared_is_not_there(path: str) -> None:
    assert answered(path).status_code == 401
    assert answered(path, Authorization="Bearer t-admin").status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Sec_Fetch_Site": "same-origin"}, 200),
        ({"Sec_Fetch_Site": "none"}, 200),
        ({"Origin": "https://elsewhere"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://tabor"}, 200),
        ({}, 200),
    ],
)
def test_a_page_of_another_site_cannot_delete_with_the_credentials_of_a_browser(
    headers: dict[str, str], status: int
) -> None:
    answer = answered(DELETE, "POST", Authorization=basic("alice", PASSWORD), **headers)
    assert answer.status_code == status


def test_headers_of_the_file_are_on_every_answer_once() -> None:
    keys = Keys.of(config(headers=((b"x-frame-options", b"deny"),)))
    for path in ("/-/healthy", "/metrics"):
        assert answered(path, keys=keys).headers.get_list("x-frame-options") == ["deny"]


def test_a_file_without_users_and_tokens_asks_nobody() -> None:
    keys = Keys.of(config(tokens={}, users={}))
    assert answered("/api/v1/query", keys=keys).text == "anyone"


class Slow:
    """In the place of bcrypt: counts what it is asked, and waits until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[bytes] = []
        self.go = asyncio.Event()
        self.checks: Passwords = Passwords()
        monkeypatch.setattr(passwords, "_matches", self._matches)

    def _matches(self, password: bytes, hashed: bytes) -> bool:
        self.asked.append(password)
        asyncio.run_coroutine_threadsafe(self.go.wait(), self.loop).result()
        return password == b"right"

    async def ask(self, password: bytes, peer: str = "10.0.0.1", hashed: bytes = HASH) -> bool:
        self.loop = asyncio.get_running_loop()
        return await self.checks.check(b"alice", password, hashed, peer)


def test_a_password_is_checked_once_however_often_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch)

    async def run() -> None:
        many = [asyncio.create_task(slow.ask(password)) for password in (b"right", b"wrong") for _ in range(50)]
        await asyncio.sleep(0)
        slow.go.set()
        assert await asyncio.gather(*many) == [True] * 50 + [False] * 50
        assert await slow.ask(b"right")
        assert not await slow.ask(b"wrong")
        assert sorted(slow.asked) == [b"right", b"wrong"]
        # With another hash the user has another password.
        await slow.ask(b"right", hashed=b"other")
        assert sorted(slow.asked) == [b"right", b"right", b"wrong"]

    asyncio.run(run())


def test_who_guesses_passwords_does_not_keep_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch)

    async def run() -> None:
        slow.go.set()
        assert await slow.ask(b"right")
        slow.go.clear()
        guesses = [asyncio.create_task(slow.ask(b"guess %d" % i, "10.6.6.6")) for i in range(1000)]
        await asyncio.sleep(0)
        # Who has logged in before is not asked again, who has not gets his turn.
        assert await slow.ask(b"right", "10.0.0.2")
        other = asyncio.create_task(slow.ask(b"also known", "10.0.0.3"))
        await asyncio.sleep(0)
        slow.go.set()
        assert not await other
        outcomes = await asyncio.gather(*guesses, return_exceptions=True)
        assert (
            sum(isinstance(outcome, passwords.Busy) for outcome in outcomes) == 1000 - passwords.MAX_WAITING_OF_ONE
        )
        assert len(slow.asked) == 1 + passwords.MAX_WAITING_OF_ONE + 1

    asyncio.run(run())


def test_a_flood_of_logins_from_everywhere_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch)

    async def run() -> None:
        guesses = [asyncio.create_task(slow.ask(b"guess %d" % i, f"10.6.6.{i}")) for i in range(100)]
        await asyncio.sleep(0)
        slow.go.set()
        outcomes = await asyncio.gather(*guesses, return_exceptions=True)
        assert sum(outcome is False for outcome in outcomes) == passwords.MAX_WAITING

    asyncio.run(run())


def test_busy_is_said_with_the_time_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "MAX_WAITING", 0)
    answer = answered("/api/v1/query", Authorization=basic("alice", PASSWORD))
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"


def test_what_is_remembered_is_bounded_and_is_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_matches", lambda password, hashed: password.startswith(b"right"))
    checks = Passwords()

    async def run() -> None:
        for i in range(passwords.MAX_REMEMBERED + 10):
            await checks.check(b"alice", b"wrong %d" % i, HASH, "")
        await checks.check(b"alice", b"right", HASH, "")
        assert len(checks._wrong) == passwords.MAX_REMEMBERED
        assert len(checks._right) == 1
        assert all(len(question) == 32 for question in (*checks._wrong, *checks._right))

    asyncio.run(run())


def test_an_unknown_user_is_refused_with_as_much_work_as_a_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    def matches(password: bytes, hashed: bytes) -> bool:
        asked.append(hashed)
        return bcrypt.checkpw(password, hashed)

    monkeypatch.setattr(passwords, "_matches", matches)
    assert answered("/api/v1/query", Authorization=basic("mallory", "guess")).status_code == 401
    assert answered("/api/v1/query", Authorization=basic("alice", "guess")).status_code == 401
    assert [hashed[:7] for hashed in asked] == [b"$2b$04$"] * 2


def test_a_certificate_opens_what_its_name_may_unless_other_credentials_are_shown() -> None:
    certificates = {"DNS:node": Principal("node", Right.NODE), "CN:grafana": Principal("grafana", Right.READ)}
    held = Keys.of(config(certificates=certificates))
    inner = Gate(echo, lambda: held, Passwords())

    def answered_to(names: set[str], path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        async def gate(scope: Any, receive: Any, send: Any) -> None:
            await inner({**scope, CERTIFICATE_KEY: frozenset(names)}, receive, send)

        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(gate)
            async with httpx.AsyncClient(transport=transport, base_url="http://tabor") as client:
                return await client.request(method, path, headers=headers)

        answer = asyncio.run(run())
        return answer.status_code, answer.text

    assert answered_to({"CN:grafana", "DNS:localhost"}, "/api/v1/query") == (200, "grafana")
    assert answered_to({"CN:grafana"}, DELETE, "POST")[0] == 403
    assert answered_to({"DNS:grafana"}, "/api/v1/query")[0] == 401
    assert answered_to(set(), "/api/v1/query")[0] == 401
    # The first of the file.
    assert answered_to({"CN:grafana", "DNS:node"}, "/internal/v1/copy", "POST") == (200, "node")
    assert answered_to({"CN:grafana"}, "/api/v1/query", authorization="Bearer wrong")[0] == 401
    assert answered_to({"CN:grafana"}, DELETE, "POST", authorization="Bearer t-admin") == (200, "operator")
