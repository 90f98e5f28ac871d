"""Hosts."""

from collections.abc import Sequence

from orchestrator.control import Orchestrator
from orchestrator.model import Instance
from orchestrator.operations import Job
from orchestrator.views import HostStatus
from web.api.context import Context
from web.api.operation import Api
from web.api.working import ACCEPTED, Begun, begin
from web.models.base import Named
from web.models.hosts import DrainDocument, Drained, DrainWish, HostDetails, HostsDocument
from web.models.operations import Preferred
from web.roles import Role


def add(api: Api, context: Context) -> None:
    """Add what is told and asked of hosts."""
    control = context.control

    @api.get("/hosts", HostsDocument, etag=True)
    def hosts() -> HostsDocument:
        """Return all hosts, what they draw, and what runs there."""
        return HostsDocument(hosts=_details(control, control.host_statuses()))

    @api.get("/hosts/<name>", HostDetails, etag=True)
    def host(path: Named) -> HostDetails:
        """Return a host: what it has, what is free, what it draws, and what runs there."""
        (found,) = _details(control, (control.host_status(path.name),))
        return found

    @api.post("/hosts/<name>/drain", Drained, role=Role.OPERATOR, others=ACCEPTED)
    def drain_host(path: Named, body: DrainWish, header: Preferred) -> Begun:
        """Begin to move everything off a host, and place nothing there.

        The operation is done when that has begun; how far the drain is, the host tells.
        """
        control.known_host(path.name)

        def work(job: Job) -> Drained:
            report = control.drain(path.name, force=body.force, job=job)
            return Drained(host=path.name, drain=DrainDocument.of(report))

        return begin(control, header, "drain", path.name, work)

    @api.delete("/hosts/<name>/drain", Drained, role=Role.OPERATOR)
    def undrain_host(path: Named) -> Drained:
        """Use a host again."""
        control.undrain(path.name)
        return Drained(host=path.name, drain=None)


def _details(control: Orchestrator, hosts: Sequence[HostStatus]) -> list[HostDetails]:
    here: dict[str, list[Instance]] = {status.host.name: [] for status in hosts}
    for instance in sorted(control.fleet.instances(), key=lambda each: each.name):
        for name in here.keys() & {instance.host, instance.to}:
            here[name].append(instance)
    power = control.insight.power
    return [
        HostDetails.with_guests(status, power(status.host), here[status.host.name])
        for status in hosts
    ]
