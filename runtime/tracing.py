"""Carries a request's trace from step to step, and records spans where OpenTelemetry is installed and asked for."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from config.settings import Misconfigured

HEADER = "traceparent"
_W3C = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Span:
    """A step of a trace: `traceparent` is what is handed on to the next one, None where there is no trace."""

    def __init__(self, traceparent: str | None, recorded: Any = None) -> None:
        self.traceparent = traceparent
        self._recorded = recorded

    def note(self, **attributes: str | float) -> None:
        """Add what is known of the step."""
        if self._recorded is not None:
            self._recorded.set_attributes({f"waybill.{name}": value for name, value in attributes.items()})

    def event(self, name: str, **attributes: str | float) -> None:
        """Add what happened in the step."""
        if self._recorded is not None:
            self._recorded.add_event(name, {f"waybill.{key}": value for key, value in attributes.items()})


class Tracer:
    """Makes spans: recorded by `recorder`, a tracer of OpenTelemetry's, or only handing the trace on without one."""

    def __init__(self, recorder: Any = None) -> None:
        self._recorder = recorder

    @contextmanager
    def span(self, name: str, traceparent: str | None) -> Iterator[Span]:
        """Make the block a step of the trace; an error that leaves it is recorded."""
        if self._recorder is None:
            yield Span(traceparent)
            return
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        w3c, carrier = TraceContextTextMapPropagator(), dict[str, str]()
        parent = w3c.extract({} if traceparent is None else {HEADER: traceparent})
        with self._recorder.start_as_current_span(name, context=parent) as recorded:
            w3c.inject(carrier)
            yield Span(carrier[HEADER], recorded)


def open_tracer(endpoint: str | None, service: str) -> Tracer:
    """Make a tracer that sends spans to `endpoint` (OTLP over HTTP) from a thread of its own; None records nothing.

    Whatever else OpenTelemetry's own variables say (`OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_TRACES_SAMPLER`, …), it reads
    itself. Raises Misconfigured when the extra `otel` is not installed.
    """
    if endpoint is None:
        return Tracer()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise Misconfigured(["OTEL_EXPORTER_OTLP_ENDPOINT is set, and needs: pip install 'waybill[otel]'"]) from error
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracer(provider.get_tracer("waybill", version("waybill")))


def read_traceparent(headers: Iterable[tuple[str, bytes | None]]) -> str | None:
    """Find a message's `traceparent`; what is not as the W3C has it is none."""
    found = next((value for name, value in headers if name == HEADER and value is not None), b"")
    text = found.decode("ascii", "replace")
    return text if _W3C.fullmatch(text) else None


def headers_of(traceparent: str | None) -> tuple[tuple[str, bytes], ...]:
    """Give the headers of a message that hands a trace on."""
    return () if traceparent is None else ((HEADER, traceparent.encode()),)


def trace_id(traceparent: str | None) -> str | None:
    """Give the trace's id, as log lines carry it."""
    return None if traceparent is None else traceparent.split("-")[1]
