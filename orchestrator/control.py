"""The use-cases of edgewake, by name: apply, summon, release, rebalance, expire, status.

`Orchestrator` is what the front doors (DNS, HTTP, CLI) talk to. It joins parts that know one thing
each, and hands each verb on to one of them, where it is said what it does: `activator` wakes what
is asked for, `applier` goes over to another lab, `rebalancer` moves what runs, `expiring` lets it
sleep, `overview` tells how it is. `summon` returns at once, the other verbs say that they block.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from logging import getLogger

from images.inspect import Inspector
from orchestrator import clock
from orchestrator.activator import Activator
from orchestrator.applier import Applier, LabSource
from orchestrator.background import Background
from orchestrator.boot import Boots
from orchestrator.budget import Budgets
from orchestrator.carrying import Carrier
from orchestrator.change_log import ChangeLog, leaving
from orchestrator.changes import Changes
from orchestrator.drain import Drainer, DrainReport
from orchestrator.errors import (
    EdgewakeError,
    StoreError,
)
from orchestrator.expiring import Expirer
from orchestrator.feed import Feed
from orchestrator.feeding import EVENT, OPERATION
from orchestrator.fleet import Fleet
from orchestrator.frames import WatchGuest, watch_nobody
from orchestrator.hopeless import Hopeless
from orchestrator.hosts import POLL_THREADS, Hosts, OpenHost
from orchestrator.idle import Usage, kept_up
from orchestrator.image_insight import Images
from orchestrator.insight import Insight
from orchestrator.journal import AUDIT, Journal
from orchestrator.ladder import Rates
from orchestrator.library import Library
from orchestrator.lookup import known_host, known_service
from orchestrator.measured import MeasuredImage, Measurer
from orchestrator.migrating import Migrator
from orchestrator.model import (
    Ability,
    Client,
    Event,
    Lab,
    Rung,
    Service,
)
from orchestrator.mover import Mover
from orchestrator.operations import ALONE, Job, Operations
from orchestrator.overview import Overview
from orchestrator.plan_metrics import PlanMetrics
from orchestrator.planner import OPTIONS, Front
from orchestrator.rebalancer import Rebalancer
from orchestrator.recipes import is_spare
from orchestrator.refusals import Refusals
from orchestrator.replanning import Replanner, Rungs
from orchestrator.retiring import Retirer
from orchestrator.scaler import Scaler
from orchestrator.settler import Settler
from orchestrator.sleeping import Sleeper
from orchestrator.spares import Spares
from orchestrator.steering.base import Steering
from orchestrator.steering.fanout import Fanout
from orchestrator.store.base import VERSIONS_KEPT, LabVersion, Store
from orchestrator.summons import Summons
from orchestrator.trace import KEPT, Wakes
from orchestrator.traffic import Traffic
from orchestrator.upkeep import Keeper
from orchestrator.views import Choice, HostStatus, Proposal, ServiceStatus, Status
from orchestrator.waking import Waker
from orchestrator.warmer import Warmer
from orchestrator.warming import WakeCosts, Warming
from placement.problem import Options
from placement.warm import WarmOptions

log = getLogger(__name__)

WARM_OPTIONS = WarmOptions()
END_THREADS = 8
SINK_THREADS = 8  # of their own: saving may hang with a disk, and ending must not wait for that
DRAIN_THREADS = 4  # hosts that are drained at the same time; each moves one service at a time


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """How much control does at once: boots in parallel, wakes that may wait, seconds per sweep."""

    parallel_boots: int = 32
    waiting_wakes: int = 1000
    sweep_s: float = 1.0


class Orchestrator:
    """Wakes services where they fit best, keeps what it started, and lets them sleep again."""

    def __init__(
        self,
        lab: Lab,
        *,
        store: Store,
        open_host: OpenHost,
        owner: str,
        library: Library | None = None,
        settings: ControlSettings | None = None,
        watch: WatchGuest = watch_nobody,
        applied: Callable[[Lab], None] = lambda _lab: None,
        journal: Journal | None = None,
        wakes: Wakes | None = None,
    ) -> None:
        self.settings = settings or ControlSettings()
        self.asked: dict[str, float] = {}
        self.wakes = wakes or Wakes()
        self.feed = Feed()
        self.operations = Operations(partial(self.feed.publish, OPERATION))
        self.change_log = ChangeLog()
        self._stopping = threading.Event()
        stored = store.load()
        self.fleet = Fleet(lab, stored.quarantines)
        self._store = store
        self._journal = journal or Journal(store)
        self._journal.listen(partial(self.feed.publish, EVENT))
        self._own_journal = journal is None
        self._usage = Usage()
        self._steering = Fanout(self.fleet.routes)
        self._pool = Background("wake", self.settings.parallel_boots)
        self._ender = Background("end", END_THREADS)  # so that endings never take a wake's thread
        self._draining = Background("drain", DRAIN_THREADS)
        self._filler = Background("spare", 1)  # one anonymous instance at a time
        self._lanes = Background("sleep", POLL_THREADS)
        self._sinker = Background("sink", SINK_THREADS)
        self._boots = Boots(
            owner,
            store,
            self.fleet,
            library or Library(Inspector()),
            end_later=lambda ended: self._waker.end_later(ended),  # noqa: PLW0108 - made below
            device=lambda host: self._traffic.device(host),  # noqa: PLW0108 - made below
        )
        self._traffic = Traffic(
            self.fleet,
            self._boots.hosts,
            self._journal,
            lambda host, asked: self._activator.summon_there(host, asked),  # noqa: PLW0108
        )
        self._hosts = Hosts(
            self.fleet,
            self._boots.hosts,
            open_host,
            self._journal,
            take_in=lambda news: self._settler.take_in(news),  # noqa: PLW0108 - made below
            network_is_right=self._traffic.open,
        )
        self._clock = clock.WallClock()
        self._refusals = Refusals(self._journal, lab.name)
        self._hopeless = Hopeless(self.fleet, self._boots.flavours, self._journal)
        self._budgets = Budgets(lab.dns.wake_budget)
        self._activator = Activator(
            self.fleet,
            self._traffic,
            self._journal,
            self.wakes,
            self._usage,
            hopeless=self._hopeless,
            refusals=self._refusals,
            budgets=self._budgets,
            wake=lambda *wake: self._waker.wake(*wake),  # noqa: PLW0108 - made below
            grow=lambda service: self._keeper.grow(service),  # noqa: PLW0108 - made below
            steer=self._steering.steer,
            background=self._pool,
            most=self.settings.waiting_wakes,
            stopping=self._stopping,
        )
        locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._rates = Rates(self.fleet.expected_rate)
        self._sleeper = Sleeper(
            self.fleet,
            self._boots,
            store,
            self._journal,
            abilities=stored.abilities,
            end=lambda instance: self._waker.end(instance),  # noqa: PLW0108 - made below
            locks=locks,
            lose=self._hosts.lose,
            ask=lambda host: self._hosts.poll(frozenset({host})),
            wanted=self._activator.is_waking,
            spare=lambda service: self._expirer.spare(service),  # noqa: PLW0108 - made below
            put_down=lambda service, why: self._expirer.put_down(service, why),  # noqa: PLW0108
            guard=lambda host: self._traffic.sync_host(host),  # noqa: PLW0108 - made below
            spares=lambda host: self._spares.victims(host),  # noqa: PLW0108 - made below
            give_up=lambda spare, why: self._spares.give_up(spare, why),  # noqa: PLW0108
            kept=lambda instance: self._warmer.kept(instance),  # noqa: PLW0108 - made below
            rates=self._rates,
        )
        self._waker = Waker(
            self.fleet,
            self._boots,
            self._journal,
            announce=self._activator.announce,
            lose=self._hosts.lose,
            mend=self._hosts.mend,
            recall=self._recall,
            leaving=lambda instance: self._retirer.holds(instance),  # noqa: PLW0108 - made below
            resolve=lambda instance: self._migrator.resolve(instance),  # noqa: PLW0108 - made below
            background=self._ender,
            sleeper=self._sleeper,
            hopeless=self._hopeless,
            locks=locks,
            watch=watch,
            reserved=self._activator.reserved,
            claim=lambda *wake: self._spares.claim(*wake),  # noqa: PLW0108 - made below
        )
        self._spares: Spares = Spares(
            self.fleet,
            self._boots,
            self._sleeper,
            self._journal,
            locks=locks,
            rates=self._rates,
            end=self._waker.end,
            end_later=self._waker.end_later,
            busy=self._activator.busy,
            lose=self._hosts.lose,
            watch=watch,
            background=self._filler,
        )
        self._retirer = Retirer(
            self.fleet,
            self._waker,
            self._journal,
            asked=self.asked,
            traffic_at=lambda each: self._usage.traffic_at(each.service, each.name),
            steer=self._steering.steer,
        )
        self._keeper = Keeper(
            self.fleet,
            self._waker,
            self._retirer,
            self._journal,
            summon=lambda service, by: self.summon(service, Client(), by=by).endpoints,
            in_use=lambda service: not self._expirer.unused(service).sleep,
            in_hand=lambda service: self._carrier.in_hand(service),  # noqa: PLW0108 - made below
            background=self._pool,
        )
        self._migrator = Migrator(
            self.fleet, store, self._boots, self._journal, steer=self._steering.steer
        )
        self._drainer = Drainer(
            self.fleet,
            store,
            self._waker,
            self._retirer,
            self._journal,
            migrator=self._migrator,
            in_hand=lambda service: self._carrier.in_hand(service),  # noqa: PLW0108 - made below
            backing_off=self._keeper.backing_off,
            background=self._draining,
        )
        self._scaler = Scaler(self.fleet, self._journal, places=self._places)
        self._settler = Settler(
            fleet=self.fleet,
            store=store,
            boots=self._boots,
            waker=self._waker,
            retirer=self._retirer,
            journal=self._journal,
            usage=self._usage,
            asked=self.asked,
            steer=self._steering.steer,
            lost=self._keeper.lost,
            resolve=self._migrator.resolve,
            runs=self._migrator.runs,
            in_hand=self._sleeper.in_hand,
            count=self._scaler.count,
            background=self._ender,
        )
        self._replanner = Replanner(self.fleet, self._boots)
        self._carrier = Carrier(
            self.fleet,
            self._waker,
            self._migrator,
            self._journal,
            log=self.change_log,
            asked=self.asked,
            steer=self._steering.steer,
            stopping=self._stopping,
        )
        changing = threading.Lock()
        self._rebalancer = Rebalancer(
            self.fleet,
            self._replanner,
            self._carrier,
            Mover(self.fleet, self._boots, self._migrator, self._sleeper.gains),
            log=self.change_log,
            lock=changing,
        )
        self._applier = Applier(
            self.fleet,
            store,
            self._boots,
            self._journal,
            hosts=self._hosts,
            carrier=self._carrier,
            drainer=self._drainer,
            keeper=self._keeper,
            hopeless=self._hopeless,
            traffic=self._traffic,
            log=self.change_log,
            lock=changing,
            steer=self._steering.steer,
            applied=applied,
            background=self._ender,
        )
        self._expirer = Expirer(
            self.fleet,
            self._boots,
            self._sleeper,
            self._journal,
            self._usage,
            rates=self._rates,
            asked=self.asked,
            locks=locks,
            steer=self._steering.steer,
            poll=self._hosts.poll,
            slept=self._keeper.forget,
            guard=lambda: self._traffic.sync(),  # noqa: PLW0108 - made below
            stopping=self._stopping,
            background=self._sinker,
            lanes=self._lanes,
        )
        self._warming = Background("warm", 1)
        self._warmer = Warmer(
            self.fleet,
            self._boots,
            self._waker,
            self._sleeper,
            self._journal,
            plan=lambda: self._replanner.aims(*self._known_of_wakes()),
            wanted=self._activator.is_waking,
            busy=self._activator.busy,
            in_hand=lambda service: self._carrier.in_hand(service),  # noqa: PLW0108 - made below
            left_alone=lambda service: self._hopeless.refusal(service) is not None,
            announce=self._activator.announce,
            aim_spares=self._spares.aim,
            background=self._warming,
        )
        self._overview = Overview(
            self.fleet,
            self._boots,
            self.wakes,
            waker=self._waker,
            keeper=self._keeper,
            expirer=self._expirer,
            scaler=self._scaler,
            hopeless=self._hopeless,
            warmer=self._warmer,
            drainer=self._drainer,
            traffic=self._traffic,
            spares=self._spares,
        )
        self._sweeper = threading.Thread(target=self._sweep, name="edgewake-sweep", daemon=True)

    @property
    def lab(self) -> Lab:
        """The lab in use."""
        return self.fleet.lab

    @property
    def insight(self) -> Insight:
        """Who knows what hosts, services and instances cost."""
        return Insight(self.fleet, self._boots, self._sleeper, self._rates)

    @property
    def images(self) -> Images:
        """Who knows the lab's images."""
        return Images(self.fleet, self._boots)

    def measured(self) -> tuple[MeasuredImage, ...]:
        """Return what the guests of each image are measured to be. Blocks; asks the hosts."""
        measurer = Measurer(self.fleet, self._boots, self._scaler.quiet)
        return measurer.measured(self.images.all(), self.wakes.last(limit=KEPT))

    @property
    def plans(self) -> PlanMetrics:
        """Who counts the plans that are made."""
        return self._replanner.metrics

    # --- life -------------------------------------------------------------------------------

    def start(self, *steering: Steering) -> None:
        """Open the hosts, settle what an earlier run left, and steer; then sweep for ever.

        What was stored is led to only once its host has said that it runs. An unreachable host is
        no error: it is noted, and taken into use when it answers. Blocks until each was asked.
        """
        hosts = {host.name for host in self.lab.hosts}
        stored = self._store.load()
        self._drainer.resume(stored.drains)
        for instance in stored.instances:
            if instance.host in hosts:
                self.fleet.put(instance)
                self.fleet.withdraw(instance)
        self._steering.use(*steering)
        self._hosts.open(self.lab.hosts)
        self._steering.steer()
        self._traffic.sync()
        self._sweeper.start()

    def close(self, *, end_guests: bool = False) -> None:
        """Let go of everything; guests go on running. Blocks.

        With `end_guests`, nothing of ours is left on a reachable host, neither guest nor network.
        """
        self._stopping.set()
        self._boots.closing = "edgewake is stopping"
        self._waker.close()
        self.operations.close()
        if self._sweeper.is_alive():
            self._sweeper.join()
        ours = (
            *(self._warming, self._filler, self._draining),
            *(self._lanes, self._sinker, self._pool, self._ender),
        )
        for background in ours:
            background.close()
        if end_guests:
            for _ in range(2):  # a full disk stops the first round half-way, but not the second
                for instance in self.fleet.instances():
                    self._waker.end_in_turn(instance)
            self._steering.steer()  # so that nothing of it is left in the kernel
        self._traffic.close()
        self._hosts.close(remove_networks=end_guests)
        if self._own_journal:
            self._journal.close()
        self._steering.close()

    # --- the verbs --------------------------------------------------------------------------

    def apply(
        self,
        lab: Lab,
        *,
        text: str = "",
        path: str = "",
        dry_run: bool = False,
        job: Job = ALONE,
        instead_of: int | None = None,
    ) -> Changes:
        """Go over to another lab; return what had to end for it (or would, with `dry_run`). Blocks.

        Raises `UnsafeChanges` and `Outdated`, before anything was changed: see `Applier`.
        """
        source = LabSource(text, path)
        return self._applier.apply(lab, source, dry_run=dry_run, job=job, instead_of=instead_of)

    def versions(self, limit: int = VERSIONS_KEPT) -> tuple[LabVersion, ...]:
        """Return the last labs that were applied, oldest first; the last one is in use."""
        return tuple(self._store.lab_versions(limit))

    def summon(
        self,
        service: str,
        client: Client,
        asked_at: float = 0.0,
        *,
        by: str = "query",
        insist: bool = False,
    ) -> Summons:
        """Ask for a service; returns at once. See `Activator.summon`."""
        return self._activator.summon(service, client, asked_at, by=by, insist=insist)

    def release(self, service: str, rung: Rung | None = None) -> tuple[str, ...]:
        """Put a service to sleep now, used or not; return the instances that went to sleep. Blocks.

        They go down one rung, or to the one that is named, further if they cannot rest there.
        Raises `EdgewakeError` if it has to be awake by its policy, and would be woken at once.
        """
        known = self.known(service)
        if kept := kept_up(known.idle, time.time()):
            hint = f"change `idle` of {service!r} in the lab file"
            raise EdgewakeError(f"{service}: it would be woken at once: {kept.reason}", hint=hint)
        with self._waker.locks[service]:
            to = None if rung is None else (lambda _instance, _service: rung)
            return self._expirer.put_to_sleep(known, "asked to", to=to)

    def rebalance(
        self, *, dry_run: bool = True, options: Options = OPTIONS, job: Job = ALONE
    ) -> Proposal:
        """Place everything anew; move what is awake there unless `dry_run`. Blocks.

        Raises `EdgewakeError`: see `Rebalancer`.
        """
        return self._rebalancer.rebalance(dry_run=dry_run, options=options, job=job)

    def carry_out(
        self, operation: str, job: Job = ALONE, *, number: int | None = None, tag: str = ""
    ) -> Proposal:
        """Carry out what an earlier dry run of `rebalance` proposed, just as it was shown. Blocks.

        Of a front, the plan of that number, just as `kept_plan` showed it under that tag. Raises
        `EdgewakeError` if that cannot be done any more: see `Rebalancer`.
        """
        return self._rebalancer.carry_out(operation, job, number=number, tag=tag)

    def kept_plan(self, operation: str, number: int | None = None) -> Proposal:
        """Return a plan that an operation has found, with what it would change now.

        Raises `EdgewakeError`: see `Rebalancer`.
        """
        return self._rebalancer.kept_plan(operation, number)

    def move(self, name: str, host: str, job: Job = ALONE) -> Changes:
        """Move an instance of a service to a host; return what was done for it. Blocks.

        Raises `EdgewakeError` that says why it cannot move: see `Rebalancer`.
        """
        return self._rebalancer.move(name, host, job)

    def front(
        self,
        terms: Sequence[str],
        *,
        options: Options = OPTIONS,
        points: int | None = None,
        job: Job = ALONE,
    ) -> Front:
        """Return the Pareto front of some terms, minding where instances run now. Blocks.

        Raises `EdgewakeError` as `Planner.front` does, and while another plan is being made.
        """
        return self._rebalancer.front(terms, options=options, points=points, job=job)

    def warm(self, options: WarmOptions = WARM_OPTIONS) -> Warming:
        """Return what hosts should keep warm, by rates, memory and what wakes cost. Blocks.

        Raises `EdgewakeError` if some service can rest nowhere, if the options make no sense, and
        while another plan is being made.
        """
        with self._replanner.alone():
            return self._replanner.warm(options, *self._known_of_wakes())

    def _known_of_wakes(self) -> tuple[WakeCosts, Rungs, Mapping[str, float]]:
        """Return what wakes cost, which rungs may be used, and how often services are."""
        costs = WakeCosts(measured=self._sleeper.wake_costs())
        return costs, self._sleeper.rungs(), self._rates.seen(time.monotonic())

    def drain(self, host: str, *, force: bool = False, job: Job = ALONE) -> DrainReport:
        """Begin to move everything off a host, and place nothing there; returns at once.

        Each instance is migrated as it runs, if its service says so and it can be, or is booted
        elsewhere before it is ended. What can run nowhere else is left running and reported, or
        with `force` ended. The wish is stored: a restart goes on with it.
        """
        self.known_host(host)
        changes = leaving(host, self.fleet.on(host))
        self.change_log.note("drain", host, changes, job, applied=True)
        report = self._drainer.begin(host, force=force)
        self._steering.refresh()  # its copies are named last from now on
        return report

    def undrain(self, host: str) -> None:
        """Use a host again; a drain that is under way stops after its present step.

        A migration is called off; if it is too late for that, it is such a step.
        """
        self.known_host(host)
        self._drainer.undo(host)
        self._steering.refresh()
        self._keeper.try_again()

    def expire(self) -> tuple[str, ...]:
        """Ask every host, tend what is awake, and put to sleep what is not used. Blocks.

        Returns the services put to sleep.
        """
        self._hosts.poll()
        self._settler.probe_the_lost()
        for instance in self.fleet.instances():
            known = self.fleet.service(instance.service) or is_spare(instance.service)
            if not known and self._waker.resting(instance.service):
                self._waker.end_if_same(instance)
        if by_s := self._clock.jumped_s():
            self._journal.record("clock-set", self.lab.name, clock.told(by_s))
        self._refusals.tend()
        self._retirer.tend()
        self._scaler.look()
        self._hopeless.look_for_news()
        self._keeper.tend()
        self._drainer.tend()
        self._steering.refresh()  # hosts that are lost or are back, and what is free on each
        self._warmer.tend()
        if news := self._budgets.news(time.monotonic()):
            self._journal.record("wake-budget", self.lab.name, news)
        slept = self._expirer.expire()
        self._spares.tend()
        self._traffic.sync()
        return slept

    # --- for people who look on -------------------------------------------------------------

    def status(self) -> Status:
        """Return everything at a glance; asks no host."""
        return self._overview.status()

    def host_statuses(self) -> tuple[HostStatus, ...]:
        """Return all hosts at a glance."""
        return self._overview.hosts()

    def host_status(self, name: str) -> HostStatus:
        """Return one host at a glance; raises `UnknownHost`."""
        return self._overview.host(name)

    def service_status(self, name: str) -> ServiceStatus:
        """Return one service at a glance; raises `UnknownService`."""
        return self._overview.service(name)

    def explain(self, service: str, population: str = "") -> tuple[Choice, ...]:
        """Return for each host whether it would be chosen to wake a service now, best first.

        `population` is who asks (empty: nobody in particular). Raises `UnknownService`, or
        `UnknownClients` if the lab has no such population.
        """
        return self._overview.choices(service, population)

    def abilities(self) -> tuple[Ability, ...]:
        """Return which rungs of sleep guests were found to survive, by host and image."""
        return self._sleeper.abilities()

    def forget_abilities(self) -> None:
        """Forget that, so that each rung is probed anew when it is next used."""
        self._sleeper.forget_abilities()

    def events(
        self, limit: int = 100, *, kinds: Collection[str] = (), before: int = 0
    ) -> tuple[Event, ...]:
        """Return the last events of the journal, oldest first; see `Store.events`."""
        return tuple(self._store.events(limit, kinds=kinds, before=before))

    def audit(self, actor: str, role: str, request: str, status: int) -> None:
        """Note what somebody asked for, such as ``POST /plans``, and how that was answered."""
        self._journal.record(
            AUDIT, actor, f"{request}: {status}", role=role, request=request, status=str(status)
        )

    def console(self, service: str) -> bytes:
        """Return the last 64 KiB of the console of a service's instance, also of a past one."""
        return self._overview.console(service)

    # --- for the parts ----------------------------------------------------------------------

    def _recall(self, service: str, *, staying: bool = False) -> bool:
        return self._retirer.recall(service, staying=staying)

    def _places(self, service: Service) -> int:
        """Return on how many hosts there is, or could be made, room for one more copy."""
        unfit = self._boots.unfit(service)
        hosts = set(self.fleet.ranking(service.name, "", unfit).hosts)
        return len(hosts | self.fleet.needed_mib(service.name, self._sleeper.gains(), unfit).keys())

    def _sweep(self) -> None:
        while not self._stopping.wait(self.settings.sweep_s):
            try:
                self.expire()
            except StoreError as error:
                log.warning("the sweep could not keep what it did: %s", error)
            except Exception:
                log.exception("the sweep failed in a way we did not foresee; it goes on")

    # --- small things -----------------------------------------------------------------------

    def known(self, name: str) -> Service:
        """Return a service of the lab; UnknownService lists those there are."""
        return known_service(self.fleet, name)

    def known_host(self, name: str) -> None:
        """Raise `UnknownHost`, which lists those there are, unless the lab has a host."""
        known_host(self.fleet, name)
