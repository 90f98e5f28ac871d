"""Services: waking them, putting them to sleep, and looking at them."""

import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from ipaddress import IPv4Address, IPv6Address

from flask import Response

from orchestrator.control import Orchestrator
from orchestrator.errors import NotReady
from orchestrator.model import Client, Endpoint, Lab, Rung
from orchestrator.trace import WakeTrace
from web.api.context import Context
from web.api.operation import Api, Media
from web.models.base import Named
from web.models.nouns import ChoiceDocument, EndpointDocument
from web.models.service_details import ServiceDetails
from web.models.services import (
    Choices,
    ForPopulation,
    ServiceDocument,
    ServicesDocument,
    SleepWish,
    Slept,
    WakeWish,
    Woken,
)
from web.models.wakes import WakeDocument
from web.roles import Role

LAST_WAKES = 10  # in the document of a service
GRACE_S = 2.0  # what a wake may end after its deadline: the undo of a boot that came too late


def add(api: Api, context: Context) -> None:
    """Add what is asked of, or about, one service."""
    control = context.control

    @api.get("/services", ServicesDocument, etag=True)
    def services() -> ServicesDocument:
        """Return all services as they are now."""
        known = control.status().services
        return ServicesDocument(services=[ServiceDocument.of(each) for each in known])

    @api.get("/services/<name>", ServiceDetails, etag=True)
    def service(path: Named) -> ServiceDetails:
        """Return a service: what was asked for, where it is and why there, what it costs."""
        status = control.service_status(path.name)
        return ServiceDetails.with_reasons(
            status,
            images=[control.images.image(each) for each in status.service.images],
            choices=control.explain(path.name),
            cost=control.insight.cost(status.service),
            wakes=control.wakes.last(path.name, LAST_WAKES),
        )

    @api.post("/services/<name>/wake", Woken, role=Role.OPERATOR, problems=(409, 503))
    def wake_service(path: Named, body: WakeWish) -> Woken:
        """Wake a service and wait until it answers."""
        return _wake(control, path.name, _client(control.lab, body.client))

    @api.post("/services/<name>/sleep", Slept, role=Role.OPERATOR, problems=(409, 503))
    def put_service_to_sleep(path: Named, body: SleepWish) -> Slept:
        """Put a service to sleep now, used or not."""
        slept = control.release(path.name, Rung(body.to) if body.to else None)
        rung = control.service_status(path.name).rung
        return Slept(service=path.name, slept=list(slept), rung=rung)

    @api.get("/services/<name>/hosts", Choices)
    def hosts_for_service(path: Named, query: ForPopulation) -> Choices:
        """Return for each host whether it would be chosen to wake a service now, best first."""
        choices = control.explain(path.name, query.population)
        return Choices(hosts=[ChoiceDocument.of(each) for each in choices])

    @api.get("/services/<name>/console", Media("text/plain", "The console."), problems=(503,))
    def service_console(path: Named) -> Response:
        """Return the last 64 KiB of the console of a service's guest, also of a past one."""
        return Response(control.console(path.name).decode(errors="replace"), mimetype="text/plain")


def _wake(control: Orchestrator, service: str, client: Client) -> Woken:
    summons = control.summon(service, client, insist=True)
    try:
        endpoints = _await(summons.endpoints, control.lab, service)
    finally:
        if summons.trace is not None:
            summons.trace.replied()
    control.asked[service] = time.monotonic()
    return Woken(
        endpoints=[EndpointDocument.of(each) for each in endpoints],
        wake=_wake_of(control, summons.trace),
    )


def _await(endpoints: Future[tuple[Endpoint, ...]], lab: Lab, service: str) -> tuple[Endpoint, ...]:
    """Wait for a wake, which bounds its own time; the bound here is for the day it does not."""
    deadlines = {each.name: each.deadline_s for each in lab.services}
    deadline_s = deadlines.get(service, 0.0) + GRACE_S
    try:
        return endpoints.result(deadline_s)
    except FutureTimeout:
        raise NotReady(service, f"no answer within {deadline_s:g} s") from None


def _wake_of(control: Orchestrator, trace: WakeTrace | None) -> WakeDocument | None:
    """Return the wake that was waited for; None if the service was awake."""
    if trace is None:
        return None
    for wake in reversed(control.wakes.last(trace.service)):
        if wake.started_at == trace.started_at:
            return WakeDocument.of(wake)
    return None


def _client(lab: Lab, address: IPv4Address | IPv6Address | None) -> Client:
    """Return who asks, with the population whose narrowest subnet holds the address."""
    if address is None:
        return Client()
    holding = [
        (subnet.prefixlen, population.name)
        for population in lab.populations
        for subnet in population.subnets
        if address in subnet
    ]
    return Client(address=address, population=max(holding)[1] if holding else "")
