"""Virtual routers as network namespaces of this machine, joined by veth pairs, taps and tunnels.

See `base.Routers` for the contract. What there is, is asked of the kernel each time: nothing is
remembered here, so nothing can be wrong after a crash, or after somebody else's doing.

`layout` and `tables` say what a network wants of this machine, `kernel` what there is, `change`
makes the one the other; `names` has the rules for names and marks. A network of 100 routers has
20,000 routes, which is why `linux.rtnetlink` speaks to the kernel and not pyroute2.
"""

import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from orchestrator.errors import CannotNetwork
from orchestrator.linux import namespaces
from orchestrator.linux.records import Records
from orchestrator.linux.rtnetlink import (
    Device,
    Hop,
    Socket,
    Target,
    Way,
    add_neighbour,
    add_veth,
    put_route,
    set_device,
)
from orchestrator.network import Found, LinkEngine, LinkState, Network, PortCounters
from orchestrator.routers import homeward, shaping
from orchestrator.routers.base import Done, Progress
from orchestrator.routers.change import Change
from orchestrator.routers.foreign_routes import refuse_routes
from orchestrator.routers.kernel import Kernel, Place
from orchestrator.routers.layout import Layout, lay_out
from orchestrator.routers.names import OUR_MACS, link_local, mark_of
from orchestrator.routers.tables import bridged, tables_for
from orchestrator.routers.wires import Wires, WireState

_TURN = "routers"
_HINT = "edgewake doctor says what this machine lacks"
_RIGHTS = "run as root, or give edgewake CAP_NET_ADMIN and CAP_SYS_ADMIN"


class NetnsRouters:
    """The routers of one owner on one machine.

    `machine` is the machine's name in networks, and `place` the namespace that stands for it ("":
    the calling thread's). Whoever has the same `folder` sets one after the other.
    """

    def __init__(self, owner: str, folder: Path, *, machine: str = "", place: str = "") -> None:
        self._mark = mark_of(owner, machine)
        self._machine, self._place = machine, place
        self._records = Records(folder)
        self._wires = Wires(folder / "wires", self._mark)
        self._engines: dict[LinkEngine, str] = {}
        self._able = False

    # --- the contract -----------------------------------------------------------------------------

    def set(self, wanted: Network, progress: Progress | None = None) -> Done:
        """See `base.Routers.set`."""
        with _translated(), self._records.turn(_TURN):
            self._check_able()
            layout = lay_out(wanted, self._mark, self._machine, self.engines())
            tables = tables_for(wanted, layout)
            with Kernel(self._mark, self._place) as kernel, ExitStack() as undo:
                refuse(layout, kernel)
                refuse_routes(tables, kernel)
                guests = bool(bridged(wanted, here := layout.routers()))
                if not guests and any(kernel.stub_of(each)[0] for each in kernel.machine.devices):
                    homeward.lead(self._place, self._mark, wanted, here)
                done = Change(
                    kernel, layout, tables, self._wires, undo=undo, progress=progress
                ).make()
                if guests:
                    homeward.lead(self._place, self._mark, wanted, here)
                undo.pop_all()
        return done

    def found(self) -> Found:
        """See `base.Routers.found`."""
        with _translated(), Kernel(self._mark, self._place) as kernel:
            return found(kernel)

    def counters(self) -> tuple[PortCounters, ...]:
        """See `base.Routers.counters`."""
        with _translated(), Kernel(self._mark, self._place) as kernel:
            wires = {state.wire.name: state for state in self._wires.all()}
            return tuple(
                replace(port, drops=port.drops + _lost(wires, port))
                for place in kernel.places.values()
                if (router := kernel.router_in(place))
                for port in _ports(kernel, place, router)
            )

    def engines(self) -> dict[LinkEngine, str]:
        """See `base.Routers.engines`."""
        with _translated():
            self._engines = self._engines or shaping.probe()
        return dict(self._engines)

    def close(self) -> None:
        """See `base.Routers.close`."""

    def _check_able(self) -> None:
        if not self._able:
            _try_namespaces()
            self._able = True


def refuse(layout: Layout, kernel: Kernel) -> None:
    """Raise CannotNetwork if a name that is wanted is somebody else's, or a bridge is missing."""
    for node in layout.nodes:
        if node.namespace in kernel.foreign:
            raise CannotNetwork(
                f"{node.name}: there is a namespace {node.namespace} that is not this edgewake's",
                hint="if another state directory's, remove it with that one: edgewake --state DIR "
                f"net remove LAB; else give {node.name} another name, or remove that one: "
                f"ip netns del {node.namespace}",
            )
    for cable in layout.cables:
        for end in cable.ends:
            place = kernel.machine if not end.namespace else kernel.places.get(end.namespace)
            device = place.named(end.device) if place else None
            ours = place and device and kernel.is_ours(place, device)
            if device and device.mac != end.mac and not ours:
                where = f" in namespace {end.namespace}" if end.namespace else ""
                raise CannotNetwork(
                    f"{cable.name}: there is a device {end.device}{where} that is not this "
                    "edgewake's",
                    hint="rename or remove that device",
                )
            if end.bridge:
                _check_bridge(cable.name, end.bridge, kernel.machine.named(end.bridge))


def found(kernel: Kernel) -> Found:
    """Return what is whole of what a kernel has."""
    seen: dict[str, list[tuple[Place, Device, LinkState]]] = defaultdict(list)
    stubs: dict[str, int] = defaultdict(int)
    for place, device in kernel.ours():
        if link := kernel.link_of(device):
            seen[link.link.name].append((place, device, link))
        elif stub := kernel.stub_of(device)[0]:
            stubs[stub] += 1
    routers = {name for place in kernel.places.values() if (name := kernel.router_in(place))}
    return Found(
        routers=tuple(sorted(routers)),
        links=tuple(
            _state([device for _, device, _ in ends], ends[0][2])
            for _, ends in sorted(seen.items())
            if _is_whole(kernel, ends, routers)
        ),
        stubs=tuple(sorted(name for name, ends in stubs.items() if ends == 2)),
    )


def _is_whole(
    kernel: Kernel, ends: list[tuple[Place, Device, LinkState]], routers: set[str]
) -> bool:
    """Return whether both ends are there and say the same, or the only one of a tunnel."""
    here = {kernel.router_in(place) for place, _, _ in ends}
    (_, device, state), *others = ends
    tunnel = device.kind == "vxlan"
    wanted = {state.link.a, state.link.b} & (here if tunnel else routers)
    return (
        here == wanted
        and len(ends) == (1 if tunnel else 2)
        and all(other == state for _, _, other in others)
    )


def _state(devices: list[Device], state: LinkState) -> LinkState:
    return replace(state, link=replace(state.link, up=all(each.up for each in devices)))


def _ports(kernel: Kernel, place: Place, router: str) -> Iterator[PortCounters]:
    drops = place.socket.drops()
    for device in place.devices:
        link, (stub, _) = kernel.link_of(device), kernel.stub_of(device)
        peer = stub
        if link:
            peer = link.link.b if link.link.a == router else link.link.a
        if peer:
            counted = device.counters
            yield PortCounters(
                router,
                peer,
                rx_bytes=counted.rx_bytes,
                rx_packets=counted.rx_packets,
                tx_bytes=counted.tx_bytes,
                tx_packets=counted.tx_packets,
                drops=counted.tx_dropped + drops.get(device.index, 0),
            )


def _lost(wires: dict[str, WireState], port: PortCounters) -> int:
    """Return what a wire of ours took from a port and did not bring to the other end."""
    if state := wires.get(f"{port.router}--{port.peer}"):
        return state.a_to_b.lost + state.a_to_b.dropped
    if state := wires.get(f"{port.peer}--{port.router}"):
        return state.b_to_a.lost + state.b_to_a.dropped
    return 0


def _check_bridge(stub: str, name: str, bridge: Device | None) -> None:
    if bridge is None or bridge.kind != "bridge":
        raise CannotNetwork(
            f"stub {stub}: there is no bridge {name} on this machine",
            hint="make it first; a host's bridge exists when edgewake is up",
        )
    if not bridge.up:
        raise CannotNetwork(
            f"stub {stub}: bridge {name} is down", hint=f"set it up: ip link set {name} up"
        )


# --- what this machine can do ---------------------------------------------------------------------


def _try_namespaces() -> None:
    """Make, in a namespace that ends at once, a pair of devices and a route as ours are."""
    try:
        namespaces.passing(_try_all)
    except PermissionError as error:
        raise CannotNetwork(
            f"virtual routers cannot be made: {error}",
            hint=_RIGHTS,
        ) from error
    except OSError as error:
        raise CannotNetwork(
            f"virtual routers cannot be made on this kernel: {error}",
            hint="it needs network namespaces, veth devices (modprobe veth), and IPv6 switched on",
        ) from error


def _try_all() -> None:
    here, there = OUR_MACS + b"\0\0\1", OUR_MACS + b"\0\0\2"
    gateway = link_local(there)
    with Path("/proc/thread-self/ns/net").open("rb") as own, Socket() as kernel:
        kernel.do([add_veth("ewa", here, "ewb", there, own.fileno())])
        indexes = {device.name: device.index for device in kernel.devices()}
        a, b = indexes["ewa"], indexes["ewb"]
        kernel.do(
            [
                set_device(b, "ewb", up=True),
                set_device(a, "ewa", up=True),
                add_neighbour(a, gateway, there),
                put_route(Target(bytes([192, 0, 2, 1]), 32), Way((Hop(a, gateway.packed),))),
            ]
        )


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what the kernel says into an error of ours."""
    try:
        yield
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        said = error.strerror or os.strerror(error.errno or 0)
        hint = _RIGHTS if isinstance(error, PermissionError) else _HINT
        raise CannotNetwork(f"virtual network: {what}{said}", hint=hint) from error
