"""A running Tabor as `tabor export` and `tabor import` see it: over HTTP, with patience."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import cramjam
import httpx

from common.calling import ANONYMOUS, Caller
from common.errors import CallerError, TaborError

PATIENCE_S = 300.0
"""How long one request is tried again while the server is busy, restarting or out of reach."""
_LONGEST_WAIT_S = 30.0
_TIMEOUT_S = 300.0
_WRITE_HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}


class Unreachable(TaborError):
    """The server did not answer, or only that it cannot for now."""


class Refused(CallerError):
    """The server refused a request; sending it again cannot help."""


class TooMuch(Refused):
    """The request asks for, or brings, more than the server's limits allow."""


class Server:
    """Requests to one server, one after another on one connection."""

    def __init__(self, url: str, caller: Caller = ANONYMOUS) -> None:
        self.url = url.rstrip("/")
        self._caller = caller
        try:
            if httpx.URL(self.url).userinfo:
                raise Refused(
                    "--url has a password in it, which other users of this machine see; give --token-file"
                )
            self._client = httpx.Client(base_url=self.url, timeout=_TIMEOUT_S, verify=caller.context())
        except (httpx.InvalidURL, ValueError) as error:
            raise Refused(f"--url {url} is not a URL: {error}") from None
        self._answered = False

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def data(self, path: str, parameters: Mapping[str, str]) -> Any:
        """The data of an answer of Prometheus' API. Raises Refused, TooMuch, Unreachable."""
        return self._checked("GET", path, params=parameters).json()["data"]

    def act(self, path: str, parameters: Mapping[str, str]) -> None:
        """Have something done. Raises as `data`."""
        self._checked("POST", path, params=parameters)

    def arrow(self, path: str, parameters: Mapping[str, str]) -> bytes:
        """An Arrow stream. Raises as `data`."""
        return self._checked("GET", path, params=parameters).content

    def write(self, message: bytes) -> str | None:
        """Send a `prometheus.WriteRequest`; what of it was refused, and why, or None.

        Raises:
            TooMuch: it is larger than the server takes; nothing of it is stored. Unreachable.
        """
        body = bytes(cramjam.snappy.compress_raw(message))
        response = self._ask("POST", "/api/v1/write", content=body, headers=_WRITE_HEADERS)
        if response.status_code == 413:
            raise TooMuch(response.text.strip())
        if response.status_code in (401, 403):
            raise Refused(f"{self.url}: {_reason(response)}{_advice(response)}")
        return None if response.is_success else response.text.strip()

    def _checked(self, method: str, path: str, **request: Any) -> httpx.Response:
        response = self._ask(method, path, **request)
        if response.is_success:
            return response
        reason = _reason(response)
        kind = TooMuch if response.status_code == 422 else Refused
        raise kind(f"{self.url}: {reason}{_advice(response)}")

    def _ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, **request: Any
    ) -> httpx.Response:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                shown = {**(headers or {}), **self._caller.headers()}
                response = self._client.request(method, path, headers=shown, **request)
                self._answered = True
                if response.status_code not in (429, 503):
                    return response
                problem, wait_s = _reason(response), _retry_after_s(response)
            except (httpx.TransportError, httpx.UnsupportedProtocol) as error:
                problem, wait_s = f"cannot be reached: {str(error).rstrip('.')}", 1.0
                if not self._answered:
                    raise Unreachable(f"{self.url} {problem}; {what_to_look_at(self.url, error)}") from None
            if time.monotonic() + wait_s > deadline:
                raise Unreachable(f"{self.url} {problem}; tried for {PATIENCE_S:.0f} s")
            time.sleep(wait_s)


def what_to_look_at(url: str, error: Exception) -> str:
    """What a user does about a server that could not be asked."""
    text = str(error)
    if isinstance(error, httpx.UnsupportedProtocol):
        return f"write --url http://{url} or https://{url}"
    if isinstance(error, httpx.RemoteProtocolError) and url.startswith("http://"):
        return "if it speaks TLS, write --url https://…"
    if "WRONG_VERSION_NUMBER" in text:
        return "it does not speak TLS; write --url http://…"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "--ca-file names the authority to trust, and the certificate has to have the name in --url"
    return "does Tabor run there? (--url)"


def _advice(response: httpx.Response) -> str:
    return " (--token-file)" if response.status_code == 401 else ""


def _reason(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"answered {response.status_code}: {response.text.strip()[:500]}"


def _retry_after_s(response: httpx.Response) -> float:
    try:
        return min(max(float(response.headers.get("retry-after", "1")), 0.1), _LONGEST_WAIT_S)
    except ValueError:
        return 1.0
