"""Placements: of everything anew, of what is kept warm, and Pareto fronts."""

from web.api.context import Context
from web.api.operation import Api
from web.models.plans import (
    FrontDocument,
    FrontWish,
    PlanWish,
    ProposalDocument,
    WarmingDocument,
    WarmWish,
)
from web.roles import Role


def add(api: Api, context: Context) -> None:
    """Add what places everything anew."""
    control = context.control

    @api.post("/plans", ProposalDocument, role=Role.OPERATOR, problems=(409, 503))
    def plan(body: PlanWish) -> ProposalDocument:
        """Place everything anew, and with `apply` move what is awake there."""
        proposal = control.rebalance(dry_run=not body.apply, options=body.options())
        return ProposalDocument.of(proposal, applied=body.apply)

    @api.post("/plans/warm", WarmingDocument, role=Role.OPERATOR, problems=(409,))
    def warm_plan(body: WarmWish) -> WarmingDocument:
        """Say what hosts should keep warm."""
        return WarmingDocument.of(control.warm(body.warm_options()))

    @api.post("/fronts", FrontDocument, role=Role.OPERATOR, problems=(409,))
    def pareto_front(body: FrontWish) -> FrontDocument:
        """Find the Pareto front of some terms."""
        found = control.front(body.terms, options=body.options(), points=body.points)
        return FrontDocument.of(found)
