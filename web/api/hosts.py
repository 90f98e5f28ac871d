"""Hosts."""

from web.api.context import Context
from web.api.operation import Api
from web.models.base import Named
from web.models.hosts import DrainDocument, Drained, DrainWish
from web.roles import Role


def add(api: Api, context: Context) -> None:
    """Add what is asked of one host."""
    control = context.control

    @api.post("/hosts/<name>/drain", Drained, role=Role.OPERATOR)
    def drain_host(path: Named, body: DrainWish) -> Drained:
        """Begin to move everything off a host, and place nothing there; returns at once."""
        report = control.drain(path.name, force=body.force)
        return Drained(host=path.name, drain=DrainDocument.of(report))

    @api.delete("/hosts/<name>/drain", Drained, role=Role.OPERATOR)
    def undrain_host(path: Named) -> Drained:
        """Use a host again."""
        control.undrain(path.name)
        return Drained(host=path.name, drain=None)
