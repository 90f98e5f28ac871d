"""Placements: what is asked for, and what was found."""

from dataclasses import replace
from typing import Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from orchestrator.changes import Change
from orchestrator.planner import OPTIONS, Front
from orchestrator.present import Worth
from orchestrator.views import Proposal
from orchestrator.warming import Warming, WarmLine
from placement.problem import Options, Plan
from placement.warm import WarmOptions
from placement.warm.problem import WarmTarget
from web.models.base import LONGEST_NAME, MOST_LISTED, Body, Document, Parameters

MOST_POINTS = 10**6
MOST_PLAN_S = 300  # below what `web.client` waits for an answer
NO_POINTS: JsonDict = {"properties": {"points": {"type": "null"}}}
TWO_TERMS: JsonDict = {"properties": {"terms": {"minItems": 2, "maxItems": 2}}}


class Search(Body):
    """How long and how well to search."""

    solver: str | None = None
    deadline_s: float | None = Field(None, gt=0, le=MOST_PLAN_S)
    gap: float | None = Field(None, ge=0, description="relative; 0 is proven best")

    def options(self) -> Options:
        """Return them as the planner takes them."""
        given = self.model_dump(include=set(Search.model_fields), exclude_none=True)
        return replace(OPTIONS, **given)


class PlanWish(Search):
    """How to place everything anew."""

    algorithm: str | None = None
    apply: bool = False
    of: str | None = Field(
        None,
        max_length=LONGEST_NAME,
        description="the operation of an earlier plan or front, to apply just what that has shown",
    )
    plan: int | None = Field(
        None, ge=0, le=MOST_POINTS, description="of a front, the number of the plan, from 0"
    )
    tag: str | None = Field(
        None,
        max_length=LONGEST_NAME,
        description="that of the proposal that was seen: refused if others are the changes by now",
    )

    @model_validator(mode="after")
    def _what_was_shown_is_not_made_anew(self) -> Self:
        if self.of is None and (self.plan is not None or self.tag is not None):
            raise ValueError("'plan' and 'tag' are about what 'of' names")
        if self.of is not None and not self.model_fields_set <= {"of", "apply", "plan", "tag"}:
            raise ValueError("'of' goes with 'apply', 'plan' and 'tag', and with nothing else")
        if self.of is not None and not self.apply:
            raise ValueError("'of' is for plans that are applied: say 'apply': true")
        return self

    def options(self) -> Options:
        """Return them as the planner takes them."""
        options = super().options()
        return replace(options, algorithm=self.algorithm) if self.algorithm else options


class WarmWish(Search):
    """How to choose what hosts keep warm."""

    algorithm: str | None = None
    mib_price: float | None = Field(None, ge=0, description="waiting clients that a MiB is worth")

    def warm_options(self) -> WarmOptions:
        """Return them as the warm planner takes them."""
        return replace(WarmOptions(), **self.model_dump(exclude_none=True))


class FrontWish(Search):
    """Of which terms a Pareto front is wanted; `points` are for fronts of two."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [NO_POINTS, TWO_TERMS]})

    terms: list[str]
    points: int | None = Field(None, ge=2, le=MOST_LISTED)

    @model_validator(mode="after")
    def _points_are_for_two(self) -> Self:
        if self.points is not None and len(self.terms) != 2:
            raise ValueError("points are for fronts of two terms")
        return self


class FrontPlanNamed(Parameters):
    """A path that names a plan of a front: the operation that found it, and its number from 0."""

    id: str = Field(min_length=1, max_length=LONGEST_NAME)
    number: int = Field(ge=0, le=MOST_POINTS)


class PlanDocument(Document):
    """A placement; `hosts` and `flavours` list one for each copy, by service."""

    hosts: dict[str, list[str]]
    flavours: dict[str, list[str]]
    value: float | None
    terms: dict[str, float]
    bound: float | None
    gap: float | None
    algorithm: str
    solver: str
    seconds: float
    why: dict[str, str]

    @classmethod
    def of(cls, value: Plan) -> Self:
        """Return a placement."""
        return cls(
            hosts={demand: list(hosts) for demand, hosts in value.hosts.items()},
            flavours={demand: list(names) for demand, names in value.flavours.items()},
            value=value.value,
            terms=dict(value.terms),
            bound=value.bound,
            gap=value.gap,
            algorithm=value.algorithm,
            solver=value.solver,
            seconds=value.seconds,
            why=dict(value.why),
        )


class ChangeDocument(Document):
    """One change; `do` is boot, announce, withdraw, stop or migrate.

    `instance` is which one is withdrawn, stopped or migrated; empty: the one of the service on the
    host. `to` is where it is migrated to.
    """

    do: str
    service: str
    host: str
    instance: str
    why: str
    to: str

    @classmethod
    def of(cls, value: Change) -> Self:
        """Return a change."""
        return cls(
            do=type(value).__name__.lower(),
            service=value.service,
            host=value.host,
            instance=getattr(value, "instance", ""),
            why=getattr(value, "why", ""),
            to=getattr(value, "to", ""),
        )


class NowDocument(Document):
    """What the placement that runs now is worth, in the terms of the plan that it stands beside.

    `asleep` are services that are not awake: they count where they rest, and those that rest
    nowhere, where the plan has them. `wrong` says why that is no answer to what was asked, such as
    rules that it breaks, or would if all were awake; where copies are missing, there is no value
    and there are no terms.
    """

    value: float | None
    terms: dict[str, float]
    asleep: list[str]
    wrong: list[str]

    @classmethod
    def of(cls, value: Worth) -> Self:
        """Return what the present placement is worth."""
        return cls(
            value=value.value,
            terms=dict(value.terms),
            asleep=list(value.asleep),
            wrong=list(value.wrong),
        )


class ProposalDocument(Document):
    """A placement, the changes that lead to it, and what they leave where it is.

    `now` is what the placement is worth that ran when this was said; null where nothing runs.

    `operation` is what to name to have it applied as it is: ``{"apply": true, "of": OPERATION}``,
    for one of a front with its number as `plan`. `tag` is the same as long as the changes are.
    """

    plan: PlanDocument
    now: NowDocument | None
    changes: list[ChangeDocument]
    left: list[str]
    applied: bool
    operation: str
    tag: str

    @classmethod
    def of(cls, value: Proposal, *, applied: bool, operation: str = "") -> Self:
        """Return a proposal."""
        return cls(
            plan=PlanDocument.of(value.plan),
            now=NowDocument.of(value.now) if value.now else None,
            changes=[ChangeDocument.of(each) for each in value.changes],
            left=list(value.changes.left),
            applied=applied,
            operation=operation,
            tag=value.tag,
        )


class FrontDocument(Document):
    """A Pareto front; `knee` is the number of one of its plans, from 0.

    `operation` is what names it in ``/fronts/OPERATION/plans/NUMBER``; empty if nobody keeps it.
    """

    terms: list[str]
    units: dict[str, str]
    proven: bool
    seconds: float
    knee: int
    plans: list[PlanDocument]
    operation: str

    @classmethod
    def of(cls, value: Front, operation: str = "") -> Self:
        """Return a front."""
        return cls(
            terms=list(value.terms),
            units=dict(zip(value.terms, value.units, strict=True)),
            proven=value.proven,
            seconds=value.seconds,
            knee=value.knee,
            plans=[PlanDocument.of(each) for each in value.plans],
            operation=operation,
        )


class WarmLineDocument(Document):
    """Where a service rests, or what is kept of a recipe on a host; see `orchestrator.warming`."""

    name: str
    host: str
    rung: str
    count: int
    memory_mib: float
    before_s: float
    after_s: float
    value: float
    measured: bool
    anonymous: bool

    @classmethod
    def of(cls, value: WarmLine) -> Self:
        """Return a line."""
        return cls(**{name: getattr(value, name) for name in cls.model_fields})


class WarmTargetDocument(Document):
    """What a host is to keep: `count` idle instances at a rung."""

    name: str
    host: str
    rung: str
    count: int
    anonymous: bool

    @classmethod
    def of(cls, value: WarmTarget) -> Self:
        """Return a target."""
        return cls(**{name: getattr(value, name) for name in cls.model_fields})


class WarmingDocument(Document):
    """What hosts should keep warm; `before` and `after` are clients that wait for wakes."""

    warm: list[WarmLineDocument]
    targets: list[WarmTargetDocument]
    before: float
    after: float
    memory_mib: float
    room_mib: float
    value: float | None
    terms: dict[str, float]
    bound: float | None
    gap: float | None
    algorithm: str
    solver: str
    seconds: float

    @classmethod
    def of(cls, value: Warming) -> Self:
        """Return a warm plan."""
        return cls(
            warm=[WarmLineDocument.of(each) for each in value.lines],
            targets=[WarmTargetDocument.of(each) for each in value.targets],
            before=value.before,
            after=value.after,
            memory_mib=value.memory_mib,
            room_mib=value.room_mib,
            value=value.plan.value,
            terms=dict(value.plan.terms),
            bound=value.plan.bound,
            gap=value.plan.gap,
            algorithm=value.plan.algorithm,
            solver=value.plan.solver,
            seconds=value.plan.seconds,
        )
