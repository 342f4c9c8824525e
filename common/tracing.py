"""Spans of OpenTelemetry, where `--otlp-endpoint` is given; elsewhere nothing is imported and a span is nothing.

`tabor.tracing` sets it up. Spans follow the context (`contextvars`), as request ids do, through threads and, by
W3C's `traceparent`, through processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol


class Span(Protocol):
    """The part of an OpenTelemetry span that is used."""

    def set_attribute(self, key: str, value: Any) -> None: ...

    def end(self) -> None: ...


class Tracer(Protocol):
    """Makes spans; see `tabor.tracing`."""

    def span(self, name: str, kind: str, attributes: Mapping[str, Any]) -> AbstractContextManager[Any]:
        """A span around a block, child of the context's; records what the block raises."""

    def served(self, headers: Sequence[tuple[bytes, bytes]]) -> AbstractContextManager[Any]:
        """A span of a request that has arrived, child of what its headers say."""

    def begin(self, name: str, attributes: Mapping[str, Any], links: Sequence[Any]) -> Span:
        """A span that somebody else ends, with links to other spans' contexts."""

    def context(self) -> Any:
        """The span context that this context is in, for links; None if in none."""

    def headers(self) -> dict[str, str]:
        """What tells another process of the span that this context is in."""


tracer: Tracer | None = None
"""None: tracing is off. Whoever has more to do for a span than `span` looks here first."""
_OFF = nullcontext()


def span(name: str, kind: str = "internal", **attributes: Any) -> AbstractContextManager[Any]:
    """A span around a block, as `Tracer.span`; gives None where tracing is off."""
    return _OFF if tracer is None else tracer.span(name, kind, attributes)


def headers() -> dict[str, str]:
    """As `Tracer.headers`."""
    return {} if tracer is None else tracer.headers()
