"""Makes namespaces and devices of a network, each so that it is marked when it comes into being.

For the `netns` back end, which says when. What is made here has no addresses yet and is down.
"""

import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from orchestrator.errors import CannotNetwork
from orchestrator.linux import namespaces, taps
from orchestrator.linux.rtnetlink import Request, Socket, add_veth, add_vxlan, set_device
from orchestrator.routers.kernel import Kernel
from orchestrator.routers.layout import Build, Cable, Node
from orchestrator.routers.names import unsliced
from orchestrator.routers.settle import LO_INDEX

_MTU, _MTU6 = 1450, 1430  # bytes through a tunnel: 1500 less its headers (RFC 7348)

# Links have no IPv4 addresses, so nothing can be said of where a packet should come from. While
# routes change, a router may get its own packets back, to send them the other way; and a hint to
# take another way (an ICMP redirect) would soon be wrong.
_SYSCTLS = (
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/all/accept_local", "1"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv4/conf/all/arp_announce", "2"),  # guests hear of addresses in their subnet only
    ("net/ipv4/fib_multipath_hash_policy", "1"),  # by ports, too
    ("net/ipv6/fib_multipath_hash_policy", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv6/conf/default/accept_dad", "0"),  # the MAC addresses are ours, so none is double
)
_CLIENT_SYSCTLS = (
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),  # the way out is told, not heard
)


def make_namespace(node: Node) -> Socket:
    """Make a namespace and return a socket inside."""
    with ExitStack() as undo:
        held: list[Socket] = []

        def prepare() -> None:
            kernel = Socket()
            undo.callback(kernel.close)
            held.append(kernel)
            kernel.do([set_device(LO_INDEX, f"lo of {node.name}", alias=node.mark)])
            for path, value in _SYSCTLS if node.router else _CLIENT_SYSCTLS:
                Path("/proc/sys", path).write_text(value)

        namespaces.make(node.namespace, prepare)
        undo.pop_all()
    return held[0]


def make_cables(cables: list[Cable], kernel: Kernel) -> None:
    """Make both ends of each cable, or the one there is of a tunnel; look at them after that."""
    by_place: dict[str, list[Request]] = defaultdict(list)
    with ExitStack() as files:
        for cable in cables:
            if cable.build is Build.TAP:
                _make_taps(cable, kernel)
            else:
                place, request = _request(cable, files, kernel)
                by_place[place].append(request)
        for name, requests in by_place.items():
            kernel.at(name).socket.do(requests)
    for name in {end.namespace for cable in cables for end in cable.ends}:
        kernel.at(name).look()


def _request(cable: Cable, files: ExitStack, kernel: Kernel) -> tuple[str, Request]:
    """Return how to make a cable, and where to ask for it."""
    first, *others = cable.ends
    if tunnel := cable.tunnel:
        return "", add_vxlan(
            f"ewx{first.mac.hex()}",  # for a moment it is beside the machine's own devices
            first.mac,
            number=tunnel.number,
            local=tunnel.local,
            remote=tunnel.remote,
            mtu=_MTU if len(tunnel.local) == 4 else _MTU6,
            namespace=files.enter_context(_entrance(first.namespace)),
        )
    (second,) = others
    where = _entrance(second.namespace) if second.namespace else kernel.entrance()
    other = files.enter_context(where)
    return first.namespace, add_veth(first.device, first.mac, second.device, second.mac, other)


def _make_taps(cable: Cable, kernel: Kernel) -> None:
    """Make two taps; without its mark, one goes with the file by which we hold it."""
    for end in cable.ends:
        place = kernel.at(end.namespace)
        tap = namespaces.inside(end.namespace, partial(taps.make_passing, end.device))
        try:
            place.look()
            device = place.named(end.device)
            if device is None:
                raise CannotNetwork(f"{cable.name}: {end.device} vanished while it was made")
            what = f"{end.device} of {cable.name}"
            # It is not shared out yet, which the whole mark would say.
            place.socket.do(
                [set_device(device.index, what, mac=end.mac, alias=unsliced(cable.mark))]
            )
            taps.keep(tap)
        finally:
            os.close(tap)


@contextmanager
def _entrance(namespace: str) -> Iterator[int]:
    with (namespaces.FOLDER / namespace).open("rb") as file:
        yield file.fileno()
