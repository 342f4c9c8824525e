"""The gate: ASGI in front of everything, which asks who sends a request and whether he may.

401   no credentials, or wrong ones        403   known, but without the right that the route needs
404   no such route is declared            503   too many passwords are being checked; come again
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import orjson
from prometheus_client import Counter

from common.access import SCOPE_KEY, Principal, Right
from common.asgi import App, Message, Receive, Scope, Send
from tabor.doors.config import User, WebConfig
from tabor.doors.passwords import Busy, Passwords, hash_of_nobody
from tabor.doors.rights import OF_ALL_TENANTS, OPEN, right_for

MAX_CREDENTIALS_BYTES = 8192
CERTIFICATE_KEY = "tabor.certificate"
"""Names in the client's certificate, frozenset[str], in the scopes of connections on which one was shown."""
REALM = "tabor"

_REFUSALS = Counter("tabor_door_refusals", "Requests that the gate refused, by reason", ["reason"])
_REASONS = (
    "no_credentials",
    "wrong_credentials",
    "missing_right",
    "of_all_tenants",
    "other_site",
    "no_such_route",
    "busy",
)
_refused = {reason: _REFUSALS.labels(reason) for reason in _REASONS}


class _Refused(Exception):
    def __init__(self, status: int, reason: str, error: str) -> None:
        super().__init__(error)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Keys:
    """Whom a web configuration file lets in, in the form in which the gate looks it up.

    by_mac: tokens by a hash of their SHA-256 under a key of this process, so that the time of a look-up tells
      nothing of what is in it.
    """

    key: bytes
    by_mac: dict[bytes, Principal]
    users: dict[bytes, User]
    nobody: bytes
    certificates: tuple[tuple[str, Principal], ...]
    challenges: tuple[tuple[bytes, bytes], ...]
    headers: tuple[tuple[bytes, bytes], ...]
    asks_who: bool

    @classmethod
    def of(cls, config: WebConfig) -> Keys:
        key = secrets.token_bytes(32)
        costs = [int(user.bcrypt.split(b"$")[2]) for user in config.users.values()]
        kinds = [kind for kind, some in (("Basic", config.users), ("Bearer", config.tokens)) if some]
        return cls(
            key=key,
            by_mac={_mac(key, sha256): who for sha256, who in config.tokens.items()},
            users={name.encode(): user for name, user in config.users.items()},
            nobody=hash_of_nobody(max(costs, default=10)),
            certificates=tuple(config.certificates.items()),
            challenges=tuple((b"www-authenticate", f'{kind} realm="{REALM}"'.encode()) for kind in kinds),
            headers=config.headers,
            asks_who=config.asks_who,
        )

    def of_certificate(self, names: frozenset[str]) -> Principal | None:
        """Whose the certificate with these names is: the first of the file, if there are several."""
        return next((who for name, who in self.certificates if name in names), None)

    def of_token(self, token: bytes) -> Principal | None:
        return self.by_mac.get(_mac(self.key, hashlib.sha256(token).digest()))


class Gate:
    """An application that lets requests through to another one.

    keys: asked at each request, so that others may be put in their place.
    """

    def __init__(self, app: App, keys: Callable[[], Keys], passwords: Passwords) -> None:
        self._app = app
        self._keys = keys
        self._passwords = passwords

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        keys = self._keys()
        if keys.headers:
            send = _with_headers(send, keys.headers)
        if keys.asks_who:
            needed = right_for(scope["path"])
            if needed is not OPEN:
                try:
                    scope[SCOPE_KEY] = await self._admit(keys, scope, needed)
                except _Refused as refused:
                    _refused[refused.reason].inc()
                    await _answer(send, scope, refused, keys)
                    return
        await self._app(scope, receive, send)

    async def _admit(self, keys: Keys, scope: Scope, needed: Right | None) -> Principal:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        credentials = [value for name, value in headers if name == b"authorization"]
        principal = None
        if not credentials:
            principal = keys.of_certificate(scope.get(CERTIFICATE_KEY, frozenset()))
            if principal is None:
                raise _Refused(401, "no_credentials", "credentials are missing")
        elif len(credentials) == 1 and len(credentials[0]) <= MAX_CREDENTIALS_BYTES:
            kind, _, secret = credentials[0].partition(b" ")
            if kind.lower() == b"bearer":
                principal = keys.of_token(secret.strip())
            elif kind.lower() == b"basic" and keys.users:
                principal = await self._log_in(keys, secret, scope)
        if principal is None:
            raise _Refused(401, "wrong_credentials", "the credentials are wrong")
        if needed is None:
            raise _Refused(404, "no_such_route", "there is no such route")
        if not principal.may(needed):
            name = str(needed.name).lower()
            raise _Refused(403, "missing_right", f"{principal.name} lacks the right {name!r}, which this needs")
        if principal.tenants and scope["path"] in OF_ALL_TENANTS:
            about = "shows numbers of all tenants, and these credentials are bound to some"
            raise _Refused(403, "of_all_tenants", f"{about}: {', '.join(principal.tenants)}")
        if needed is not Right.READ and _of_another_site(headers):
            raise _Refused(403, "other_site", "a page of another site may not do this")
        return principal

    async def _log_in(self, keys: Keys, secret: bytes, scope: Scope) -> Principal | None:
        try:
            name, _, password = base64.b64decode(secret.strip(), validate=True).partition(b":")
        except binascii.Error:
            return None
        user = keys.users.get(name)
        peer = scope.get("client") or ("",)
        try:
            hashed = user.bcrypt if user else keys.nobody
            is_right = await self._passwords.check(name, password, hashed, peer[0])
        except Busy:
            raise _Refused(503, "busy", "too many passwords are being checked") from None
        return user.principal if user and is_right else None


def _mac(key: bytes, data: bytes) -> bytes:
    # A tenth of the time of an HMAC from OpenSSL.
    return hashlib.blake2b(data, key=key, digest_size=32).digest()


def _of_another_site(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a browser sends this for a page from elsewhere, with credentials that it keeps for this server."""
    found = dict(headers)
    site = found.get(b"sec-fetch-site")
    if site is not None:
        return site not in (b"same-origin", b"none")
    origin = found.get(b"origin")
    return origin is not None and origin.partition(b"://")[2] != found.get(b"host")


def _with_headers(send: Send, headers: tuple[tuple[bytes, bytes], ...]) -> Send:
    names = {name for name, _ in headers}

    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [(name, value) for name, value in message.get("headers", ()) if name not in names]
            message = {**message, "headers": [*own, *headers]}
        await send(message)

    return with_headers


async def _answer(send: Send, scope: Scope, refused: _Refused, keys: Keys) -> None:
    error = f"{scope['method']} {scope['path']}: {refused}"
    path = scope["path"]
    if path.startswith(("/api/", "/internal/")):
        types = {401: "unauthorized", 403: "forbidden", 404: "not_found", 503: "unavailable"}
        # "message" is what the tiers read of one another's errors.
        answer = {"status": "error", "errorType": types[refused.status], "error": error, "message": error}
        if path.startswith("/api/"):
            del answer["message"]
        body, media_type = orjson.dumps(answer), b"application/json"
    else:
        body, media_type = (error + "\n").encode(), b"text/plain; charset=utf-8"
    headers = [(b"content-type", media_type), (b"content-length", b"%d" % len(body))]
    if refused.status == 401:
        headers += keys.challenges
    if refused.status == 503:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
