"""Hands a request's trace from step to step, and records spans when an OpenTelemetry endpoint is set."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from config.settings import Misconfigured

HEADER = "traceparent"
_W3C = TraceContextTextMapPropagator()


class Span:
    """A step of a trace; `traceparent` names it to the next step, and is None where there is no trace."""

    def __init__(self, recorded: trace.Span, traceparent: str | None) -> None:
        self.traceparent = traceparent
        self._recorded = recorded

    def note(self, **attributes: str | float) -> None:
        """Add attributes to the step."""
        self._recorded.set_attributes({f"waybill.{name}": value for name, value in attributes.items()})

    def event(self, name: str, **attributes: str | float) -> None:
        """Add an event to the step."""
        self._recorded.add_event(name, {f"waybill.{key}": value for key, value in attributes.items()})


class Tracer:
    """Makes spans with a tracer of OpenTelemetry; the default one records nothing and hands the trace on."""

    def __init__(self, tracer: trace.Tracer | None = None) -> None:
        self._tracer = tracer or trace.NoOpTracer()

    @contextmanager
    def span(self, name: str, traceparent: str | None) -> Iterator[Span]:
        """Make the block a step of the trace; an error that leaves the block is recorded."""
        with self._tracer.start_as_current_span(name, context=_extract(traceparent)) as recorded:
            yield Span(recorded, _inject())


def open_tracer(endpoint: str | None, service: str) -> Tracer:
    """Return a tracer that sends spans to `endpoint` (OTLP over HTTP) from its own thread; without one, a no-op tracer.

    OpenTelemetry reads its other variables itself (`OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_TRACES_SAMPLER`, …). Raises
    Misconfigured when the extra `otel` is not installed.
    """
    if endpoint is None:
        return Tracer()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        remedy = "run pip install '.[otel]' in the repository"
        raise Misconfigured([f"OTEL_EXPORTER_OTLP_ENDPOINT needs packages that are missing: {remedy}"]) from error
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracer(provider.get_tracer("waybill", version("waybill")))


def read_traceparent(headers: Iterable[tuple[str, bytes | None]]) -> str | None:
    """Return a message's `traceparent` as W3C Trace Context writes it; None if it is missing or malformed."""
    found = next((value for name, value in headers if name == HEADER and value is not None), b"")
    return _inject(_extract(found.decode("ascii", "replace")))


def write_traceparent(traceparent: str | None) -> tuple[tuple[str, bytes], ...]:
    """Return the headers of a message that hands a trace on; none if the text is not a traceparent."""
    valid = _inject(_extract(traceparent))
    return () if valid is None else ((HEADER, valid.encode()),)


def trace_id(traceparent: str | None) -> str | None:
    """Return the trace's id, as log lines carry it; None if there is none, or the text is not a traceparent."""
    parts = traceparent.split("-") if isinstance(traceparent, str) else []
    return parts[1] if len(parts) > 1 else None


def _extract(traceparent: str | None) -> Context:
    return _W3C.extract({HEADER: traceparent if isinstance(traceparent, str) else ""})


def _inject(context: Context | None = None) -> str | None:
    """Return the traceparent of a context, or of the current one."""
    carrier = dict[str, str]()
    _W3C.inject(carrier, context)
    return carrier.get(HEADER)
