"""OpenTelemetry's SDK behind `common.tracing`; imported only where traces are asked for.

The SDK's own variables hold: OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS and the others.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from common import tracing
from common.errors import StartupError
from common.log.url import has_secrets, redact
from common.version import VERSION

FLUSH_MS = 3000
"""How long the last spans may take to be sent when the process stops."""
_KINDS = {"internal": trace.SpanKind.INTERNAL, "client": trace.SpanKind.CLIENT}
_CARRIED = (b"traceparent", b"tracestate")


class OtelTracer:
    """`common.tracing.Tracer`."""

    def __init__(self, exporter: SpanExporter, tier: str) -> None:
        about = {"service.version": VERSION}
        if "OTEL_SERVICE_NAME" not in os.environ:
            about["service.name"] = f"tabor-{tier}"
        self._provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("tabor", VERSION)
        self._propagator = TraceContextTextMapPropagator()

    @contextlib.contextmanager
    def span(self, name: str, kind: str, attributes: Mapping[str, Any]) -> Iterator[Any]:
        with self._tracer.start_as_current_span(name, kind=_KINDS[kind], attributes=attributes) as span:
            yield span

    @contextlib.contextmanager
    def served(self, headers: Sequence[tuple[bytes, bytes]]) -> Iterator[Any]:
        carried = {name.decode(): value.decode("latin-1") for name, value in headers if name in _CARRIED}
        parent = self._propagator.extract(carried, context=contexts.Context())
        with self._tracer.start_as_current_span("request", context=parent, kind=trace.SpanKind.SERVER) as span:
            yield span

    def begin(self, name: str, attributes: Mapping[str, Any], links: Sequence[Any]) -> Any:
        made = [trace.Link(context) for context in links]
        return self._tracer.start_span(name, context=contexts.Context(), attributes=attributes, links=made)

    def context(self) -> Any:
        found = trace.get_current_span().get_span_context()
        return found if found.is_valid else None

    def headers(self) -> dict[str, str]:
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier

    def close(self) -> None:
        """Send what is left, as far as there is time."""
        self._provider.force_flush(FLUSH_MS)
        self._provider.shutdown()


@contextlib.contextmanager
def traced(endpoint: str, tier: str) -> Iterator[None]:
    """Send spans to a collector, by OTLP over HTTP, while the body runs. endpoint: without /v1/traces."""
    if has_secrets(endpoint):
        raise StartupError(
            f"--otlp-endpoint {redact(endpoint)!r} has credentials or parameters in it, where others see them; "
            "give headers in the environment: OTEL_EXPORTER_OTLP_HEADERS='authorization=Bearer%20TOKEN'"
        )
    if not endpoint.startswith(("http://", "https://")):
        raise StartupError(f"--otlp-endpoint {endpoint!r} is no URL; write for example http://127.0.0.1:4318")
    exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces", timeout=FLUSH_MS / 1000)
    tracing.tracer = tracer = OtelTracer(exporter, tier)
    try:
        yield
    finally:
        tracing.tracer = None
        tracer.close()
