"""Placements: of everything anew, of what is kept warm, and Pareto fronts."""

from orchestrator.operations import Job
from web.api.context import Context
from web.api.operation import Api
from web.api.working import ACCEPTED, Begun, begin
from web.models.operations import Preferred
from web.models.plans import (
    FrontDocument,
    FrontPlanNamed,
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

    @api.post(
        "/plans", ProposalDocument, role=Role.OPERATOR, problems=(404, 409, 503), others=ACCEPTED
    )
    def plan(body: PlanWish, header: Preferred) -> Begun:
        """Place everything anew, and with `apply` move what is awake there.

        What was only shown can be applied afterwards just as it was, by naming its operation in
        `of`, as long as it is still right; a plan of a front by its number as well, in `plan`.
        """
        if body.of is not None:
            control.operations.get(body.of)

        def work(job: Job) -> ProposalDocument:
            if body.of is not None:
                tag = body.tag or ""
                proposal = control.carry_out(body.of, job, number=body.plan, tag=tag)
            else:
                options = body.options()
                proposal = control.rebalance(dry_run=not body.apply, options=options, job=job)
            return ProposalDocument.of(proposal, applied=body.apply, operation=job.id)

        return begin(control, header, "plan", control.lab.name, work)

    @api.post("/plans/warm", WarmingDocument, role=Role.OPERATOR, problems=(409,), others=ACCEPTED)
    def warm_plan(body: WarmWish, header: Preferred) -> Begun:
        """Say what hosts should keep warm."""

        def work(_job: Job) -> WarmingDocument:
            return WarmingDocument.of(control.warm(body.warm_options()))

        return begin(control, header, "warm", control.lab.name, work)

    @api.post("/fronts", FrontDocument, role=Role.OPERATOR, problems=(409,), others=ACCEPTED)
    def pareto_front(body: FrontWish, header: Preferred) -> Begun:
        """Find the Pareto front of some terms."""

        def work(job: Job) -> FrontDocument:
            options = body.options()
            found = control.front(body.terms, options=options, points=body.points, job=job)
            return FrontDocument.of(found, job.id)

        return begin(control, header, "front", control.lab.name, work)

    @api.get("/fronts/<id>/plans/<number>", ProposalDocument, problems=(409,))
    def plan_of_front(path: FrontPlanNamed) -> ProposalDocument:
        """Return a plan of a front that was found, and what it would change of what runs now.

        To apply it just as it is here: `POST /plans` with `apply`, the operation as `of`, the
        number as `plan`, and its `tag`.
        """
        operation = control.operations.get(path.id)
        proposal = control.kept_plan(operation.id, path.number)
        return ProposalDocument.of(proposal, applied=False, operation=operation.id)
