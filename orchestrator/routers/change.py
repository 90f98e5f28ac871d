"""Makes a machine's kernel be as a layout says: one call of the `netns` back end's `set`.

Everything is compared with what the kernel has at that moment, and only differences are asked for,
in an order in which live traffic suffers least: what is new comes first, then routes, each put in
the place of the old one, and only then does what is not wanted any more go down and away. Each
step puts its undo on the stack it is given, beside the doing.

A namespace has its mark before it has its name, and a device its MAC address, which shows that it
is ours, when it comes into being. So whoever is killed leaves nothing that the next call would not
know.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from errno import ENODEV
from functools import partial

from orchestrator.errors import CannotNetwork
from orchestrator.linux import namespaces
from orchestrator.linux.rtnetlink import (
    Device,
    Request,
    remove_device,
    set_device,
    settle_device,
)
from orchestrator.network import LinkEngine, Quality, SliceShare
from orchestrator.routers import shaping
from orchestrator.routers.base import Done, Progress
from orchestrator.routers.building import make_cables, make_namespace
from orchestrator.routers.kernel import Contents, Kernel, Place, peopled
from orchestrator.routers.layout import Build, Cable, End, Layout
from orchestrator.routers.names import is_sliced
from orchestrator.routers.rerouting import Rerouting
from orchestrator.routers.settle import restore, settle_end, settle_node
from orchestrator.routers.tables import Tables
from orchestrator.routers.wires import End as WireEnd
from orchestrator.routers.wires import Wire, Wires

DRAIN_MOST_S = 1.0  # that packets on their way are waited for before their link goes

_DRAIN_MORE_S = 0.01  # for whoever is late to send them on
_PATIENCE_S, _POLL_S = 1.0, 0.001  # for links to run, which takes the kernel a moment

_NOT_THE_KERNELS = {LinkEngine.NONE, LinkEngine.USER}
_AT_ONCE = 20  # links
_GONE = frozenset({ENODEV})

Devices = list[tuple[Place, Device]]


class Change:
    """One change of the kernel. `undo` is run by whoever gave it if `make` fails."""

    def __init__(
        self,
        kernel: Kernel,
        layout: Layout,
        tables: Tables,
        wires: Wires,
        *,
        undo: ExitStack,
        progress: Progress | None,
    ) -> None:
        self._kernel, self._layout = kernel, layout
        self._routes = Rerouting(kernel, layout, tables)
        self._wires, self._undo = wires, undo
        self._progress = progress or (lambda _what, _done, _all: None)
        self._nodes = {node.namespace: node for node in layout.nodes}
        self._made: set[str] = set()
        self._changed: set[str] = set()
        self._before = kernel.names()
        self._woken: dict[str, Cable] = {}
        self._contents: dict[str, Contents] = {}

    def make(self) -> Done:
        """Carry it out."""
        self._make_room()
        self._undo.callback(self._restore)
        self._make_namespaces()
        self._make_cables()
        self._settle()
        wires = self._join_wires()
        self._await_running()
        routes = self._routes.make(self._progress)
        self._retire(cut_wires=bool(wires))
        return Done(
            made=tuple(sorted(self._made - self._before)),
            changed=tuple(sorted((self._changed | self._made) & self._before)),
            removed=tuple(sorted(self._before - self._layout.names())),
            routes=routes,
        )

    def _make_room(self) -> None:
        """Remove what is in the way of something wanted; then look closely at all the rest."""
        self._remove_namespaces(self._misfits())
        self._remove_devices(self._in_the_way())
        for name, place in self._kernel.places.items():
            place.look_closer()
            self._contents[name] = place.contents()

    def _restore(self) -> None:
        """Put back how devices, addresses and routes were that were there before."""
        for name, before in self._contents.items():
            if place := self._kernel.places.get(name):
                _quietly(partial(self._restore_place, place, before))
        self._routes.restore()

    def _restore_place(self, place: Place, before: Contents) -> None:
        place.look()
        place.look_closer()
        place.socket.do(restore(before, place))

    # --- namespaces -------------------------------------------------------------------------------

    def _misfits(self) -> list[str]:
        """Return our namespaces that have a wanted name and stand for something else."""
        return [
            name
            for name, place in self._kernel.places.items()
            if name in self._nodes and place.mark != self._nodes[name].mark
        ]

    def _make_namespaces(self) -> None:
        missing = [node for node in self._layout.nodes if node.namespace not in self._kernel.places]
        for number, node in enumerate(missing):
            self._progress("routers and clients", number, len(missing))
            self._kernel.add(node.namespace, make_namespace(node))
            self._undo.callback(_quietly, partial(self._end_namespace, node.namespace))
            self._made.add(node.name)

    def _end_namespace(self, name: str) -> None:
        self._kernel.forget(name)
        namespaces.remove(name)

    def _remove_namespaces(self, names: list[str]) -> None:
        """Remove namespaces; their devices go with them, unless processes keep them alive."""
        for name in peopled(names) if names else ():
            place = self._kernel.places[name]
            ours = [device for device in place.devices if self._kernel.is_ours(place, device)]
            place.socket.do(_removal(ours))
        for number, name in enumerate(names):
            self._progress("removed routers and clients", number, len(names))
            self._end_namespace(name)

    # --- devices ----------------------------------------------------------------------------------

    def _whole(self, cable: Cable) -> bool:
        """Return whether all ends of a cable are there."""
        return all(
            (end.namespace in self._kernel.places or not end.namespace)
            and self._kernel.at(end.namespace).end(end)
            for end in cable.ends
        )

    def _in_the_way(self) -> Devices:
        """Return our devices that have a wanted name but are another's, or half of a cable."""
        wanted = {(end.namespace, end.mac) for cable in self._layout.cables for end in cable.ends}
        names = {(end.namespace, end.device) for cable in self._layout.cables for end in cable.ends}
        half = {
            (end.namespace, end.mac)
            for cable in self._layout.cables
            if not self._whole(cable)
            for end in cable.ends
        }
        return [
            (place, device)
            for place, device in self._kernel.ours()
            if (place.name, device.mac) in half
            or ((place.name, device.name) in names and (place.name, device.mac) not in wanted)
        ]

    def _make_cables(self) -> None:
        missing = [cable for cable in self._layout.cables if not self._whole(cable)]
        for first in range(0, len(missing), _AT_ONCE):
            self._progress("links", first, len(missing))
            some = missing[first : first + _AT_ONCE]
            for cable in some:
                self._undo.callback(_quietly, partial(self._remove_cable, cable))
                self._made.add(cable.name)
            make_cables(some, self._kernel)

    def _remove_cable(self, cable: Cable) -> None:
        for end in cable.ends:
            place = self._kernel.at(end.namespace)
            place.look()
            device = place.end(end)
            place.socket.do(_removal([device] if device else []))

    def _settle(self) -> None:
        for node in self._layout.nodes:
            place = self._kernel.at(node.namespace)
            self._do(place, settle_node(node, place), node.name)
        for number, cable in enumerate(self._layout.cables):
            self._progress("settled links", number, len(self._layout.cables))
            for end in cable.ends:
                self._settle_end(cable, end)

    def _settle_end(self, cable: Cable, end: End) -> None:
        place = self._kernel.at(end.namespace)
        device = place.end(end)
        if device is None:
            raise CannotNetwork(f"{cable.name}: its device {end.device} vanished while it was made")
        bridge = self._kernel.machine.named(end.bridge) if end.bridge else None
        if device.alias != cable.mark:
            self._shape(cable, place, device)
        self._do(place, settle_end(cable, end, device, place, bridge), cable.name)
        if cable.up and not device.up:
            self._woken[cable.name] = cable
        if device.name != end.device:
            place.look()
        if device.alias != cable.mark:  # last, for it says that all the rest was done
            what = f"{end.device} of {cable.name}"
            self._do(place, [set_device(device.index, what, alias=cable.mark)], cable.name)

    def _shape(self, cable: Cable, place: Place, device: Device) -> None:
        old = self._kernel.link_of(device)
        before = (old.link.quality, old.engine) if old else (Quality(), LinkEngine.NONE)
        unknown = old is None and cable.name not in self._made  # somebody was killed on the way
        sliced = old is not None and is_sliced(device.alias)
        shared = sliced or cable.slices
        shaped = shared or not {before[1], cable.engine} <= _NOT_THE_KERNELS
        same = before == (cable.quality, cable.engine) and not shared
        if cable.stub or same or not (shaped or unknown):
            return

        def shape(quality: Quality, engine: LinkEngine, slices: Sequence[SliceShare]) -> None:
            with namespaces.netlink(place.name) as ip:
                shaping.shape(ip, device.index, quality, engine, slices)

        shape(cable.quality, cable.engine, cable.slices)
        # Which slices there were the mark does not tell; a tree of classes stays one.
        self._undo.callback(_quietly, lambda: shape(*before, cable.slices if sliced else ()))

    def _join_wires(self) -> list[Wire]:
        """Have our process move frames between taps; what is to end goes on until routes moved."""
        there = {state.wire.name: state.wire for state in self._wires.all() if state.alive}
        wanted = list(self._wanted_wires())
        names = {wire.name for wire in wanted}
        joined = [wire for name, wire in there.items() if name not in names]
        for wire in wanted:
            was_up = wire.name in there and there[wire.name].up
            joined.append(replace(wire, up=wire.up or was_up))
        if joined:
            self._undo.callback(_quietly, partial(self._wires.set, tuple(there.values())))
            self._wires.set(tuple(joined))
        return joined

    def _await_running(self) -> None:
        """Wait until links that came up carry packets, before any are led there."""
        deadline = time.monotonic() + _PATIENCE_S
        for cable in self._woken.values():
            while not self._runs(cable) and time.monotonic() < deadline:
                time.sleep(_POLL_S)

    def _runs(self, cable: Cable) -> bool:
        ends = [end for end in cable.ends if end.namespace]
        for end in ends:
            place = self._kernel.at(end.namespace)
            if device := place.end(end):
                place.socket.do([settle_device(device.index, end.device)])
        return all(self._is_running(end) for end in ends)

    def _is_running(self, end: End) -> bool:
        place = self._kernel.at(end.namespace)
        place.look()
        device = place.end(end)
        return device is not None and device.running

    def _wanted_wires(self) -> Iterator[Wire]:
        for cable in self._layout.cables:
            if cable.build is Build.TAP:
                a, b = (WireEnd(end.namespace, end.device) for end in cable.ends)
                quality = shaping.left_to_wire(cable.quality, cable.slices)
                yield Wire(cable.name, a, b, quality, cable.up)

    # --- what is not wanted any more --------------------------------------------------------------

    def _retire(self, *, cut_wires: bool) -> None:
        """Take down and remove what is not wanted, when what was on its way has come through."""
        down, unwanted = list(self._to_take_down()), self._unwanted()
        links = [link for _, device in unwanted if (link := self._kernel.link_of(device))]
        qualities = [cable.quality for cable, _, _ in down] + [each.link.quality for each in links]
        time.sleep(max(map(_transit_s, qualities), default=0))
        for cable, place, device in down:
            what = f"{device.name} of {cable.name}"
            self._do(place, [set_device(device.index, what, up=False)], cable.name)
        if cut_wires:
            self._wires.set(tuple(self._wanted_wires()))
        self._remove_devices(unwanted)
        self._remove_namespaces([name for name in self._kernel.places if name not in self._nodes])

    def _to_take_down(self) -> Iterator[tuple[Cable, Place, Device]]:
        for cable in self._layout.cables:
            for end in () if cable.up else cable.ends:
                place = self._kernel.at(end.namespace)
                device = place.end(end)
                if device and device.up:
                    yield cable, place, device

    def _unwanted(self) -> Devices:
        """Return our devices that are not wanted, and do not go with their namespace."""
        macs = {end.mac for cable in self._layout.cables for end in cable.ends}
        return [
            (place, device)
            for place, device in self._kernel.ours()
            if device.mac not in macs
            and (not place.name or place.name in self._nodes or device.kind == Build.VXLAN)
        ]

    def _remove_devices(self, unwanted: Devices) -> None:
        for place, device in unwanted:
            place.socket.do(_removal([device]))
        for place in {place.name: place for place, _ in unwanted}.values():
            place.look()

    def _do(self, place: Place, requests: list[Request], changed: str = "") -> None:
        if requests:
            place.socket.do(requests)
        if requests and changed:
            self._changed.add(changed)


def _removal(devices: Iterable[Device]) -> list[Request]:
    return [remove_device(device.index, device.name, fine=_GONE) for device in devices]


def _transit_s(quality: Quality) -> float:
    late_s = (quality.latency_ms + quality.jitter_ms) / 1000
    return min(late_s + _DRAIN_MORE_S, DRAIN_MOST_S) if late_s else 0.0


def _quietly(undo: Callable[[], None]) -> None:
    """Take something back as far as that goes: what is raised is the error before it."""
    with suppress(OSError, CannotNetwork):
        undo()
