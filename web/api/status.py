"""The process itself, and everything at a glance."""

from flask import Response, request

from web.api.context import Context
from web.api.operation import Api, Media
from web.families import OPENMETRICS, PLAIN
from web.models.nouns import Abilities, AbilityDocument
from web.models.status import Health, StatusDocument
from web.roles import Role


def add(api: Api, context: Context) -> None:
    """Add what is about the whole."""
    control = context.control

    @api.get("/healthz", Health)
    def healthz() -> Health:
        """Say that the process answers."""
        return Health(status="ok", lab=control.lab.name)

    @api.get("/status", StatusDocument)
    def status() -> StatusDocument:
        """Return hosts and services as they are now; asks no host."""
        return StatusDocument.of(control.status())

    @api.get("/abilities", Abilities)
    def abilities() -> Abilities:
        """Return which rungs of sleep guests survive, by image and host."""
        return Abilities(abilities=[AbilityDocument.of(each) for each in control.abilities()])

    @api.delete("/abilities", Abilities, role=Role.OPERATOR)
    def forget_abilities() -> Abilities:
        """Forget that, so that each rung is probed anew."""
        control.forget_abilities()
        return Abilities(abilities=[])

    @api.get("/metrics", Media(PLAIN, "As Prometheus reads them.", also=(OPENMETRICS,)))
    def metrics() -> Response:
        """Return counters and histograms, as Prometheus reads them."""
        told, kind = context.metrics(request.headers.get("Accept", ""))
        return Response(told, content_type=kind, headers={"Vary": "Accept"})
