"""What the kernel has of a network: namespaces and devices that carry our mark, as they are now.

For the `netns` back end, which compares it with what is wanted, and remembers nothing itself.
Everything here only looks, but for names of namespaces that somebody killed left empty.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from errno import EINVAL, ENOENT
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from orchestrator.linux import namespaces
from orchestrator.linux.rtnetlink import Address, Device, Socket
from orchestrator.network import LinkState
from orchestrator.routers.layout import End
from orchestrator.routers.names import OUR_MACS, link_marked, node_marked, stub_marked

PREFIX = "ew-"
_LO = "lo"
_OWN = Path("/proc/thread-self/ns/net")


class Contents(NamedTuple):
    """What is in a namespace; `neighbours` are indexes of devices and MAC addresses."""

    devices: list[Device]
    addresses: frozenset[Address]
    neighbours: frozenset[tuple[int, bytes]]


class Place:
    """A namespace and what is in it, as of the last `look`; "" is the machine's own."""

    def __init__(self, name: str, socket: Socket) -> None:
        self.name, self.socket = name, socket
        self.devices: list[Device] = []
        self.addresses: frozenset[Address] = frozenset()
        self.neighbours: frozenset[tuple[int, bytes]] = frozenset()
        self.look()

    def look(self) -> None:
        """Look again at the devices."""
        self.devices = self.socket.devices()

    def look_closer(self) -> None:
        """Look at addresses and neighbours, too."""
        self.addresses = frozenset(self.socket.addresses())
        told = self.socket.permanent_neighbours()
        self.neighbours = frozenset((index, mac) for index, _, mac in told)

    def contents(self) -> Contents:
        """Return what was seen last."""
        return Contents(self.devices, self.addresses, self.neighbours)

    def named(self, name: str) -> Device | None:
        """Return the device of that name."""
        return next((each for each in self.devices if each.name == name), None)

    def end(self, end: End) -> Device | None:
        """Return the device that an end is.

        In the machine's own namespace, where a bridge can have a port's MAC, by its name as well.
        """
        return next(
            (
                each
                for each in self.devices
                if each.mac == end.mac and (self.name or each.name == end.device)
            ),
            None,
        )

    @property
    def mark(self) -> str:
        """What the namespace is marked with."""
        lo = self.named(_LO)
        return lo.alias if lo else ""


class Kernel:
    """A look at the machine, open inside a ``with`` block; for one thread at a time.

    `places` are our namespaces by name, `foreign` the names of others that look like ours.
    """

    def __init__(self, mark: str, machine: str) -> None:
        self.our_mark = mark
        self._machine = machine
        self._held = ExitStack()
        self.places: dict[str, Place] = {}
        self.foreign: set[str] = set()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.callback(self._held.close)
            self.machine = Place("", self._held.enter_context(Socket(self._machine)))
            namespaces.sweep(PREFIX)
            for name in namespaces.names():
                if name.startswith(PREFIX):
                    self._look_into(name)
            undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.close()

    def at(self, namespace: str) -> Place:
        """Return the place of that name; "" is the machine's own."""
        return self.places[namespace] if namespace else self.machine

    def add(self, name: str, socket: Socket) -> Place:
        """Count a namespace that was just made among ours."""
        self.places[name] = Place(name, self._held.enter_context(socket))
        return self.places[name]

    def forget(self, name: str) -> None:
        """Let go of a namespace, so that it can end."""
        self.places.pop(name).socket.close()

    def ours(self) -> Iterator[tuple[Place, Device]]:
        """Yield every device of ours, with where it is."""
        for place in (self.machine, *self.places.values()):
            for device in place.devices:
                if self.is_ours(place, device):
                    yield place, device

    def is_ours(self, place: Place, device: Device) -> bool:
        """Return whether we made a device: in the moment before it has its mark, by its MAC."""
        if device.name == _LO:
            return False
        new = not device.alias and device.mac.startswith(OUR_MACS) and place is not self.machine
        return new or device.alias.startswith(self.our_mark)

    def router_in(self, place: Place) -> str:
        """Return the router that a namespace is; empty if none."""
        name, router = node_marked(self.our_mark, place.mark)
        return name if router else ""

    def names(self) -> set[str]:
        """Return the routers, links and stubs that anything of ours belongs to."""
        nodes = {node_marked(self.our_mark, place.mark)[0] for place in self.places.values()}
        links = {found.link.name for _, each in self.ours() if (found := self.link_of(each))}
        return nodes | links | {name for _, each in self.ours() if (name := self.stub_of(each)[0])}

    def link_of(self, device: Device) -> LinkState | None:
        """Return what the mark of a link's device says."""
        return link_marked(self.our_mark, device.alias)

    def stub_of(self, device: Device) -> tuple[str, frozenset[bytes]]:
        """Return the stub that a device belongs to, and its gateways."""
        return stub_marked(self.our_mark, device.alias)

    @contextmanager
    def entrance(self) -> Iterator[int]:
        """Yield an open file that stands for the machine's own namespace."""
        path = namespaces.FOLDER / self._machine if self._machine else _OWN
        with path.open("rb") as file:
            yield file.fileno()

    def _look_into(self, name: str) -> None:
        try:
            socket = Socket(name)
        except OSError as error:
            if error.errno not in (ENOENT, EINVAL):  # somebody else's, gone meanwhile
                raise
            return
        with ExitStack() as undo:
            undo.callback(socket.close)
            place = Place(name, socket)
            if place.mark.startswith(self.our_mark):
                self._held.enter_context(undo.pop_all())
                self.places[name] = place
            else:
                self.foreign.add(name)


def peopled(names: list[str]) -> set[str]:
    """Return which of these namespaces have processes inside."""
    inodes = {namespaces.inode(name): name for name in names}
    found = set()
    for link in Path("/proc").glob("[0-9]*/ns/net"):
        with suppress(OSError):  # it has ended meanwhile
            if name := inodes.get(link.stat().st_ino):
                found.add(name)
    return found
