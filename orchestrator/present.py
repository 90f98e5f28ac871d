"""What the placement that runs now is worth in the terms of a plan, so that the two compare.

A plan places every service as though all were awake, and so is what runs now: a service that sleeps
counts where it rests, and one that is nowhere, where the plan has it. So that makes no difference,
and what differs is what the moves gain. The rules are asked of what is awake, and of all of it: a
plan may move what is awake only to make room for what sleeps.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from orchestrator.model import AWAKE, COMING, Instance, InstanceState
from placement.check import violations
from placement.evaluate import evaluate, value_of
from placement.problem import Demand, Plan, Problem
from placement.rules import Beside

Places = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Worth:
    """What the placement that runs now is worth: its value as that of the plan, and every term.

    `asleep` are the services that are not awake: they count where they rest, and what rests nowhere
    where the plan has it. `wrong` says why that is no answer to what was asked; if copies are
    missing there is no value, and there are no terms.
    """

    value: float | None = None
    terms: Mapping[str, float] = field(default_factory=dict)
    asleep: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()


def worth_now(
    question: Problem,
    plan: Plan,
    weights: Mapping[str, float],
    instances: Iterable[Instance],
    lost: Collection[str] = (),
) -> Worth:
    """Return what runs now is worth beside a plan, which answers the question.

    `instances` are all that somebody is led to or could be, `weights` those that make the value of
    the plan, `lost` the hosts that cannot be reached: what is there counts as missing.
    """
    there, awake = _by_service(instances)
    short = [*_short(question, there, awake, lost)]
    asleep = tuple(sorted(each.name for each in question.demands if each.name not in awake))
    if short:
        return Worth(asleep=asleep, wrong=tuple(short))
    places: Places = {
        each.name: there[each.name] if each.name in awake else _resting(each, there, plan)
        for each in question.demands
    }
    terms = evaluate(question, _plan(question, places))
    alone = _broken(question, {name: places[name] for name in places if name in awake})
    together = (each for each in _broken(question, places) if each not in alone)
    wrong = (
        *_too_many(question, there, awake),
        *alone,
        *(f"if all were awake: {each}" for each in together),
    )
    return Worth(value_of(terms, weights), terms, asleep, wrong)


def _by_service(instances: Iterable[Instance]) -> tuple[dict[str, tuple[str, ...]], set[str]]:
    """Return the hosts of each service, and which services are awake."""
    there: dict[str, tuple[str, ...]] = {}
    awake: set[str] = set()
    for each in instances:
        if each.state is InstanceState.STOPPING:
            continue
        there[each.service] = (*there.get(each.service, ()), each.host)
        if each.state in AWAKE or each.state in COMING:
            awake.add(each.service)
    return there, awake


def _short(
    question: Problem, there: Places, awake: Collection[str], lost: Collection[str]
) -> Iterator[str]:
    """Say of which services that are awake copies are missing."""
    for demand in question.demands:
        if demand.name not in awake:
            continue
        hosts = there[demand.name]
        reached = [host for host in hosts if host not in lost]
        if len(reached) < demand.replicas:
            gone = sorted(set(hosts) - set(reached))
            why = f" ({', '.join(gone)} cannot be reached)" if gone else ""
            yield f"{demand.name}: {len(reached)} of {demand.replicas} copies run{why}"


def _resting(demand: Demand, there: Places, plan: Plan) -> tuple[str, ...]:
    """Return where a service counts that sleeps."""
    rests = there.get(demand.name, ())
    others = [host for host in plan.hosts.get(demand.name, ()) if host not in rests]
    return (*rests, *others)[: demand.replicas]


def _plan(question: Problem, places: Places) -> Plan:
    """Return places as a plan, with the flavour that each host runs."""
    flavours = {
        each.name: tuple(_flavour(each, host) for host in places.get(each.name, ()))
        for each in question.demands
        if each.flavours
    }
    return Plan(places, 0.0, flavours=flavours)


def _flavour(demand: Demand, host: str) -> str:
    fit = (each.name for each in demand.flavours if host not in each.unfit)
    return next(fit, demand.flavours[0].name)


def _too_many(question: Problem, there: Places, awake: Collection[str]) -> Iterator[str]:
    for each in question.demands:
        if each.name in awake and len(there[each.name]) > each.replicas:
            yield f"{each.name}: {len(there[each.name])} copies run, {each.replicas} are wanted"


def _broken(question: Problem, places: Places) -> tuple[str, ...]:
    """Return what the judge says of services at some places, as if there were no others.

    How many copies there are is judged elsewhere. Nobody says which links the traffic takes now, so
    those are not judged to be full.
    """
    there = {name: hosts for name, hosts in places.items() if hosts}
    alone = replace(
        question,
        demands=tuple(
            replace(each, replicas=len(there.get(each.name, ())), least=None)
            for each in question.demands
        ),
        rules=tuple(
            rule for rule in question.rules if not isinstance(rule, Beside) or rule.of in there
        ),
        links=tuple(replace(each, capacity_mbps=None) for each in question.links),
    )
    return violations(alone, _plan(alone, there))
