"""The web configuration file (`--web-config`): Prometheus' layout, and tokens and rights besides.

What it may hold is told in `docs/security.md`. Whatever is wrong in it is a StartupError that names file, key and
reason, and never shows a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

from common.access import Principal, Right
from common.errors import StartupError
from common.tenants import why_no_tenant
from tabor.doors.tls import CIPHER_SUITES, SUBJECTS, VERSIONS, TlsFiles

MAX_FILE_BYTES = 1 << 20
MAX_BCRYPT_COST = 15
"""A hash of cost 15 takes some two seconds to check; a larger one would block all other logins."""
PROMETHEUS_RIGHTS = Right.READ | Right.WRITE
"""Of a user of whom `users` says nothing: what Prometheus lets its users do, whose admin API is off by default."""

_BCRYPT = re.compile(r"\$2[abxy]?\$(\d\d)\$[./A-Za-z0-9]{53}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[^\x00-\x1f\x7f:]{1,128}")
_HEADERS = (
    "Content-Security-Policy",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
)
_CLIENT_AUTH = {"NoClientCert": None, "VerifyClientCertIfGiven": False, "RequireAndVerifyClientCert": True}


@dataclass(frozen=True, slots=True)
class User:
    """bcrypt: the hash of his password."""

    principal: Principal
    bcrypt: bytes


@dataclass(frozen=True, slots=True)
class WebConfig:
    """What the file says.

    tokens: by the SHA-256 of the token. users: by name. certificates: by a name in them, such as 'DNS:node-a', the
    first that fits counts. headers: for every answer.
    """

    path: Path
    tls: TlsFiles | None
    headers: tuple[tuple[bytes, bytes], ...]
    tokens: Mapping[bytes, Principal]
    users: Mapping[str, User]
    certificates: Mapping[str, Principal] = field(default_factory=dict)

    @property
    def asks_who(self) -> bool:
        """Whether requests have to bring credentials."""
        return bool(self.tokens or self.users or self.certificates)

    @property
    def locks(self) -> bool:
        """Whether strangers are kept out: by credentials, or by certificates without which nobody connects."""
        return self.asks_who or (self.tls is not None and self.tls.client_auth is True)

    def files(self) -> tuple[Path, ...]:
        """All that has to be read again when it changes."""
        return (self.path, *(() if self.tls is None else self.tls.files()))


def load(path: Path) -> WebConfig:
    """Read and check a web configuration file; the files that it names are not read.

    Raises:
        StartupError: it cannot be read, or something in it is wrong.
    """
    top = _Table(path, "", _parse(path))
    top.check_keys(
        "tls_server_config", "http_server_config", "basic_auth_users", "tokens", "users", "client_certs"
    )
    users = _users(top.table("basic_auth_users"), top.table("users"))
    tokens: dict[bytes, Principal] = {}
    for token in top.tables("tokens"):
        digest, principal = _token(token)
        if digest in tokens:
            raise token.wrong("sha256", f"is that of the token {tokens[digest].name!r} too")
        tokens[digest] = principal
    tls = _tls(top.table("tls_server_config"))
    certificates: dict[str, Principal] = {}
    for entry in top.tables("client_certs"):
        if tls is None or tls.client_auth is None:
            raise entry.wrong("", "is of no use without client_auth_type in tls_server_config")
        subject, principal = _certificate(entry)
        if subject in certificates:
            raise entry.wrong("subject", f"is that of {certificates[subject].name!r} too")
        certificates[subject] = principal
    return WebConfig(
        path=path,
        tls=tls,
        headers=_headers(top.table("http_server_config")),
        tokens=tokens,
        users=users,
        certificates=certificates,
    )


class _Table:
    """A mapping of the file that knows where it stands, for messages."""

    def __init__(self, path: Path, place: str, values: Any) -> None:
        self._path = path
        self._place = place
        if not isinstance(values, dict):
            raise self.wrong("", "has to be a table of keys and values")
        self.values: dict[Any, Any] = values

    def wrong(self, key: str, reason: str) -> StartupError:
        place = ".".join(part for part in (self._place, key) if part)
        return StartupError(f"{self._path}: {place or 'the file'} {reason}")

    def check_keys(self, *known: str) -> None:
        for key in self.values:
            if key not in known:
                raise self.wrong(str(key), f"is unknown; known are {', '.join(known)}")

    def table(self, key: str) -> _Table:
        value = self.values.get(key)
        return _Table(self._path, f"{self._place}.{key}".lstrip("."), {} if value is None else value)

    def tables(self, key: str) -> list[_Table]:
        values = self.values.get(key) or []
        if not isinstance(values, list):
            raise self.wrong(key, "has to be a list")
        return [_Table(self._path, f"{key}[{i}]", value) for i, value in enumerate(values)]

    def text(self, key: str) -> str | None:
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            raise self.wrong(key, "has to be a text; put it into quotes")
        return value or None

    def texts(self, key: str) -> list[str]:
        values = self.values.get(key) or []
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise self.wrong(key, "has to be a list of texts")
        return values

    def file(self, key: str) -> Path | None:
        """A path, relative to the folder of this file."""
        value = self.text(key)
        return None if value is None else self._path.parent / value

    def one_of(self, key: str, known: Mapping[str, Any], default: str) -> Any:
        value = self.text(key) or default
        if value not in known:
            raise self.wrong(key, f"is {value!r}; known are {', '.join(known)}")
        return known[value]


def _parse(path: Path) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Of a key that is there twice, one would be left out unseen."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            if twice := next((key for i, key in enumerate(keys) if key in keys[:i]), None):
                raise StartupError(f"{path}: the key {twice!r} is there twice (line {node.start_mark.line + 1})")
            return super().construct_mapping(node, deep)

    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise StartupError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise StartupError(f"{path} has more than {MAX_FILE_BYTES} bytes")
    try:
        parsed = yaml.load(data, Loader)  # noqa: S506 (it is a SafeLoader)
    except yaml.MarkedYAMLError as error:
        # Not the error itself: it shows the line, which may have a secret in it.
        line = "" if error.problem_mark is None else f" (line {error.problem_mark.line + 1})"
        raise StartupError(f"{path} is not YAML: {error.problem}{line}") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError, TypeError) as error:
        raise StartupError(f"{path} is not YAML ({type(error).__name__})") from None
    return {} if parsed is None else parsed


def _tls(table: _Table) -> TlsFiles | None:
    table.check_keys(
        "cert_file",
        "key_file",
        "client_auth_type",
        "client_ca_file",
        "min_version",
        "max_version",
        "cipher_suites",
        "prefer_server_cipher_suites",
    )
    if not table.values:
        return None
    cert, key, client_ca = table.file("cert_file"), table.file("key_file"), table.file("client_ca_file")
    for name, file in (("cert_file", cert), ("key_file", key)):
        if file is None:
            raise table.wrong(name, "is missing")
    assert cert is not None
    assert key is not None
    asked = table.text("client_auth_type")
    if asked in ("RequestClientCert", "RequireAnyClientCert"):
        raise table.wrong("client_auth_type", f"is {asked}, which checks nothing; give RequireAndVerifyClientCert")
    client_auth = table.one_of("client_auth_type", _CLIENT_AUTH, "NoClientCert")
    if client_auth is None and client_ca is not None:
        raise table.wrong("client_ca_file", "is of no use without client_auth_type")
    if client_auth is not None and client_ca is None:
        raise table.wrong("client_ca_file", f"is missing, and client_auth_type is {asked}")
    suites = table.texts("cipher_suites")
    for suite in suites:
        if suite not in CIPHER_SUITES:
            raise table.wrong("cipher_suites", f"has {suite!r}; known are {', '.join(CIPHER_SUITES)}")
    return TlsFiles(
        cert=cert,
        key=key,
        client_ca=client_ca,
        client_auth=client_auth,
        min_version=table.one_of("min_version", VERSIONS, "TLS12"),
        max_version=table.one_of("max_version", VERSIONS, "TLS13"),
        cipher_suites=tuple(suites),
    )


def _headers(table: _Table) -> tuple[tuple[bytes, bytes], ...]:
    # http2 is Prometheus'; Tabor speaks HTTP/1.1 whatever it says.
    table.check_keys("http2", "headers")
    headers = table.table("headers")
    headers.check_keys(*_HEADERS)
    texts = {name: headers.text(name) for name in headers.values}
    for name, text in texts.items():
        if text is not None and not (text.isascii() and text.isprintable()):
            raise headers.wrong(name, "has characters that a header cannot have")
    return tuple((name.lower().encode(), text.encode()) for name, text in texts.items() if text)


def _users(hashes: _Table, about: _Table) -> dict[str, User]:
    users = {}
    for name in hashes.values:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise hashes.wrong(str(name), "is no name of a user: 1 to 128 characters, no colon")
        match = _BCRYPT.fullmatch(hashes.text(name) or "")
        if match is None:
            raise hashes.wrong(name, "is no bcrypt hash; 'tabor web-config hash-password' makes one")
        if not 4 <= int(match.group(1)) <= MAX_BCRYPT_COST:
            raise hashes.wrong(name, f"has a bcrypt cost of {match.group(1)}; at most {MAX_BCRYPT_COST} is taken")
        principal = Principal(name, PROMETHEUS_RIGHTS)
        if name in about.values:
            user = about.table(name)
            user.check_keys("rights", "tenants")
            principal = _principal(name, user)
        users[name] = User(principal, match.group().encode())
    for name in about.values:
        if name not in users:
            raise about.wrong(str(name), "has no password in basic_auth_users")
    return users


def why_no_name(name: str) -> str | None:
    """Why nobody can be called so in the file, or None if he can."""
    return None if _NAME.fullmatch(name) else f"{name!r} is no name; 1 to 128 characters, no colon"


def _name_in(table: _Table) -> str:
    name = table.text("name")
    if name is None:
        raise table.wrong("name", "has to be there")
    if (reason := why_no_name(name)) is not None:
        raise table.wrong("name", f"is wrong: {reason}")
    return name


def _token(table: _Table) -> tuple[bytes, Principal]:
    table.check_keys("name", "sha256", "rights", "tenants")
    name = _name_in(table)
    digest = (table.text("sha256") or "").lower()
    if not _SHA256.fullmatch(digest):
        raise table.wrong("sha256", "has to be the SHA-256 of the token, 64 hexadecimal digits")
    return bytes.fromhex(digest), _principal(name, table)


def _certificate(table: _Table) -> tuple[str, Principal]:
    table.check_keys("name", "subject", "rights", "tenants")
    name, subject = _name_in(table), table.text("subject") or ""
    kind, _, rest = subject.partition(":")
    if kind not in SUBJECTS.values() or not rest:
        kinds = ", ".join(f"{kind}:…" for kind in SUBJECTS.values())
        raise table.wrong("subject", f"has to be a name in the certificate: {kinds}")
    return subject, _principal(name, table)


def _principal(name: str, table: _Table) -> Principal:
    by_name = {str(right.name).lower(): right for right in Right}
    rights = table.texts("rights")
    if not rights:
        raise table.wrong("rights", f"is missing; a list of {', '.join(by_name)}")
    for right in rights:
        if right not in by_name:
            raise table.wrong("rights", f"has {right!r}; known are {', '.join(by_name)}")
    tenants = table.texts("tenants")
    for tenant in tenants:
        if (reason := why_no_tenant(tenant)) is not None:
            raise table.wrong("tenants", f"is wrong: {reason}")
    if "tenants" in table.values and not tenants:
        raise table.wrong("tenants", "is empty; leave it out for all tenants")
    return Principal(name, reduce(or_, (by_name[right] for right in rights)), tuple(tenants))
