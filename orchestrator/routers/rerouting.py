"""Puts the routes of all namespaces in place, while packets are on their way.

One prefix after the other would be slow and one router after the other could send packets round in
circles, so it goes in rounds: `tables.depths` says which router is to have which route in which.
"""

from collections import defaultdict
from contextlib import suppress
from errno import ENODEV, ESRCH

from orchestrator.linux.rtnetlink import (
    Hop,
    Request,
    Socket,
    Target,
    Way,
    put_route,
    remove_route,
)
from orchestrator.routers.base import Progress
from orchestrator.routers.kernel import Kernel
from orchestrator.routers.layout import Layout
from orchestrator.routers.tables import Table, Tables, depths

_GONE = frozenset({ENODEV, ESRCH})

Ways = dict[Target, Way]


class Rerouting:
    """One change of the kernel's routes. Devices must be there, and up, when it is made."""

    def __init__(self, kernel: Kernel, layout: Layout, tables: Tables) -> None:
        self._kernel, self._tables = kernel, tables
        self._names = {node.namespace: node.name for node in layout.nodes}
        self._before: dict[str, Ways] = {}

    def make(self, progress: Progress) -> int:
        """Install what is missing or other, then remove what is too much; return how many."""
        have = {name: self._kernel.at(name).socket.routes() for name in self._tables.tables}
        want = {name: self._ways(name, table) for name, table in self._tables.tables.items()}
        self._before = have
        differ = {
            name: {target: way for target, way in ways.items() if have[name].get(target) != way}
            for name, ways in want.items()
        }
        rounds = self._rounds(differ)
        for number in sorted(rounds):
            progress("rounds of routes", number, len(rounds))
            for name, requests in rounds[number].items():
                self._kernel.at(name).socket.do(requests)
        stale = {name: self._stale(name, want[name]) for name in want}
        for name, targets in stale.items():
            removals = [remove_route(target, fine=_GONE) for target in targets]
            self._kernel.at(name).socket.do(removals)
        return sum(map(len, differ.values())) + sum(map(len, stale.values()))

    def restore(self) -> None:
        """Put back what was there before, as far as devices are."""
        for name, before in self._before.items():
            if not name or name in self._kernel.places:
                with suppress(OSError):
                    self._restore(self._kernel.at(name).socket, name, before)

    def _rounds(self, differ: dict[str, Ways]) -> dict[int, dict[str, list[Request]]]:
        """Return the routes to install, by round and namespace."""
        replaced = frozenset(
            target
            for name, ways in differ.items()
            for target in ways
            if target in self._before[name]
        )
        depth = depths(self._tables.routes, replaced)
        rounds: dict[int, dict[str, list[Request]]] = defaultdict(lambda: defaultdict(list))
        for name, ways in differ.items():
            for target, way in ways.items():
                number = depth.get((self._names.get(name, ""), target), 0)
                rounds[number][name].append(put_route(target, way))
        return rounds

    def _ways(self, name: str, table: Table) -> Ways:
        indexes = {device.name: device.index for device in self._kernel.at(name).devices}
        return {
            target: Way(
                tuple(sorted(Hop(indexes[device], gateway) for device, gateway in road.hops)),
                road.source,
            )
            for target, road in table.items()
        }

    def _stale(self, name: str, want: Ways) -> list[Target]:
        """Return where old routes of ours lead; on the machine, others like us have some, too."""
        old = {target: way for target, way in self._before[name].items() if target not in want}
        if name:
            return list(old)
        stubs = (self._kernel.stub_of(device) for device in self._kernel.machine.devices)
        gateways = {gateway for _, some in stubs for gateway in some}
        return [
            target for target, way in old.items() if {hop.gateway for hop in way.hops} <= gateways
        ]

    def _restore(self, socket: Socket, name: str, before: Ways) -> None:
        now, wanted = socket.routes(), self._tables.tables[name]
        new = [target for target in now if target in wanted and target not in before]
        changed = [put_route(each, way) for each, way in before.items() if now.get(each) != way]
        socket.do([*(remove_route(target) for target in new), *changed])
