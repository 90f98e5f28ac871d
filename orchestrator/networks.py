"""The virtual networks of one installation on this machine: what each was last set to, and is.

For the command line and for `edgewake up`, which may both be at work: each network has turns. What
was set is kept in a file per network, so that a command can change one link of a network that runs,
and find a network again that no lab file is there for any more. `orchestrator.routers` does it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace

from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import CannotNetwork
from orchestrator.linux.records import Records
from orchestrator.network import (
    App,
    Found,
    LinkEngine,
    Network,
    PortCounters,
    VirtualLink,
)
from orchestrator.network_apps import settle
from orchestrator.network_monitor import Seen
from orchestrator.routers.base import Apps, Done, Progress, Routers

# Opens the back end of one network: its name, and which of its machines this one is.
OpenRouters = Callable[[str, str], Routers]
OpenApps = Callable[[str], Apps]  # the programs in one network: its name


@dataclass(frozen=True, slots=True)
class Kept:
    """A network as it was last set, and which of its machines this one is."""

    network: Network
    machine: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """A network as it was set, what of it there is on this machine, and what went through it."""

    kept: Kept
    found: Found
    counters: tuple[PortCounters, ...]

    def engine(self, link: VirtualLink) -> LinkEngine | None:
        """Return what makes a link slow; None if it is not here."""
        return {state.link.name: state.engine for state in self.found.links}.get(link.name)


_KEPT = TypeAdapter(Kept)


class Networks:
    """The networks of an installation, by the names of their labs. Errors are `CannotNetwork`."""

    def __init__(
        self, records: Records, open_routers: OpenRouters, open_apps: OpenApps | None = None
    ) -> None:
        self._records = records
        self._open = open_routers
        self._open_apps = open_apps

    def names(self) -> list[str]:
        """Return the networks that were set, and not removed."""
        return self._records.names()

    def kept(self, name: str) -> Kept | None:
        """Return what a network was last set to; None if it is not set."""
        text = self._records.read(name)
        if text is None:
            return None
        try:
            return _KEPT.validate_json(text)
        except ValidationError as error:
            raise CannotNetwork(
                f"network {name}: {self._records.path(name, '.json')} is not one of this edgewake",
                hint="set it again: edgewake net apply LAB",
            ) from error

    def set(self, wanted: Kept, progress: Progress | None = None, apps: Sequence[App] = ()) -> Done:
        """Make a network as wanted; one without routers is removed and forgotten.

        It is kept before anything is made, so that whatever a crash leaves can be found by name.
        Then `apps` are started on the routers that are here, unless they are there.
        """
        with self._turn(wanted.network.name):
            done = self._set(wanted, progress)
            if self._open_apps is None:
                return done
            nodes = _nodes_here(wanted)
            started = settle(self._open_apps(wanted.network.name), apps, nodes)
            return replace(done, made=(*done.made, *started))

    def apps(self, name: str) -> Apps:
        """Return the programs in a network that is set."""
        self._known(name)
        if self._open_apps is None:
            raise CannotNetwork(f"network {name} is only remembered: nothing can run in it")
        return self._open_apps(name)

    def change(
        self, name: str, edit: Callable[[Network], Network], progress: Progress | None = None
    ) -> Done:
        """Set a network that is set to what `edit` makes of it; programs of routers that go, go."""
        with self._turn(name):
            kept = self._known(name)
            wanted = replace(kept, network=edit(kept.network))
            done = self._set(wanted, progress)
            if self._open_apps is not None:
                settle(self._open_apps(name), (), _nodes_here(wanted))
            return done

    def remove(self, name: str, progress: Progress | None = None) -> Done:
        """Remove a network; one that is not set is looked for by its name all the same."""
        machine = ""
        with suppress(CannotNetwork):
            kept = self.kept(name)
            machine = kept.machine if kept else ""
        return self.set(Kept(Network(name), machine), progress)

    def view(self, name: str) -> View:
        """Return a network and its state."""
        kept = self._known(name)
        with closing(self._open(name, kept.machine)) as routers:
            return View(kept, routers.found(), routers.counters())

    def seen(self, name: str) -> Seen:
        """Return what a `NetworkMonitor` sees of a network that is set."""
        view = self.view(name)
        apps = self._open_apps(name).all() if self._open_apps else ()
        return view.found, view.counters, apps

    def found(self, wanted: Kept) -> Found:
        """Return what there is on this machine of a network, whether it was set by us or not."""
        with closing(self._open(wanted.network.name, wanted.machine)) as routers:
            return routers.found()

    def _known(self, name: str) -> Kept:
        kept = self.kept(name)
        if kept is None:
            known = ", ".join(self.names()) or "none"
            raise CannotNetwork(
                f"no network {name} is set on this machine; known: {known}",
                hint="set it: edgewake net apply LAB",
            )
        return kept

    def _set(self, wanted: Kept, progress: Progress | None) -> Done:
        name = wanted.network.name
        with ExitStack() as undo:
            undo.callback(self._keep, name, self._records.read(name))
            self._keep(name, _KEPT.dump_json(wanted, indent=1).decode())
            with closing(self._open(name, wanted.machine)) as routers:
                done = routers.set(wanted.network, progress)
            undo.pop_all()
        if not wanted.network.routers:
            self._keep(name, None)
        return done

    @contextmanager
    def _turn(self, name: str) -> Iterator[None]:
        with ExitStack() as stack:
            try:
                stack.enter_context(self._records.turn(name))
            except OSError as error:
                raise CannotNetwork(
                    f"network {name}: {self._records.folder}: {error.strerror}",
                    hint="run as root, or name another --state folder",
                ) from error
            yield

    def _keep(self, name: str, text: str | None) -> None:
        if text is None:
            self._records.remove(name)
        else:
            self._records.write(name, text)


def _nodes_here(wanted: Kept) -> set[str]:
    """Return the routers and stubs that this machine has."""
    network = wanted.network
    here = {each.name for each in network.routers if each.machine == wanted.machine}
    return here | {stub.name for stub in network.stubs if stub.router in here}


def differences(wanted: Kept, found: Found) -> Done:
    """Return what `set` would change on this machine, but for routes."""
    network = wanted.network
    here = {each.name for each in network.routers if each.machine == wanted.machine}
    links = {each.name: each for each in network.links if {each.a, each.b} & here}
    stubs = {each.name for each in network.stubs if each.router in here}
    was = {state.link.name: state.link for state in found.links}
    names = {*here, *links, *stubs}
    there = {*found.routers, *was, *found.stubs}
    return Done(
        made=tuple(sorted(names - there)),
        changed=tuple(sorted(name for name in links.keys() & was if links[name] != was[name])),
        removed=tuple(sorted(there - names)),
    )


def link_between(network: Network, a: str, b: str) -> VirtualLink:
    """Return the link between two routers, in either order; CannotNetwork if there is none."""
    for link in network.links:
        if {link.a, link.b} == {a, b}:
            return link
    names = ", ".join(link.name for link in network.links) or "none"
    raise CannotNetwork(f"network {network.name} has no link between {a} and {b}; known: {names}")


def router_at(network: Network, node: str) -> str:
    """Return the router that a name stands for: itself, or where that stub hangs."""
    if any(router.name == node for router in network.routers):
        return node
    for stub in network.stubs:
        if stub.name == node:
            return stub.router
    known = [*(each.name for each in network.routers), *(each.name for each in network.stubs)]
    raise CannotNetwork(
        f"network {network.name} has no router or clients {node!r}; known: {', '.join(known)}"
    )
