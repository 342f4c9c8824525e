"""The door of a process: what its web configuration file says, kept up to date while it serves."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import time
from pathlib import Path

from prometheus_client import Counter, Gauge

from common.asgi import App
from common.errors import StartupError
from common.events import EventLog
from common.watched import Stamp, stamp, warn_if_readable_by_all
from tabor.doors import config
from tabor.doors.config import WebConfig
from tabor.doors.connections import Limits
from tabor.doors.gate import Gate, Keys
from tabor.doors.passwords import Passwords
from tabor.doors.tls import ExchangeableContext, expires_at_s, server_context

LOOK_EVERY_S = 1.0
_FILE = "add --web-config FILE (docs/security.md; 'tabor web-config token' makes the first token)"

_RELOADS = Counter("tabor_door_reloads", "Reloads of the web configuration file and its certificates", ["outcome"])
_reloaded, _refused = (_RELOADS.labels(outcome) for outcome in ("done", "refused"))
_CURRENT = Gauge("tabor_door_config_current", "1 if what the files hold now is what is in force, else 0")
_SINCE = Gauge("tabor_door_config_loaded_timestamp_seconds", "When what is in force was loaded, Unix time")
_EXPIRES = Gauge(
    "tabor_door_certificate_expires_timestamp_seconds",
    "When the certificate of this door ends, Unix time; 0 if it has ended or there is none",
)
_log = EventLog("door")


class Door:
    """Decides who gets in. Without a file everybody does, and nothing stands in front of the application.

    limits: what connections may take, whoever is behind them.

    Raises:
        StartupError: the file, or a file that it names, cannot be used; says which, and why.
    """

    def __init__(
        self, web_config: Path | None = None, *, insecure: bool = False, limits: Limits | None = None
    ) -> None:
        self.limits = limits or Limits()
        self._path = web_config
        self._insecure = insecure
        self._exposed = False
        self._passwords = Passwords()
        self._context: ExchangeableContext | None = None
        self._config: WebConfig | None = None
        self._keys: Keys | None = None
        self._watched: tuple[Path, ...] = () if web_config is None else (web_config,)
        self._stamp: Stamp = stamp(self._watched)
        if web_config is not None:
            self._put(*self._load(web_config))
            _CURRENT.set(1)

    @property
    def scheme(self) -> str:
        return "http" if self._context is None else "https"

    @property
    def context(self) -> ssl.SSLContext | None:
        """What connections are encrypted with; the object stays, what is behind it changes."""
        return self._context

    def check_exposure(self, sock: socket.socket) -> None:
        """See to it that nobody from elsewhere gets in unasked.

        Raises:
            StartupError: the socket can be reached from other machines, and nobody would be asked who he is.
        """
        host, port = sock.getsockname()[:2]
        self._exposed = not ipaddress.ip_address(host).is_loopback and not self._insecure
        if self._exposed and (self._config is None or not self._config.locks):
            shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            mend = _FILE
            if self._path is not None:
                mend = f"{self._path} has neither tokens nor users; add one ('tabor web-config token' makes it)"
            raise StartupError(
                f"{shown} can be reached from other machines, and others could read, write and delete there: "
                f"{mend}, or --insecure to insist"
            )

    def in_front_of(self, app: App) -> App:
        """The application behind the gate, if there is one."""
        if self._keys is None:
            return app
        return Gate(app, self._keys_now, self._passwords)

    def describe(self) -> str:
        """For people: how it is locked."""
        if self._config is None:
            return "open to everyone who reaches it"
        about = [self.scheme]
        if self._config.tls is not None and self._config.tls.client_auth:
            about.append("client certificates")
        counts = {
            "token": len(self._config.tokens),
            "user": len(self._config.users),
            "named certificate": len(self._config.certificates),
        }
        about += [f"{count} {what}{'s' if count > 1 else ''}" for what, count in counts.items() if count]
        return ", ".join(about) + ("" if self._config.asks_who else ", nobody is asked who he is")

    async def follow(self) -> None:
        """Look for changes of the files again and again, until cancelled."""
        while self._path is not None:
            await asyncio.sleep(LOOK_EVERY_S)
            await asyncio.to_thread(self.reload_if_changed)

    def reload_if_changed(self) -> None:
        """Put into force what the files hold now, if that can be used; else say why not, and go on as before."""
        assert self._path is not None
        found = stamp(self._watched)
        if found == self._stamp:
            return
        self._stamp = found
        try:
            loaded, context = self._load(self._path)
            self._check_reload(loaded)
        except (StartupError, OSError) as error:
            # OSError: a file went away while it was read; whatever it is, the next change is looked at again.
            _refused.inc()
            _CURRENT.set(0)
            _log.error("web_config_not_reloaded", reason=str(error))
            return
        self._put(loaded, context)
        _reloaded.inc()
        _CURRENT.set(1)
        _log.info("web_config_reloaded", door=self.describe())

    def close(self) -> None:
        self._passwords.close()

    def _keys_now(self) -> Keys:
        assert self._keys is not None
        return self._keys

    def _load(self, path: Path) -> tuple[WebConfig, ssl.SSLContext | None]:
        loaded = config.load(path)
        # Stamps are taken before the files are read: what changes in between is read again.
        self._watched = loaded.files()
        self._stamp = (*self._stamp[:1], *stamp(self._watched[1:]))
        return loaded, None if loaded.tls is None else server_context(loaded.tls)

    def _check_reload(self, loaded: WebConfig) -> None:
        if (loaded.tls is None) is not (self._context is None):
            raise StartupError(f"{loaded.path}: tls_server_config came or went; that needs a restart")
        if self._exposed and not loaded.locks:
            raise StartupError(f"{loaded.path}: without tokens and users everybody would get in")

    def _put(self, loaded: WebConfig, context: ssl.SSLContext | None) -> None:
        if context is not None and self._context is None:
            self._context = ExchangeableContext(context)
        elif context is not None and self._context is not None:
            self._context.current = context
        self._config, self._keys = loaded, Keys.of(loaded)
        _SINCE.set(time.time())
        _EXPIRES.set(0.0 if loaded.tls is None else expires_at_s(loaded.tls))
        secret = (loaded.path, *(() if loaded.tls is None else (loaded.tls.key,)))
        warn_if_readable_by_all(secret)
