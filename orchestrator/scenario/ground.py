"""Where a scenario is played: a back end, and the ways to see that it is as it should be."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from orchestrator.errors import CannotNetwork
from orchestrator.linux import echo, namespaces
from orchestrator.network import Network
from orchestrator.programs.catalogue import addresses
from orchestrator.routers.base import Apps, Routers

_STRANGER, _ALIAS = "ewstranger-", "somebody else's"  # then the process that made it


class Ground(Protocol):
    """Routers and programs, and how to look at them from outside."""

    routers: Routers
    apps: Apps

    def astray(self, network: Network, source: str, target: str) -> str:
        """Return why a packet from a node does not come to another; empty if it does."""
        ...

    def strangers(self) -> object:
        """Return what is there and not ours; it stays equal to itself."""
        ...

    def leaked(self, network: Network) -> Sequence[str]:
        """Return what is there of the network's and not wanted by it, beside what is found."""
        ...

    def close(self) -> None:
        """Remove what the ground itself has made."""
        ...


class MemoryGround:
    """A back end in memory; `path` returns the routers along the way, both ends included."""

    def __init__(
        self, routers: Routers, apps: Apps, path: Callable[[str, str], Sequence[str]]
    ) -> None:
        self.routers, self.apps = routers, apps
        self._path = path

    def astray(self, network: Network, source: str, target: str) -> str:
        """Follow the way, hop by hop, over the links that there are."""
        at = {stub.name: stub.router for stub in network.stubs}
        first, last = at.get(source, source), at.get(target, target)
        way = self._path(first, last)
        if not way:
            return "there is no way"
        if way[0] != first or way[-1] != last:
            return f"the way goes from {way[0]} to {way[-1]}"
        if len(set(way)) < len(way):
            return f"the way has a loop: {' '.join(way)}"
        up = {frozenset((link.a, link.b)) for link in network.links if link.up}
        for hop in pairwise(way):
            if frozenset(hop) not in up:
                return f"the way goes over {'--'.join(hop)}, which carries nothing"
        return ""

    def strangers(self) -> object:
        """Return nothing: in memory there is nobody else."""
        return None

    def leaked(self, network: Network) -> Sequence[str]:  # noqa: ARG002 - the seam's
        """Return nothing: what there is in memory is found."""
        return ()

    def close(self) -> None:
        """Do nothing."""


class NetnsGround:
    """Namespaces of this machine; packets are real.

    It makes a namespace of somebody else, whose bridge has an alias that is not ours, to see that
    it is left alone. `patience_s` is how long a packet may take to get through, at most: routing
    daemons need time.
    """

    def __init__(
        self,
        routers: Routers,
        apps: Apps,
        namespace_of: Callable[[str], str],
        *,
        patience_s: float = 3.0,
    ) -> None:
        self.routers, self.apps = routers, apps
        self._namespace_of, self._patience_s = namespace_of, patience_s
        self._stranger = stranger = f"{_STRANGER}{os.getpid()}"
        self._before = frozenset(namespaces.names())
        self._translated(_sweep)
        with ExitStack() as undo:
            self._translated(lambda: namespaces.make(stranger))
            undo.callback(namespaces.remove, stranger)
            self._translated(self._furnish)
            self._undo = undo.pop_all()

    def _furnish(self) -> None:
        with namespaces.netlink(self._stranger) as ip:
            ip.link("add", ifname="stranger", kind="bridge")
            (made,) = ip.link("get", ifname="stranger")
            ip.link("set", index=made["index"], ifalias=_ALIAS)

    def astray(self, network: Network, source: str, target: str) -> str:
        """Send real packets, from inside the one namespace."""
        address = ip_address(addresses(network)[target])
        asked = namespaces.inside(
            self._namespace_of(source), lambda: echo.answers(address, self._patience_s)
        )
        return "" if asked else f"{address} does not answer within {self._patience_s:g} s"

    def strangers(self) -> object:
        """Return what is in the stranger's namespace."""
        with namespaces.netlink(self._stranger) as ip:
            return tuple(
                (link["index"], link.get_attr("IFLA_IFNAME"), link.get_attr("IFLA_IFALIAS"))
                for link in ip.get_links()
            )

    def leaked(self, network: Network) -> Sequence[str]:
        """Return the namespaces of the network that nobody wants, and were not there before."""
        nodes = [router.name for router in network.routers]
        nodes += [stub.name for stub in network.stubs if not stub.bridge]
        wanted = {self._namespace_of(node) for node in nodes}
        prefix = self._namespace_of("")
        extra = frozenset(namespaces.names()) - self._before - wanted - {self._stranger}
        return sorted(name for name in extra if name.startswith(prefix))

    def close(self) -> None:
        """Remove the stranger."""
        self._undo.close()

    def _translated(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            raise CannotNetwork(
                f"{self._stranger}: {error.strerror}", hint="scenarios on netns take root"
            ) from error


def _sweep() -> None:
    """Remove the strangers of players that were killed: their names say who they were."""
    for name in namespaces.names():
        player = name.removeprefix(_STRANGER)
        if name.startswith(_STRANGER) and player.isdigit() and not Path("/proc", player).exists():
            namespaces.remove(name)
