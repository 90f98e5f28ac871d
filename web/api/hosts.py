"""Hosts."""

from orchestrator.operations import Job
from web.api.context import Context
from web.api.operation import Api
from web.api.working import ACCEPTED, Begun, begin
from web.models.base import Named
from web.models.hosts import DrainDocument, Drained, DrainWish
from web.models.operations import Preferred
from web.roles import Role


def add(api: Api, context: Context) -> None:
    """Add what is asked of one host."""
    control = context.control

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
