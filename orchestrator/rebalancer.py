"""Moves what runs: to where a plan wants it, or one instance to a host that somebody names.

`replanning` and `mover` say what has to be done, `carrying` does it. In between this sees to it
that nobody changes the lab meanwhile, and that what is done is what was shown.
"""

from collections.abc import Sequence
from threading import Lock

from orchestrator.carrying import Carrier
from orchestrator.change_log import ChangeLog
from orchestrator.changes import Change, Changes, Migrate
from orchestrator.errors import EdgewakeError
from orchestrator.fleet import Fleet
from orchestrator.lookup import known_host, known_service
from orchestrator.model import Instance, Service
from orchestrator.model import Migrate as Leaving
from orchestrator.mover import Mover
from orchestrator.operations import Job
from orchestrator.planner import Front
from orchestrator.replanning import Kept, Replanner
from orchestrator.views import Proposal
from placement.problem import Options

ASK_AGAIN = "ask again: the plan is for what was"
NOT_ANY_MORE = "what runs now, or the lab, is not any more what this plan was made for"


class Rebalancer:
    """Makes plans and carries them out, one at a time.

    `lock` is held by whoever changes the lab or carries out changes; `log` is where those that were
    only shown are noted.
    """

    def __init__(
        self,
        fleet: Fleet,
        replanner: Replanner,
        carrier: Carrier,
        mover: Mover,
        *,
        log: ChangeLog,
        lock: Lock,
    ) -> None:
        self._fleet = fleet
        self._replanner = replanner
        self._carrier = carrier
        self._mover = mover
        self._log = log
        self._lock = lock

    def rebalance(self, *, dry_run: bool, options: Options, job: Job) -> Proposal:
        """Place everything anew; move what is awake there unless `dry_run`. Blocks.

        The order of the changes never overfills a host. Raises `EdgewakeError` as `Planner.plan`
        does, while another plan is being made, and if the lab was changed meanwhile.
        """
        with self._replanner.alone():
            lab = self._fleet.lab
            job.tell(f"planning: {options.algorithm}, for {options.deadline_s:g} s at most")
            plan = self._replanner.plan(options)
            job.tell(f"found: value {plan.value:g}, gap {plan.gap:.2%}" if plan.gap else "found")
            with self._lock:
                if self._fleet.lab is not lab:
                    raise EdgewakeError("the lab was changed while it was planned", hint=ASK_AGAIN)
                proposal = self._replanner.proposal(plan, options.counts)
                if dry_run:
                    self._log.note("plan", lab.name, proposal.changes, job, applied=False)
                    self._replanner.keep(job.id, Kept(lab, plan, options.counts, proposal.tag))
                else:
                    self._go_over(proposal, job)
            return proposal

    def carry_out(self, operation: str, job: Job, *, number: int | None, tag: str) -> Proposal:
        """Carry out what an earlier dry run of `rebalance` proposed, just as it was shown. Blocks.

        Of a front, the plan of that number, just as `kept_plan` showed it under that tag. Raises
        `EdgewakeError` as that does, while a plan is being made, and if what runs is not any more
        what it was shown for; then nothing was changed.
        """
        with self._replanner.alone(), self._lock:
            kept = self._replanner.kept(operation, number)
            proposal = self._proposal(kept)
            shown = tag or kept.tag
            if shown and shown != proposal.tag:
                raise EdgewakeError(NOT_ANY_MORE, hint="look at it again" if tag else "plan again")
            self._go_over(proposal, job)
            self._fleet.planner.last_plan = proposal.plan
            return proposal

    def kept_plan(self, operation: str, number: int | None) -> Proposal:
        """Return a plan that an operation has found, with what it would change now.

        Raises `EdgewakeError` as `Replanner.kept` does, and if the lab is another one by now.
        """
        return self._proposal(self._replanner.kept(operation, number))

    def _proposal(self, kept: Kept) -> Proposal:
        """Return what a plan that is kept would change now."""
        if self._fleet.lab is not kept.lab:
            raise EdgewakeError(NOT_ANY_MORE, hint="plan again")
        return self._replanner.proposal(kept.plan, kept.weights)

    def front(
        self, terms: Sequence[str], *, options: Options, points: int | None, job: Job
    ) -> Front:
        """Return the Pareto front of some terms, and keep its plans. Blocks.

        Raises `EdgewakeError` as `Planner.front` does, and while another plan is being made.
        """

        def tell(found: int, share: float) -> None:
            job.tell(f"{found} placements found", round(100 * share), 100)

        with self._replanner.alone():
            lab = self._fleet.lab
            found = self._replanner.front(terms, options, points, tell)
            first = {found.terms[0]: 1.0}  # alone is the value of a plan of a front
            self._replanner.keep(job.id, *(Kept(lab, plan, first) for plan in found.plans))
            return found

    def move(self, name: str, host: str, job: Job) -> Changes:
        """Move an instance of a service to a host; return what was done for it. Blocks.

        It is migrated as it runs if its service says so; else, and where that fails, another one
        answers there before it ends. Raises `EdgewakeError` that says why it cannot move: then it
        is where it was, and answers.
        """
        service = known_service(self._fleet, name)
        known_host(self._fleet, host)
        with self._lock:
            instance = self._mover.movable(service, host)
            if migration := self._mover.migration(service, instance, host):
                try:
                    self._move(migration, service, instance, host, job)
                except EdgewakeError as error:
                    if service.migrate is Leaving.LIVE_ONLY:
                        raise
                    job.tell(f"another is booted there instead: {error.message}")
                    instance = self._mover.movable(service, host)
                else:
                    return migration
            changes = self._mover.boot(service, instance, host)
            self._move(changes, service, instance, host, job)
            return changes

    def _go_over(self, proposal: Proposal, job: Job) -> None:
        """Carry out what a plan needs. The caller holds the lock of `apply`."""
        then = {instance.name: instance for instance in self._replanner.movable()}
        with self._carrier.noting("plan", self._fleet.lab.name, proposal.changes, job):
            self._carrier.carry_out(
                proposal.changes,
                lambda change, now: self._replanner.still(change, now, then),
                job,
            )

    def _move(
        self, changes: Changes, service: Service, instance: Instance, host: str, job: Job
    ) -> None:
        def still(change: Change, now: Instance | None) -> bool:
            if isinstance(change, Migrate):
                return now is instance
            return self._replanner.still(change, now, {instance.name: instance})

        with self._carrier.noting("move", service.name, changes, job):
            self._carrier.carry_out(changes, still, job)
            if host not in {each.host for each in self._fleet.serving(service.name)}:
                raise EdgewakeError(f"{service.name} was put to sleep while it was being moved")
