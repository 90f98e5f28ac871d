"""Places everything anew while edgewake runs: asks the planner, and says what would have to move.

A question is the lab as it is now: hosts that are lost, refused or drained take nothing, and only
what answers and is not on its way out can move. Finding an answer may take minutes, in which
services wake and sleep; so what has to move is looked at after it, and each step once more when its
turn has come (`still`). `rebalancer` has it carried out.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from orchestrator.boot import Boots
from orchestrator.changes import Announce, Boot, Change, Changes
from orchestrator.errors import EdgewakeError, UnknownPlan
from orchestrator.fleet import Fleet
from orchestrator.library import Fit
from orchestrator.model import ASLEEP, Capacity, Instance, InstanceState, Lab, Migrate
from orchestrator.moving import changes_for
from orchestrator.plan_metrics import PlanMetrics
from orchestrator.planner import Front, Progress
from orchestrator.present import worth_now
from orchestrator.recipes import anonymous_images
from orchestrator.views import Proposal
from orchestrator.warming import Aims, LabFacts, WakeCosts, Warming, aims_of, warming_of
from placement.problem import Options, Plan, Problem
from placement.warm import WarmOptions

OPERATIONS_KEPT = 50

Rungs = Mapping[tuple[str, str], frozenset[str]]  # by service and host
Rates = Mapping[str, float]  # uses per second, by service


@dataclass(frozen=True, slots=True)
class Kept:
    """A plan that was shown, for which lab, and the `tag` of what was proposed with it.

    Of a front only plans are kept, not what each would change: their tag is empty. `weights` of
    terms make the plan's value.
    """

    lab: Lab
    plan: Plan
    weights: Mapping[str, float]
    tag: str = ""


class Replanner:
    """Makes plans and fronts of what runs, one at a time: each may take all that a core can do."""

    def __init__(self, fleet: Fleet, boots: Boots) -> None:
        self._fleet = fleet
        self._boots = boots
        self.metrics = PlanMetrics()
        self._kept: OrderedDict[str, tuple[Kept, ...]] = OrderedDict()
        self._busy = threading.Lock()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the turn to plan. Raises `EdgewakeError` if somebody else has it."""
        if not self._busy.acquire(blocking=False):
            raise EdgewakeError(
                "another plan or front is being made", hint="ask again when it has ended"
            )
        try:
            yield
        finally:
            self._busy.release()

    def plan(self, options: Options) -> Plan:
        """Place everything anew. Raises `EdgewakeError` as `Planner.plan` does."""
        with self.metrics.counting("plan"):
            plan = self._fleet.planner.plan(self._question(self.movable()), options)
        self.metrics.made(plan)
        return plan

    def keep(self, operation: str, *plans: Kept) -> None:
        """Remember the plans that an operation has found. The caller has the turn to plan."""
        if operation:
            self._kept[operation] = plans
            while len(self._kept) > OPERATIONS_KEPT:
                self._kept.popitem(last=False)

    def kept(self, operation: str, number: int | None = None) -> Kept:
        """Return a plan that an operation has found: of a front, the one of that number, from 0.

        Raises `EdgewakeError` if nothing of the operation is kept, or if it has several and none is
        named; `UnknownPlan` if it has no plan of that number.
        """
        plans = self._kept.get(operation, ())
        if not plans:
            raise EdgewakeError(
                f"{operation}: no plan that this operation has made is kept", hint="plan again"
            )
        numbers = f"it has the plans 0 to {len(plans) - 1}"
        if number is None and len(plans) > 1:
            raise EdgewakeError(f"{operation}: which plan of this front?", hint=numbers)
        if (number or 0) >= len(plans):
            raise UnknownPlan(f"{operation} has no plan {number}", hint=numbers)
        return plans[number or 0]

    def front(
        self,
        terms: Sequence[str],
        options: Options,
        points: int | None,
        progress: Progress | None = None,
    ) -> Front:
        """Return the Pareto front of some terms. Raises `EdgewakeError` as `Planner.front` does."""
        with self.metrics.counting("front"):
            question = self._question(self.movable())
            planner = self._fleet.planner
            return planner.front(question, terms, options, points=points, progress=progress)

    def warm(self, options: WarmOptions, costs: WakeCosts, rungs: Rungs, rates: Rates) -> Warming:
        """Return what hosts should keep warm. Raises `EdgewakeError` as `warming_of` does.

        `rungs` and `rates` are those of `LabFacts`.
        """
        with self.metrics.counting("warm"):
            return warming_of(self._fleet.planner, self._warm_facts(rungs, rates), costs, options)

    def aims(self, costs: WakeCosts, rungs: Rungs, rates: Rates) -> Aims:
        """Return what hosts are to keep warm, quickly. Raises `EdgewakeError` as `aims_of` does.

        It takes no turn: nobody is to be refused a plan because of it.
        """
        with self.metrics.counting("aims"):
            return aims_of(self._fleet.planner, self._warm_facts(rungs, rates), costs)

    def _warm_facts(self, rungs: Rungs, rates: Rates) -> LabFacts:
        """Return what is known of the lab.

        An instance that is awake holds nothing beside what it will hold when it rests: then the
        plan does not depend on who happens to be awake.
        """
        unfit, boots = self._fits()
        beside = self._fleet.held_beside(self._fleet.instances())
        room = {
            host.name: Capacity(
                cpu=host.usable.cpu - beside[host.name].cpu,
                memory_mib=host.usable.memory_mib - beside[host.name].memory_mib,
            )
            for host in self._fleet.lab.hosts
        }
        lab = self._fleet.lab
        return LabFacts(
            unfit=unfit,
            boots=boots,
            room=room,
            rungs=rungs,
            late=anonymous_images(lab),
            settled=frozenset(each.name for each in lab.services if self._fleet.returns(each)),
            rates=rates,
            homes=self._fleet.homes(),
        )

    def movable(self) -> tuple[Instance, ...]:
        """Return the instances that can be moved: they answer, on hosts that can be reached.

        What is only ever migrated as it runs is not: a move boots another copy.
        """
        lost = self._fleet.lost()
        return tuple(
            each
            for each in self._fleet.instances()
            if each.state is InstanceState.READY
            and each.host not in lost
            and not self._fleet.hidden(each.name)
            and not self._migrates(each)
        )

    def proposal(self, plan: Plan, weights: Mapping[str, float]) -> Proposal:
        """Return what leads from what runs now to a plan, and what it is worth beside that.

        `weights` of terms make the plan's value.
        """
        movable = self.movable()
        question = self._question(movable)
        led_to = (each for each in self._fleet.instances() if not self._fleet.hidden(each.name))
        now = worth_now(question, plan, weights, led_to, self._fleet.lost())
        return Proposal(plan, self._changes(plan, movable, question), now)

    def _changes(self, plan: Plan, movable: Sequence[Instance], question: Problem) -> Changes:
        names = {each.name for each in movable}
        here = self._fleet.instances()
        others = tuple(e for e in here if e.name not in names and e.state not in ASLEEP)
        held = self._fleet.held_beside(here)  # what sleeps makes room when a boot needs it
        changes = changes_for(plan, movable, question, held, others)
        changes.raise_if_unsafe()
        staying = {
            each.service
            for each in others
            if self._migrates(each) and each.host not in plan.hosts.get(each.service, ())
        }
        return replace(changes, left=(*changes.left, *sorted(staying)))

    def still(self, change: Change, present: Instance | None, then: Mapping[str, Instance]) -> bool:
        """Return whether a change is still right when its turn has come.

        `present` is the instance that it is about, `then` are those that were movable when the
        changes were made, by name. A service that went to sleep is not woken, and no copy is
        withdrawn that is another one by now, or that is the last one clients are led to.
        """
        serving = self._fleet.serving(change.service)
        if isinstance(change, Announce):
            return True
        if isinstance(change, Boot):
            here = {host for each in self._fleet.of(change.service) for host in each.hosts}
            return bool(serving) and change.host not in here
        if present is None or present.state is not InstanceState.READY:
            return False
        known = then.get(present.name)
        if known is not None and known.created_at != present.created_at:
            return False
        return any(each.name != present.name for each in serving)

    def _migrates(self, instance: Instance) -> bool:
        service = self._fleet.service(instance.service)
        return service is not None and service.migrate is Migrate.LIVE_ONLY

    def _question(self, movable: Sequence[Instance]) -> Problem:
        """Return the lab as it is now as a placement problem."""
        unfit, boots = self._fits()
        services = self._fleet.lab.services
        copies = {each.name: self._fleet.wanted(each) for each in services if each.scale}
        return self._fleet.planner.question(movable, unfit, boots, copies)

    def _fits(self) -> tuple[Mapping[str, Mapping[str, str]], Mapping[str, Mapping[str, str]]]:
        """Return why hosts cannot run services, and the images of those that have several."""
        closed = self._fleet.closed()
        services = self._fleet.lab.services
        unfit = {each.name: {**self._boots.unfit(each), **closed} for each in services}
        boots = {
            service.name: {
                host: fit.image.name
                for host, fit in self._boots.fits(service).items()
                if isinstance(fit, Fit)
            }
            for service in services
            if len(service.images) > 1
        }
        return unfit, boots
