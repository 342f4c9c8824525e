"""How a process shows itself to the servers that it calls: its token, its certificate, and whom it trusts."""

from __future__ import annotations

import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from common.errors import RetryableError, StartupError
from common.events import EventLog
from common.tls import load_authorities, load_certificate
from common.watched import Stamp, stamp, warn_if_readable_by_all

LOOK_EVERY_S = 1.0
MAX_TOKEN_BYTES = 4096
SECURE = "https://"
_log = EventLog("calling")


@dataclass(frozen=True, slots=True)
class CallerFiles:
    """token: one line. ca: authorities to trust, else the system's. cert, key: the certificate to show."""

    token: Path | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def present(self) -> tuple[Path, ...]:
        return tuple(file for file in (self.token, self.ca, self.cert, self.key) if file is not None)


class Caller:
    """Credentials for calls, read again when their files change.

    tenant: for whom the calls are, if not for whom the credentials are.
    An authority that is taken out of its file stays trusted until the process ends.

    Raises:
        StartupError: a file cannot be read, or is none of its kind.
    """

    def __init__(self, files: CallerFiles | None = None, tenant: str | None = None) -> None:
        self._tenant = tenant
        self._files = files or CallerFiles()
        if (self._files.cert is None) is not (self._files.key is None):
            raise StartupError("a certificate and its key belong together; one of the two files is not given")
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        self._headers: dict[str, str] = {}
        self._look_at_s = 0.0
        self._stamp: Stamp = ()
        if files is not None:
            self._stamp = stamp(files.present())
            warn_if_readable_by_all(file for file in (files.token, files.key) if file is not None)
            self._load()

    def url(self, address: str, path: str) -> str:
        """The URL of a route of a node: its address is host:port, or https://host:port.

        Raises:
            RetryableError: it would have to be asked without TLS, though authorities to trust are given.
        """
        if address.startswith(SECURE):
            return address + path
        if self._files.ca is not None:
            raise RetryableError(f"{address} has no TLS; nodes are asked with TLS only, since a CA file is given")
        return f"http://{address}{path}"

    def headers(self) -> dict[str, str]:
        """What to send along with a request."""
        if self._files.token is not None or self._files.cert is not None:
            self._refresh()
        if self._tenant is not None:
            return {**self._headers, "X-Scope-OrgID": self._tenant}
        return self._headers

    def context(self) -> ssl.SSLContext:
        """For connections with TLS; certificates that are renewed are exchanged in it."""
        with self._lock:
            if self._context is None:
                self._context = self._make_context()
            return self._context

    def _refresh(self) -> None:
        now_s = time.monotonic()
        if now_s < self._look_at_s or not self._lock.acquire(blocking=False):
            return
        try:
            self._look_at_s = now_s + LOOK_EVERY_S
            found = stamp(self._files.present())
            if found != self._stamp:
                self._stamp = found
                self._load()
        except (StartupError, OSError) as error:
            _log.warning("credentials_not_reloaded", reason=str(error))
        finally:
            self._lock.release()

    def _load(self) -> None:
        files = self._files
        if files.token is not None:
            self._headers = {"Authorization": f"Bearer {read_token(files.token)}"}
        if self._context is None:
            if files.ca is not None or files.cert is not None:
                self._context = self._make_context()
        else:
            self._fill(self._context)

    def _make_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        if self._files.ca is None:
            context.load_default_certs()
        self._fill(context)
        return context

    def _fill(self, context: ssl.SSLContext) -> None:
        if self._files.ca is not None:
            load_authorities(context, self._files.ca)
        if self._files.cert is not None and self._files.key is not None:
            load_certificate(context, self._files.cert, self._files.key)


def read_token(file: Path) -> str:
    """The token in a file, without the white space around it.

    Raises:
        StartupError: there is none, or more than one.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_TOKEN_BYTES + 1)
    except OSError as error:
        raise StartupError(f"cannot read {file}: {error.strerror}") from None
    token = data.strip()
    if not token or len(data) > MAX_TOKEN_BYTES or not all(0x21 <= byte <= 0x7E for byte in token):
        raise StartupError(f"{file} has to hold one token on one line")
    return token.decode("ascii")


ANONYMOUS = Caller()
"""Shows nothing of itself, and trusts the system's authorities."""
