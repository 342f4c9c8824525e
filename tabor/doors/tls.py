"""TLS of the server side: from files to a context, and a context that can be exchanged while it serves."""

from __future__ import annotations

import contextlib
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.tls import load_authorities, load_certificate

HANDSHAKE_S = 10.0
"""Who has not finished the handshake by then is hung up on."""

_HANDSHAKE_STEPS = 3
VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
CIPHER_SUITES = {
    f"TLS_ECDHE_{key}_WITH_{go}": f"ECDHE-{key}-{openssl}"
    for key in ("ECDSA", "RSA")
    for go, openssl in (
        ("AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
        ("AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
        ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"),
    )
}
"""Those of TLS 1.2 that are good, by the names that Prometheus' file has for them; those of 1.3 are all good."""

SUBJECTS = {"commonName": "CN", "DNS": "DNS", "URI": "URI", "email": "email", "IP Address": "IP"}
"""Names in a certificate by which `client_certs` may call it: as Python has them, and as the file has them."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """client_auth: whether clients have to show a certificate (True), may (False), or are not asked (None)."""

    cert: Path
    key: Path
    client_ca: Path | None = None
    client_auth: bool | None = None
    min_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    max_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    cipher_suites: tuple[str, ...] = ()

    def files(self) -> tuple[Path, ...]:
        return (self.cert, self.key, *(() if self.client_ca is None else (self.client_ca,)))


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """A context of what the files hold now. Raises StartupError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = files.min_version, files.max_version
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    suites = files.cipher_suites or tuple(CIPHER_SUITES)
    context.set_ciphers(":".join(CIPHER_SUITES[suite] for suite in suites))
    load_certificate(context, files.cert, files.key)
    if files.client_ca is not None:
        load_authorities(context, files.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED if files.client_auth else ssl.CERT_OPTIONAL
    return context


def names_in(peer: ssl.SSLObject | None) -> frozenset[str]:
    """The names in the certificate that a client has shown and that was checked, such as 'DNS:node-a'."""
    shown: Any = peer.getpeercert() if peer is not None else None
    if not shown:
        return frozenset()
    subject = (pair for group in shown.get("subject", ()) for pair in group)
    pairs = (*subject, *shown.get("subjectAltName", ()))
    return frozenset(f"{SUBJECTS[kind]}:{name}" for kind, name in pairs if kind in SUBJECTS)


def expires_at_s(files: TlsFiles) -> float:
    """When the certificate ends, Unix time in s; 0 if it has ended, or that cannot be told."""
    try:
        return ssl.cert_time_to_seconds(str(_as_seen_by_a_client(files)["notAfter"]))
    except (OSError, KeyError, ValueError):
        # An ssl.SSLError is an OSError; a client refuses a certificate that has ended.
        return 0.0


def _as_seen_by_a_client(files: TlsFiles) -> dict[str, Any]:
    # Python tells what is in a certificate of a peer only, and of one that is trusted: so there is one, in memory.
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.cert, files.key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(files.cert)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (asking, answering) * _HANDSHAKE_STEPS:
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return dict(asking.getpeercert() or {})


class ExchangeableContext(ssl.SSLContext):
    """Stands for another context, which can be exchanged: connections made from then on have the new one.

    An event loop begins each connection with `wrap_bio`, so whoever answers that exchanges all: certificate,
    client authorities, versions. OpenSSL's callback for server names would exchange the certificate alone.
    """

    current: ssl.SSLContext

    def __new__(cls, current: ssl.SSLContext) -> ExchangeableContext:
        self = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        self.current = current
        return self

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        return self.current.wrap_bio(*arguments, **named)
