"""Services: waking them, putting them to sleep, and looking at them."""

import time
from ipaddress import IPv4Address, IPv6Address

from flask import Response

from orchestrator.control import Orchestrator
from orchestrator.model import Client, Endpoint, Lab, Rung
from orchestrator.operations import Job
from orchestrator.trace import WakeTrace
from web.api.context import Context
from web.api.operation import Api, Media
from web.api.working import ACCEPTED, Begun, begin, follow
from web.models.base import Named
from web.models.nouns import ChoiceDocument, EndpointDocument
from web.models.operations import Preferred
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

    @api.post(
        "/services/<name>/wake",
        Woken,
        role=Role.OPERATOR,
        problems=(409, 503),
        others=ACCEPTED,
    )
    def wake_service(path: Named, body: WakeWish, header: Preferred) -> Begun:
        """Wake a service; done when it answers."""
        control.known(path.name)
        summons = control.summon(path.name, _client(control.lab, body.client), insist=True)
        trace = summons.trace
        if trace is not None:
            summons.endpoints.add_done_callback(lambda _ended: trace.replied())

        def woken(endpoints: tuple[Endpoint, ...]) -> Woken:
            control.asked[path.name] = time.monotonic()
            return Woken(
                endpoints=[EndpointDocument.of(each) for each in endpoints],
                wake=_wake_of(control, trace),
            )

        return follow(control, header, "wake", path.name, summons.endpoints, result=woken)

    @api.post(
        "/services/<name>/sleep",
        Slept,
        role=Role.OPERATOR,
        problems=(409, 503),
        others=ACCEPTED,
    )
    def put_service_to_sleep(path: Named, body: SleepWish, header: Preferred) -> Begun:
        """Put a service to sleep now, used or not."""
        control.known(path.name)

        def work(_job: Job) -> Slept:
            slept = control.release(path.name, Rung(body.to) if body.to else None)
            rung = control.service_status(path.name).rung
            return Slept(service=path.name, slept=list(slept), rung=rung)

        return begin(control, header, "sleep", path.name, work)

    @api.get("/services/<name>/hosts", Choices)
    def hosts_for_service(path: Named, query: ForPopulation) -> Choices:
        """Return for each host whether it would be chosen to wake a service now, best first."""
        choices = control.explain(path.name, query.population)
        return Choices(hosts=[ChoiceDocument.of(each) for each in choices])

    @api.get("/services/<name>/console", Media("text/plain", "The console."), problems=(503,))
    def service_console(path: Named) -> Response:
        """Return the last 64 KiB of the console of a service's guest, also of a past one."""
        return Response(control.console(path.name).decode(errors="replace"), mimetype="text/plain")


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
