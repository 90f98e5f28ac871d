"""The virtual network of the lab that runs, as it is now, and what people change of it.

For the API, and through it for the command line and the dashboard. What the lab file says is what
is wanted: a change that is made here lasts until the lab is applied again, as it also is when
edgewake starts. Placement and steering count with the lab file all the while. A lab that does not
run its network is shown as a graph, and nothing of it can be changed.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from orchestrator.errors import CannotNetwork, NotInNetwork
from orchestrator.journal import Journal
from orchestrator.model import Lab
from orchestrator.net_report import quality_told
from orchestrator.network import App, AppState, Network, VirtualLink
from orchestrator.network_edits import (
    LinkWish,
    ends_of,
    link_named,
    router_named,
    with_link,
    with_router,
    without_link,
    without_router,
)
from orchestrator.network_monitor import Monitors
from orchestrator.network_view import Look, NetworkView, Wanted, looked_at, planned
from orchestrator.network_ways import Ways, fastest, ways
from orchestrator.networking import NetworkKeeper
from orchestrator.networks import Kept, Networks, router_at
from orchestrator.programs import catalogue
from orchestrator.routers.base import Done, Progress
from orchestrator.wanted_network import apps_of, network_of, one_more, this_machine

UNTIL = "until the lab is applied again"
LOAD_S = 1.0  # the least time over which rates are told
TOLD_CHARACTERS = 200  # of a program's arguments, in the journal
PACE_S = 0.1  # between two words on how far a change is

Make = Callable[[Network], Network]


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of a router or link: of which (`noun` and `name`), what it makes, what to tell.

    `told` is what the journal says of it, given the network after it.
    """

    noun: str
    name: str
    make: Make
    told: Callable[[Network], str]

    def only_if(self, demand: Callable[[Network], None]) -> "Edit":
        """Return the edit for whoever raises no error over the network as it is found."""

        def make(network: Network) -> Network:
            demand(network)
            return self.make(network)

        return replace(self, make=make)


class LiveNetwork:
    """The network of the running lab. Safe to use from several threads; errors `CannotNetwork`.

    `lab` returns the lab in use. A change of a router or link is first looked at, which takes no
    time and says what cannot be (`router_edit` and the others), then done (`carry_out`). Changes
    wait for one another, and for `keeper`, which sets the network when a lab is applied.
    """

    def __init__(
        self,
        keeper: NetworkKeeper,
        networks: Networks,
        monitors: Monitors,
        lab: Callable[[], Lab],
        journal: Journal,
    ) -> None:
        self._keeper, self._networks, self._monitors = keeper, networks, monitors
        self._lab, self._journal = lab, journal
        self._wanted: Wanted | None = None
        self._seen: Network | None = None

    # --- what there is --------------------------------------------------------------------------

    def view(self) -> NetworkView:
        """Return the network, how it differs from the lab file, and how busy it is."""
        lab = self._lab()
        if not lab.network.run:
            return planned(lab)
        wanted, why = self._of(lab), self._keeper.why_not
        monitor, kept, sample = self._monitors.of(lab.name), None, None
        try:
            kept = self._networks.kept(lab.name) or Kept(wanted.network, this_machine(lab))
            if kept.network != self._seen:  # the lab was applied, or a command has changed it
                self._seen = kept.network
                monitor.outdate()
            sample = monitor.sample()
        except CannotNetwork as error:
            why = why or str(error)
        kept = kept or Kept(wanted.network, this_machine(lab))
        return looked_at(kept, wanted, Look(sample, monitor.load(LOAD_S), why))

    def network(self) -> Network:
        """Return the network that runs, as it was last set."""
        lab = self._runs()
        kept = self._networks.kept(lab.name)
        if kept is None:
            raise CannotNetwork(
                f"network {lab.name} is not there yet: {self._keeper.why_not or 'nobody set it'}",
                hint="apply the lab again",
            )
        return kept.network

    def ways(self, a: str, b: str) -> Ways:
        """Return the best ways between two routers, populations or hosts."""
        lab = self._lab()
        return ways(self.network(), lab, a, b) if lab.network.run else fastest(lab, a, b)

    # --- routers and links ----------------------------------------------------------------------

    def router_edit(
        self,
        name: str,
        address: IPv4Address | None = None,
        address6: IPv6Address | None = None,
        machine: str | None = None,
    ) -> Edit:
        """Have a router, at these addresses; what is left out stays, or is as the lab file has it.

        A router of no lab file gets addresses that are free, on this machine.
        """

        def make(network: Network) -> Network:
            lab = self._runs()
            known = {each.name: each for each in (*self._of(lab).network.routers, *network.routers)}
            was = known.get(name)
            place = was.machine if was else this_machine(lab)
            four, six = (was.address, was.address6) if was else (None, None)
            router = one_more(
                lab,
                network,
                name,
                (address or four, address6 or six),
                place if machine is None else machine,
            )
            return with_router(network, router)

        return self._possible(Edit("router", name, make, lambda after: _router_told(after, name)))

    def router_removal(self, name: str) -> Edit:
        """Remove a router, its links and its programs; NotInNetwork if there is none."""
        return self._possible(
            Edit("router", name, lambda network: without_router(network, name), _gone)
        )

    def link_edit(self, name: str, wish: LinkWish) -> Edit:
        """Have a link (``a--b``), as wished; routers that are not there are NotInNetwork."""
        name = "--".join(ends_of(self.network(), name))
        return self._possible(
            Edit(
                "link",
                name,
                lambda network: with_link(network, name, wish),
                lambda after: f"{_told(link_named(after, name))} {UNTIL}",
            )
        )

    def link_switch(self, name: str, *, up: bool) -> Edit:
        """Take a link that is there up, or down; packets take another way before it is."""
        name = link_named(self.network(), name).name
        return self._possible(
            Edit(
                "link",
                name,
                lambda network: with_link(network, link_named(network, name).name, LinkWish(up=up)),
                lambda _after: f"{'up' if up else 'down'} {UNTIL}",
            )
        )

    def link_removal(self, name: str) -> Edit:
        """Remove a link; NotInNetwork if there is none."""
        name = link_named(self.network(), name).name
        return self._possible(
            Edit("link", name, lambda network: without_link(network, name), _gone)
        )

    def carry_out(self, edit: Edit, progress: Progress | None = None) -> Done:
        """Change the network, if that can still be, and tell the journal what came of it.

        Takes up to seconds where there are many routers, and its turn before.
        """
        lab = self._runs()
        with self._turn() as networks:
            done = networks.change(lab.name, edit.make, progress and _paced(progress))
            if done != Done():
                kind = "removed" if edit.name in done.removed else "changed"
                told = edit.told(self.network())
                self._journal.record(f"{edit.noun}-{kind}", edit.name, told)
        return done

    # --- programs -------------------------------------------------------------------------------

    def apps(self, node: str) -> tuple[AppState, ...]:
        """Return the programs on a router, or among clients."""
        self._known(node)
        there = self._networks.apps(self._lab().name).all()
        return tuple(state for state in there if state.app.router == node)

    def app(self, node: str, name: str) -> AppState:
        """Return a program; NotInNetwork if there is none of that name."""
        there = {state.app.name: state for state in self.apps(node)}
        if name not in there:
            known = ", ".join(there) or "none"
            raise NotInNetwork(f"{node} has no program {name}", hint=f"there are: {known}")
        return there[name]

    def start(self, node: str, name: str, run: str, parameters: Mapping[str, str]) -> AppState:
        """Start a ready-made program (`orchestrator.programs`) on a router, or among clients."""
        network = self._known(node)
        try:
            known = catalogue.addresses(network)
            app = catalogue.app(name, node, run, parameters, known.__getitem__)
        except ValueError as error:
            raise CannotNetwork(f"{node}: {error}") from error
        return self._start(app)

    def execute(
        self, node: str, name: str, argv: tuple[str, ...], rights: tuple[str, ...] = ()
    ) -> AppState:
        """Start any program of the machine, by its arguments; `rights` as `App` has them."""
        self._known(node)
        return self._start(App(name, node, argv, rights=rights))

    def stop(self, node: str, name: str) -> AppState:
        """End a program; its console and how it ended stay known until it is removed."""
        self.app(node, name)
        with self._turn() as networks:
            state = networks.apps(self._lab().name).stop(node, name)
        self._journal.record("app-stopped", f"{node}/{name}", "as somebody asked")
        return state

    def remove(self, node: str, name: str) -> None:
        """End a program and forget it; NotInNetwork if there is none."""
        self.app(node, name)
        with self._turn() as networks:
            networks.apps(self._lab().name).remove(node, name)
        self._journal.record("app-removed", f"{node}/{name}", "as somebody asked")

    def console(self, node: str, name: str) -> bytes:
        """Return the last 64 KiB of what a program printed."""
        self.app(node, name)
        return self._networks.apps(self._lab().name).console(node, name)

    # --- inside ---------------------------------------------------------------------------------

    def _runs(self) -> Lab:
        """Return the lab; CannotNetwork if it does not run its network."""
        lab = self._lab()
        if not lab.network.run:
            raise CannotNetwork(
                f"lab {lab.name} does not run its network: its routers and links are only counted "
                "with",
                hint="write `network: {run: true}` into the lab file, and apply it",
            )
        return lab

    def _known(self, node: str) -> Network:
        """Return the network that runs, which has this router or these clients."""
        network = self.network()
        try:
            router_at(network, node)
        except CannotNetwork as error:
            raise NotInNetwork(error.message, hint=error.hint) from error
        return network

    def _possible(self, edit: Edit) -> Edit:
        """Return an edit, unless it cannot be made of the network as it is."""
        self._runs()
        self._keeper.demand()
        edit.make(self.network())
        return edit

    def _start(self, app: App) -> AppState:
        with self._turn() as networks:
            state = networks.apps(self._lab().name).start(app)
        text = " ".join(app.argv)[:TOLD_CHARACTERS]
        self._journal.record("app-started", f"{app.router}/{app.name}", text)
        return state

    @contextmanager
    def _turn(self) -> Iterator[Networks]:
        with self._keeper.turn() as networks:
            try:
                yield networks
            finally:
                self._monitors.of(self._lab().name).outdate()

    def _of(self, lab: Lab) -> Wanted:
        """Return what a lab wants; computed once for each lab."""
        wanted = self._wanted
        if wanted is None or wanted.lab is not lab:
            wanted = self._wanted = _wanted(lab)
        return wanted


def _wanted(lab: Lab) -> Wanted:
    """Return what a lab wants, as far as it can be had: why not all is, the journal says."""
    network = Network(lab.name)
    apps: tuple[App, ...] = ()
    with suppress(CannotNetwork):
        network = network_of(lab)
        apps = apps_of(lab)
    return Wanted(lab, network, apps)


def _told(link: VirtualLink) -> str:
    down = "" if link.up else ", down"
    return f"{quality_told(link.quality)}, weight {link.weight:g}{down}"


def _router_told(network: Network, name: str) -> str:
    router = router_named(network, name)
    addresses = " and ".join(str(each) for each in (router.address, router.address6) if each)
    return f"at {addresses} {UNTIL}"


def _gone(_after: Network) -> str:
    return f"gone {UNTIL}"


def _paced(progress: Progress) -> Progress:
    """Return what tells each new step at once, and how far that is only now and then."""
    last, due = "", 0.0

    def tell(what: str, done: int, total: int) -> None:
        nonlocal last, due
        now = time.monotonic()
        if what != last or now >= due:
            last, due = what, now + PACE_S
            progress(what, done, total)

    return tell
