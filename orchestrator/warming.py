"""Which idle instances a lab should keep warm: our state to a `WarmProblem`, its answer to a table.

Of each service it is asked where its idle instance rests, and how deep; of each boot recipe (same
image, arguments and size) how many anonymous instances each host keeps. What a wake costs from each
rung is measured, or one of the stated `DEFAULTS`; the answer says which. Nothing is done here:
`orchestrator.warmer` follows the `WarmTarget`s.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from orchestrator.errors import EdgewakeError
from orchestrator.model import LADDER, Capacity, Host, Lab, Rung, Service
from orchestrator.planner import Planner
from orchestrator.recipes import recipe_of
from placement.problem import CPU, MEMORY, Amounts, Infeasible, Malformed, SolverFailed
from placement.warm import (
    COLD,
    PAUSED,
    POOLED,
    READY,
    SAVED,
    Place,
    Recipe,
    Rest,
    Sleeper,
    Spare,
    WarmHost,
    WarmOptions,
    WarmPlan,
    WarmProblem,
    WarmTarget,
    plan_warm,
    value,
)
from placement.warm.evaluate import Delay, delays

# Seconds of a wake from each rung where nothing was measured. Cold: a unikernel on Xen, by a DNS
# query (docs/measurements.md, 0.95 s). Paused: what issue 6 asks for. Saved: between them, as Fly
# Machines tell of theirs ("few hundred ms"). Pooled: paused, and an address handed over.
DEFAULTS: Mapping[str, float] = {COLD: 1.0, SAVED: 0.4, PAUSED: 0.01, READY: 0.0, POOLED: 0.02}
READY_CPU = 0.005  # cores of an idle guest that is awake: 0.3 to 0.7 % (docs/measurements.md)
MOST_SPARES = 8  # anonymous instances of one recipe on one host

SLEEPS = (COLD, SAVED, PAUSED)  # the deepest first
SOMEBODY = ""  # who asks where the lab names no clients that do: they are near every host


@dataclass(frozen=True, slots=True)
class WakeCosts:
    """Seconds of a wake by (image or service, host, rung), such as measured medians.

    That of the service counts before that of its image; where there is neither, `defaults`.
    """

    measured: Mapping[tuple[str, str, str], float] = field(default_factory=dict)
    defaults: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULTS))

    def of(self, service: str, image: str, host: str, rung: str) -> tuple[float, bool]:
        """Return the seconds of a wake, and whether they were measured."""
        for name in (service, image):
            if (name, host, rung) in self.measured:
                return self.measured[name, host, rung], True
        return self.defaults.get(rung, DEFAULTS[rung]), False


@dataclass(frozen=True, slots=True)
class LabFacts:
    """What is known of a lab beside its file; all may be empty.

    `unfit[service][host]` says why a host cannot run a service, `boots[service][host]` which image
    it would boot. `room[host]` is what is left there for idle instances (absent: all that guests
    may use). `rungs[service, host]` are those that its guests are known to survive there, or may
    yet; where nothing is known, every rung is planned with. `late` are the images whose guests
    need not be told which service they are: only of these there are anonymous instances. Services
    in `settled` claim none, for they are to have the address again that they had.
    """

    unfit: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    boots: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    room: Mapping[str, Capacity] = field(default_factory=dict)
    rungs: Mapping[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    late: frozenset[str] = frozenset()
    rates: Mapping[str, float] = field(default_factory=dict)
    homes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    settled: frozenset[str] = frozenset()

    def image(self, service: Service, host: str) -> str:
        """Return the image that a host would boot for a service."""
        return self.boots.get(service.name, {}).get(host, service.images[0])


@dataclass(frozen=True, slots=True)
class WarmLine:
    """A line of the table: where a service rests, or what is kept of a recipe on a host.

    `before_s` and `after_s` are what a request waits for a wake on average, with everything cold
    and as planned; of a recipe, that of the services that use it. `value` is in waiting clients
    for each GiB. `measured` says whether the wake cost was.
    """

    name: str
    host: str
    rung: str
    count: int
    memory_mib: float
    before_s: float
    after_s: float
    value: float
    measured: bool
    anonymous: bool = False


@dataclass(frozen=True, slots=True)
class Warming:
    """A warm plan of a lab, the same as lines for people, and what hosts are to keep for it.

    `before` and `after` are mean numbers of clients that wait for a wake.
    """

    plan: WarmPlan
    lines: tuple[WarmLine, ...]
    targets: tuple[WarmTarget, ...]
    before: float
    after: float
    memory_mib: float
    room_mib: float


@dataclass(frozen=True, slots=True)
class Aims:
    """What hosts are to keep, and what each keeps free for the largest wake there."""

    targets: tuple[WarmTarget, ...] = ()
    free: Mapping[str, Capacity] = field(default_factory=dict)


def aims_of(planner: Planner, known: LabFacts, costs: WakeCosts) -> Aims:
    """Return what the hosts of a planner's lab are to keep warm, by the quick algorithm.

    Raises `EdgewakeError` if some service can rest nowhere.
    """
    lab, problem = planner.lab, warm_problem(planner, known, costs)
    with _told_wrong():
        plan = plan_warm(problem, WarmOptions(algorithm="greedy", bound=False))
    able = _able(lab, known)
    free = {host.name: _kept_free(host, lab, able) for host in lab.hosts}
    return Aims(plan.targets(problem), free)


def warming_of(
    planner: Planner,
    known: LabFacts | None = None,
    costs: WakeCosts | None = None,
    options: WarmOptions | None = None,
) -> Warming:
    """Return what the hosts of a planner's lab should keep warm.

    Raises `EdgewakeError` if some service can rest nowhere, and if the options make no sense.
    """
    known, costs, options = known or LabFacts(), costs or WakeCosts(), options or WarmOptions()
    problem = warm_problem(planner, known, costs)
    with _told_wrong():
        plan = plan_warm(problem, options)
        cold = plan_warm(problem.cold(), replace(options, algorithm="greedy"))
    told = _Told(problem, plan, delays(problem, cold), delays(problem, plan), known, costs)
    lab = planner.lab
    lines = [
        _service_line(told, service, sleeper, lab.host(plan.places[service.name].host))
        for service, sleeper in zip(lab.services, problem.services, strict=True)
    ]
    return Warming(
        plan=plan,
        lines=(*lines, *_pool_lines(told)),
        targets=plan.targets(problem),
        before=cold.terms["waking"],
        after=plan.terms["waking"],
        memory_mib=plan.terms["memory_mib"],
        room_mib=sum(host.room.get(MEMORY, 0.0) for host in problem.hosts),
    )


@contextmanager
def _told_wrong() -> Iterator[None]:
    """Tell whoever asked for a plan why there is none."""
    try:
        yield
    except Infeasible as error:
        raise EdgewakeError(
            f"no warm plan exists: {error}" if error.proven else f"no warm plan was found: {error}",
            hint="give hosts more capacity, or services wider constraints",
        ) from error
    except Malformed as error:
        raise EdgewakeError(f"this cannot be planned: {error}") from error
    except SolverFailed as error:
        raise EdgewakeError(f"the solver gave no warm plan: {error}") from error


# --- our state to a question --------------------------------------------------------------------


def warm_problem(planner: Planner, known: LabFacts, costs: WakeCosts) -> WarmProblem:
    """Return the question of warm instances of a lab.

    On each host as much memory is kept free as the largest service that may rest cold there needs,
    so that its wake need not wait for another to go.
    """
    lab = planner.lab
    able = _able(lab, known)
    recipes: dict[str, dict[str, Spare]] = {}
    services = []
    for service in lab.services:
        hosts = able[service.name]
        recipe = _recipe_name(lab, service, known, hosts)
        if recipe:
            kept = recipes.setdefault(recipe, {})
            kept |= {
                host.name: _spare(service, host, known, costs)
                for host in hosts
                if PAUSED in _rungs(service, host, known)
            }
        services.append(_sleeper(service, hosts, lab, known, costs, recipe=recipe))
    return WarmProblem(
        hosts=tuple(_host(host, lab, able, known) for host in lab.hosts),
        services=tuple(services),
        recipes=tuple(Recipe(name, at) for name, at in recipes.items()),
        latency_ms={
            **planner.problem.latency_ms,
            SOMEBODY: {host.name: 0.0 for host in lab.hosts},
        },
    )


def _able(lab: Lab, known: LabFacts) -> dict[str, tuple[Host, ...]]:
    return {service.name: _hosts(lab, service, known) for service in lab.services}


def _hosts(lab: Lab, service: Service, known: LabFacts) -> tuple[Host, ...]:
    """Return the hosts where a service may be, by its constraints and its images, or is."""
    unfit = known.unfit.get(service.name, {})
    may = tuple(
        host for host in lab.hosts if host.name not in unfit and service.constraints.allow(host)
    )
    homes = known.homes.get(service.name, frozenset())
    return tuple(host for host in may if host.name in homes) or may


def _host(host: Host, lab: Lab, able: Mapping[str, Sequence[Host]], known: LabFacts) -> WarmHost:
    room = known.room.get(host.name, host.usable)
    free = room.memory_mib - _kept_free(host, lab, able).memory_mib
    return WarmHost(host.name, {MEMORY: float(max(0, free)), CPU: max(0.0, room.cpu)})


def _kept_free(host: Host, lab: Lab, able: Mapping[str, Sequence[Host]]) -> Capacity:
    """Return what is kept free on a host, so that a wake there need not wait for others to go."""
    needs = [
        host.taken_by(service.resources)
        for service in lab.services
        if host in able[service.name] and not _never_sleeps(service)
    ]
    return Capacity(
        cpu=max((each.cpu for each in needs), default=0.0),
        memory_mib=max((each.memory_mib for each in needs), default=0),
    )


def _never_sleeps(service: Service) -> bool:
    idle = service.idle
    return idle.after_s is None or idle.pin or idle.deepest is Rung.READY


def _sleeper(
    service: Service,
    hosts: Sequence[Host],
    lab: Lab,
    known: LabFacts,
    costs: WakeCosts,
    *,
    recipe: str,
) -> Sleeper:
    """Return a service as placement sees it.

    It goes to sleep once it is unused for its time, and no answer is in a cache (`idle.verdict`).
    """
    idle = None if _never_sleeps(service) else service.idle.after_s
    return Sleeper(
        name=service.name,
        rests={
            host.name: tuple(
                _rest(service, host, rung, known, costs) for rung in _rungs(service, host, known)
            )
            for host in hosts
        },
        rates=_rates(service, lab, known),
        idle_s=None if idle is None else max(idle, float(service.ttl_s)),
        latency_bound_ms=service.latency_bound_ms,
        recipe=recipe,
    )


def _rates(service: Service, lab: Lab, known: LabFacts) -> dict[str, float]:
    """Return the requests per second of each population; in all, as many as were seen."""
    told = {each.name: each.requests_s for each in lab.populations}
    seen, total = known.rates.get(service.name), sum(told.values())
    if seen is None:
        return told
    if not total:
        return {SOMEBODY: seen}
    return {name: rate * seen / total for name, rate in told.items()}


def _rungs(service: Service, host: Host, known: LabFacts) -> tuple[str, ...]:
    """Return the rungs a service may rest at; one that never sleeps is always ready.

    One that may sleep is not asked to be ready, unless it can rest at no other rung: that is what
    `pin` and `keep_warm` are for. Cold needs no ability. Its policy may leave rungs out.
    """
    if _never_sleeps(service):
        return (READY,)
    able = known.rungs.get((service.name, host.name), frozenset(SLEEPS))
    left_out = {rung for rung in (Rung.PAUSED, Rung.SAVED) if service.idle.rests_s(rung) == 0}
    left_out |= set(LADDER[service.idle.deepest.depth + 1 :])
    return tuple(rung for rung in SLEEPS if rung in (able | {COLD}) - left_out) or (READY,)


def _rest(service: Service, host: Host, rung: str, known: LabFacts, costs: WakeCosts) -> Rest:
    wake_s, _ = costs.of(service.name, known.image(service, host.name), host.name, rung)
    return Rest(rung, wake_s, _needs(service, host, rung))


def _needs(service: Service, host: Host, rung: str) -> Amounts:
    memory = {MEMORY: float(host.taken_by(service.resources).memory_mib)}
    if rung == READY:
        return {**memory, CPU: READY_CPU}
    return memory if rung == PAUSED else {}


def _recipe_name(lab: Lab, service: Service, known: LabFacts, hosts: Sequence[Host]) -> str:
    """Return the name of a service's boot recipe; empty if it can have none."""
    images = {known.image(service, host.name) for host in hosts}
    if len(images) != 1 or not images <= known.late or service.idle.after_s is None:
        return ""
    if service.name in known.settled:
        return ""
    return recipe_of(lab, service, images.pop())


def _spare(service: Service, host: Host, known: LabFacts, costs: WakeCosts) -> Spare:
    image = known.image(service, host.name)
    cold_s, _ = costs.of("", image, host.name, COLD)
    pooled_s, _ = costs.of("", image, host.name, POOLED)
    return Spare(
        needs=_needs(service, host, PAUSED),
        adopt_s=min(pooled_s, cold_s),
        miss_s=cold_s,
        refill_s=cold_s,
        most=MOST_SPARES,
    )


# --- the answer to a table ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Told:
    """What lines are made of: the question, its answer, and the delays with and without it."""

    problem: WarmProblem
    plan: WarmPlan
    before: Mapping[str, Delay]
    after: Mapping[str, Delay]
    known: LabFacts
    costs: WakeCosts

    def saved(self, service: Sleeper) -> float:
        """Return what a request waits less, in seconds."""
        return max(0.0, self.before[service.name].wake_s - self.after[service.name].wake_s)


def _service_line(told: _Told, service: Service, sleeper: Sleeper, host: Host) -> WarmLine:
    rung = told.plan.places[service.name].rung
    image = told.known.image(service, host.name)
    memory = _needs(service, host, rung).get(MEMORY, 0.0)
    return WarmLine(
        name=service.name,
        host=host.name,
        rung=rung,
        count=1,
        memory_mib=memory,
        before_s=told.before[service.name].wake_s,
        after_s=told.after[service.name].wake_s,
        value=_per_gib(told.saved(sleeper) * sleeper.rate, memory),
        measured=told.costs.of(service.name, image, host.name, rung)[1],
    )


def _pool_lines(told: _Told) -> Iterator[WarmLine]:
    for recipe in told.problem.recipes:
        for host, count in told.plan.pools.get(recipe.name, {}).items():
            users = [
                each
                for each in told.problem.services
                if each.recipe == recipe.name and told.plan.places[each.name] == Place(host, POOLED)
            ]
            memory = count * recipe.at[host].needs.get(MEMORY, 0.0)
            image = recipe.name.rpartition("-")[0]
            yield WarmLine(
                name=recipe.name,
                host=host,
                rung=recipe.at[host].rung,
                count=count,
                memory_mib=memory,
                before_s=_mean(users, told.before),
                after_s=_mean(users, told.after),
                value=_per_gib(sum(told.saved(each) * each.rate for each in users), memory),
                measured=told.costs.of("", image, host, POOLED)[1],
                anonymous=True,
            )


def _mean(users: Sequence[Sleeper], waits: Mapping[str, Delay]) -> float:
    """Return what a request to any of some services waits for a wake."""
    rate = sum(each.rate for each in users)
    return sum(each.rate * waits[each.name].wake_s for each in users) / rate if rate else 0.0


def _per_gib(saved: float, memory_mib: float) -> float:
    """Return the waiting clients that each GiB saves; 0 for what holds none."""
    return 1024 * value(saved, 1.0, memory_mib) if memory_mib else 0.0
