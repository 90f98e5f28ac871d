"""Wakes as OpenTelemetry traces: a span for the wake, and one below it for each of its stages.

Needs the extra ``otel``; where they are sent is said by the standard ``OTEL_*`` variables of the
environment, such as ``OTEL_EXPORTER_OTLP_ENDPOINT`` (OTLP over HTTP, protobuf). For `edgewake up
--otel`.
"""

import os

from orchestrator.errors import InstallationError
from orchestrator.trace import Wake

try:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, set_span_in_context
except ImportError as error:
    raise InstallationError(
        f"wakes cannot be exported to OpenTelemetry: {error}",
        hint="install edgewake with its extra: pip install 'edgewake[otel]'",
    ) from error

NAME = "edgewake"


class OtelExport:
    """Sends each wake that is over; an `orchestrator.trace_export.Export`."""

    def __init__(self) -> None:
        named = "OTEL_SERVICE_NAME" in os.environ
        named |= "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        resource = Resource.create({} if named else {"service.name": NAME})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer: Tracer = self._provider.get_tracer(NAME)

    def __call__(self, wake: Wake) -> None:
        """Hand a wake to the exporter, which sends it from a thread of its own."""
        end_s = max((at for _, at in wake.stamps), default=0.0)
        root = self._tracer.start_span(
            f"wake {wake.service}",
            kind=SpanKind.SERVER,
            start_time=_epoch_ns(wake, 0.0),
            attributes={
                "edgewake.wake": wake.id,
                "edgewake.service": wake.service,
                "edgewake.outcome": str(wake.outcome),
                "edgewake.rung": wake.rung,
                "edgewake.host": wake.host,
                "edgewake.instance": wake.instance,
                "edgewake.decided_by": wake.decided_by,
                "edgewake.queries": wake.queries,
                "edgewake.own_s": wake.own_s,
            },
        )
        if wake.outcome != "ready":
            root.set_status(Status(StatusCode.ERROR, wake.text or str(wake.outcome)))
        context = set_span_in_context(root)
        for span in wake.spans:
            self._tracer.start_span(
                span.stage,
                context=context,
                start_time=_epoch_ns(wake, span.at_s - span.took_s),
                attributes={"edgewake.owner": str(span.owner)},
            ).end(_epoch_ns(wake, span.at_s))
        root.end(_epoch_ns(wake, end_s))

    def close(self) -> None:
        """Send what was not sent yet, within the exporter's own limits, and end."""
        self._provider.shutdown()


def _epoch_ns(wake: Wake, since_s: float) -> int:
    return round((wake.started_at + since_s) * 1e9)
