"""A copy of a partition as it comes from another node (`docs/format/copy-api.md`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from common.calling import Caller
from common.errors import RetryableError
from common.wire.frames import MEDIA_TYPE, FrameReader, Kind, WireError, parse_object
from common.wire.marks import COPY_PATH
from common.wire.peers import error_body, error_text
from storage_node.copies import VERSION
from storage_node.copies_http import encode_request

if TYPE_CHECKING:
    import httpx

_CONNECT_S = 2.0
_SILENCE_S = 30.0


class CopyRefused(RetryableError):
    """A peer does not give a copy, or one that is of no use here."""


class CopyForbidden(CopyRefused):
    """The peer does not give copies to this caller, and will not when it is asked again."""


class CopyStream:
    """One copy of one partition. `open` it, read `payloads`; after a WireError `open` it again; `close` it."""

    def __init__(self, caller: Caller, node: str, address: str, partition: int) -> None:
        self._caller = caller
        self._node = node
        self._address = address
        self._partition = partition
        self._stack = ExitStack()
        self._reader: FrameReader | None = None
        self.snapshot = ""
        """Name of the snapshot, once it is known."""

    def open(self, after: bytes) -> dict[str, Any]:
        """Ask for the copy, or for the rest of it behind a key; returns its header.

        Raises:
            WireError: the connection broke. CopyRefused: the node does not give it.
        """
        import httpx

        self.close()
        body = encode_request(self._node, self._partition, self.snapshot, after)
        caller = self._caller
        try:
            timeout = httpx.Timeout(_SILENCE_S, connect=_CONNECT_S)
            client = self._stack.enter_context(
                httpx.Client(timeout=timeout, trust_env=False, verify=caller.context())
            )
            url = caller.url(self._address, COPY_PATH)
            response = self._stack.enter_context(
                client.stream("POST", url, content=body, headers=caller.headers())
            )
            if response.status_code != 200:
                kind = CopyForbidden if response.status_code in (401, 403) else CopyRefused
                raise kind(error_text(response.status_code, error_body(response.iter_raw())))
            if response.headers.get("content-type") != MEDIA_TYPE:
                raise CopyRefused("the answer is not that of a storage node")
            self._reader = FrameReader(_bytes_of(response))
            header = parse_object(self._reader.expect(Kind.HEADER))
        except httpx.HTTPError as error:
            raise WireError(str(error) or type(error).__name__) from None
        if header.get("v") != VERSION or header.get("partition") != self._partition:
            raise CopyRefused(f"the copy is of version {header.get('v')!r}, partition {header.get('partition')!r}")
        if not isinstance(header.get("snapshot"), str):
            raise WireError("the copy has no name")
        self.snapshot = header["snapshot"]
        return header

    def payloads(self) -> Iterator[memoryview]:
        """Payloads of pairs up to the end of the copy. Raises WireError."""
        assert self._reader is not None
        while True:
            kind, payload = self._reader.next()
            if kind is Kind.END:
                return
            if kind is not Kind.PAIRS:
                raise WireError(f"the copy has a frame {kind.name}")
            yield payload

    def close(self) -> None:
        """Give the connection back. A second call does nothing."""
        self._stack.close()
        self._reader = None


def _bytes_of(response: httpx.Response) -> Iterator[bytes]:
    import httpx

    try:
        yield from response.iter_raw()
    except httpx.HTTPError as error:
        raise WireError(str(error) or type(error).__name__) from None
