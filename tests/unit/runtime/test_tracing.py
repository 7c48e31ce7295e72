import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from config.settings import Misconfigured
from runtime.tracing import Tracer, open_tracer, read_traceparent, trace_id, write_traceparent

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{PARENT}-01"


def test_a_traceparent_is_read_from_the_headers_and_handed_on() -> None:
    assert read_traceparent([("other", b"x"), ("traceparent", GIVEN.encode())]) == GIVEN
    assert read_traceparent(write_traceparent(GIVEN)) == GIVEN
    assert trace_id(GIVEN) == TRACE
    assert (write_traceparent(None), trace_id(None)) == ((), None)


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\xff\xfe",
        b"00-abc-def-01",
        GIVEN.upper().encode(),
        GIVEN.encode() + b"\nother: x",
        GIVEN.encode() + b"-extra",
        GIVEN.encode() + b"\0",
        f"ff-{TRACE}-{PARENT}-01".encode(),
        f"00-{'0' * 32}-{PARENT}-01".encode(),
        f"00-{TRACE}-{'0' * 16}-01".encode(),
    ],
)
def test_a_header_that_is_no_traceparent_is_none(value: bytes | None) -> None:
    assert read_traceparent([("traceparent", value)]) is None


@pytest.mark.parametrize(
    "value", [f" {GIVEN}\t", f"{GIVEN}\n", GIVEN.replace("00-", "01-", 1), f"01-{GIVEN[3:]}-extra"]
)
def test_a_traceparent_is_handed_on_in_its_canonical_form(value: str) -> None:
    assert read_traceparent([("traceparent", value.encode())]) == GIVEN


@pytest.mark.parametrize("flags", ["00", "01", "02", "03"])
def test_flags_are_handed_on_unchanged(flags: str) -> None:
    given = f"{GIVEN[:-2]}{flags}"

    assert read_traceparent(write_traceparent(given)) == given
    with Tracer().span("export", given) as span:
        assert span.traceparent == given


def test_without_a_trace_there_is_none_to_hand_on() -> None:
    with Tracer().span("outer", GIVEN), Tracer().span("inner", None) as span:
        assert span.traceparent is None


def test_without_an_endpoint_the_trace_is_handed_on_unchanged() -> None:
    with open_tracer(None, "waybill").span("export", GIVEN) as span:
        span.note(rows=1)
        span.event("read", seconds=0.1)

    assert span.traceparent == GIVEN


def test_spans_belong_to_the_trace_of_the_request() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with Tracer(provider.get_tracer("test")).span("export", GIVEN) as span:
        span.note(rows=7)
        span.event("read", seconds=0.5)

    (recorded,) = exporter.get_finished_spans()
    assert recorded.name == "export"
    assert recorded.parent is not None
    assert f"{recorded.parent.span_id:016x}" == PARENT
    assert recorded.attributes == {"waybill.rows": 7}
    assert [(event.name, event.attributes) for event in recorded.events] == [("read", {"waybill.seconds": 0.5})]
    assert recorded.context is not None
    assert span.traceparent == f"00-{TRACE}-{recorded.context.span_id:016x}-01"


def test_a_request_without_a_trace_begins_one_where_spans_are_recorded() -> None:
    with Tracer(TracerProvider().get_tracer("test")).span("export", None) as span:
        pass

    assert read_traceparent(write_traceparent(span.traceparent)) == span.traceparent


def test_an_endpoint_without_the_extra_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)

    with pytest.raises(Misconfigured, match=r"pip install '\.\[otel\]'"):
        open_tracer("http://localhost:4318", "waybill")


def test_an_error_leaves_the_span_and_is_recorded() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    for tracer in (Tracer(), Tracer(provider.get_tracer("test"))):
        with pytest.raises(LookupError, match="odd"), tracer.span("export", GIVEN):
            raise LookupError("odd")

    (recorded,) = exporter.get_finished_spans()
    assert [event.name for event in recorded.events] == ["exception"]


def test_a_tracer_without_an_exporter_loads_only_the_api_of_opentelemetry() -> None:
    script = (
        "import sys; from runtime.tracing import open_tracer\n"
        "with open_tracer(None, 'waybill').span('export', None): pass\n"
        "assert not [name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))]"
    )

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
