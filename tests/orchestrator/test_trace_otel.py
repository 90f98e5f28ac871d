"""Wakes as OpenTelemetry traces, sent to a collector of our own that reads OTLP over HTTP."""

import gzip
import importlib
import logging
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from orchestrator.errors import InstallationError
from orchestrator.trace import Wake
from orchestrator.trace_otel import OtelExport

STARTED_AT = 1_700_000_000.25
WAKE = Wake(
    id=9,
    service="web",
    started_at=STARTED_AT,
    stamps=(("query", 0.0), ("decided", 0.001), ("define", 0.5), ("reply", 0.502), ("client", 1.0)),
    outcome="ready",
    instance="ew-t-web-0",
    host="a",
    queries=2,
    rung="cold",
    decided_by="only host",
)


class Collector(HTTPServer):
    """Takes what an exporter sends."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.requests: list[tuple[str, Any]] = []

    @property
    def spans(self) -> list[Any]:
        return [
            span
            for _, request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


class Receiver(BaseHTTPRequestHandler):
    """Decodes one request."""

    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.requests.append((self.path, ExportTraceServiceRequest.FromString(body)))
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        yield server
        server.shutdown()
        thread.join()


def values(attributes: Any) -> dict[str, Any]:
    """Return attributes of OTLP as a plain dictionary."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


def test_a_wake_is_a_tree_of_spans(collector: Collector) -> None:
    export = OtelExport()
    export(WAKE)
    export.close()
    assert {path for path, _ in collector.requests} == {"/v1/traces"}
    (resource,) = collector.requests[0][1].resource_spans
    assert values(resource.resource.attributes)["service.name"] == "edgewake"
    spans = {span.name: span for span in collector.spans}
    assert set(spans) == {"wake web", "decided", "define", "reply", "client"}
    root = spans.pop("wake web")
    assert not root.parent_span_id
    assert {span.parent_span_id for span in spans.values()} == {root.span_id}
    assert {span.trace_id for span in spans.values()} == {root.trace_id}
    told = values(root.attributes)
    assert told["edgewake.decided_by"] == "only host"
    assert (told["edgewake.host"], told["edgewake.queries"]) == ("a", 2)
    assert root.status.code == 0
    start = round(STARTED_AT * 1e9)
    assert abs(root.start_time_unix_nano - start) < 1000
    assert abs(root.end_time_unix_nano - start - 1_000_000_000) < 1000
    define = spans["define"]
    assert abs(define.start_time_unix_nano - start - 1_000_000) < 1000
    assert abs(define.end_time_unix_nano - start - 500_000_000) < 1000
    assert values(define.attributes) == {"edgewake.owner": "hypervisor"}


def test_a_failed_wake_is_an_error(collector: Collector) -> None:
    export = OtelExport()
    export(Wake(1, "web", STARTED_AT, (("query", 0.0),), "no-capacity", text="web: no room"))
    export.close()
    (root,) = collector.spans
    assert (root.status.code, root.status.message) == (2, "web: no room")


def test_the_environment_names_the_service(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "edge-north")
    export = OtelExport()
    export(WAKE)
    export.close()
    (resource,) = collector.requests[0][1].resource_spans
    assert values(resource.resource.attributes)["service.name"] == "edge-north"


def test_a_collector_that_is_gone_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with caplog.at_level(logging.ERROR):
        export = OtelExport()
        export(WAKE)
        export.close()
    assert any("opentelemetry" in record.name for record in caplog.records)


def test_without_the_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "orchestrator.trace_otel")
    with pytest.raises(InstallationError, match="OpenTelemetry") as caught:
        importlib.import_module("orchestrator.trace_otel")
    assert "edgewake[otel]" in caught.value.hint


def test_only_who_asks_for_it_needs_the_packages() -> None:
    root = Path(__file__).parents[2] / "orchestrator"
    importers = [
        file.name for file in root.rglob("*.py") if "trace_otel import" in file.read_text()
    ]
    assert importers == ["daemon.py"]
