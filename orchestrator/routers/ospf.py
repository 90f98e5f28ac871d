"""What a routing daemon in each router is told: configurations of BIRD 2, as text.

For `orchestrator.routers.daemons`. OSPFv2 (RFC 2328) and OSPFv3 (RFC 5340) over links without
subnets: a router's own address is on each of its links, too, as a single one, which BIRD takes for
an unnumbered link. Equal ways are all used. BFD (RFC 5880) notices a link that fails silently.
"""

from collections.abc import Iterator
from fractions import Fraction
from math import gcd, lcm
from pathlib import Path

from orchestrator.errors import CannotNetwork
from orchestrator.network import Network, VirtualLink, VirtualRouter
from orchestrator.routers.names import device_to

MOST_COST = 0xFFFF  # RFC 2328, A.4.2: 16 bits

LOG_BYTES = 2**20
BFD_MS, BFD_MISSED = 100, 3  # a link is given up after so many of these
HELLO_S, DEAD_S = 1, 4
MOST_WAYS = 16  # that are used at once, of equal ones


def costs_of(network: Network) -> dict[str, int]:
    """Return the OSPF cost of each link, by name: its weight, in the smallest whole numbers.

    All are in proportion to the weights, exactly. CannotNetwork: 16 bits are too few for that.
    """
    weights = {link.name: Fraction(repr(link.weight)) for link in network.links}
    scale = lcm(*(weight.denominator for weight in weights.values()))
    whole = {name: int(weight * scale) for name, weight in weights.items()}
    if scale > 1 or max(whole.values(), default=0) > MOST_COST:
        common = gcd(*whole.values())
        whole = {name: cost // common for name, cost in whole.items()}
    worst = max(whole, key=whole.__getitem__, default="")
    if worst and whole[worst] > MOST_COST:
        raise CannotNetwork(
            f"link {worst}: its weight {weights[worst]} is too large beside the others for OSPF, "
            f"which counts to {MOST_COST}",
            hint="use weights that are closer together, or `routing: static`",
        )
    return whole


def bird_config(network: Network, router: VirtualRouter, log: Path, *, bfd: bool = True) -> str:
    """Return the configuration of the daemon in a router; it writes what it has to say to `log`.

    Without `bfd`, a neighbour that says nothing is missed only after `DEAD_S`.
    """
    costs = costs_of(network)
    links = {
        (link.b if link.a == router.name else link.a): (link, costs[link.name])
        for link in network.links
        if router.name in {link.a, link.b}
    }
    lines = [
        "# Made by edgewake, which writes it anew at each change of the network.",
        f'log "{log}" {LOG_BYTES} "{log}.1" {{ info, warning, error, fatal, bug }};',
        f"router id {router.address};",
        "protocol device { scan time 60; }",
        *(_bfd(links) if bfd and links else ()),
        *_kernel(4, str(router.address)),
        *_ospf(4, network, router, links, bfd=bfd),
    ]
    if router.address6 is not None:
        lines += _kernel(6, str(router.address6))
    lines += _ospf(6, network, router, links, bfd=bfd)
    return "\n".join(lines) + "\n"


_Links = dict[str, tuple[VirtualLink, int]]  # link and cost by neighbour


def _bfd(links: _Links) -> Iterator[str]:
    yield "protocol bfd {"
    for peer in sorted(links):
        timers = f"interval {BFD_MS} ms; multiplier {BFD_MISSED}"
        yield f'  interface "{device_to(peer)}" {{ {timers}; }};'
    yield "}"


def _kernel(version: int, source: str) -> Iterator[str]:
    """Yield what puts routes into the kernel, with the router's own address as source."""
    yield f"protocol kernel kernel{version} {{"
    yield f"  ipv{version} {{ import none; export filter {{ krt_prefsrc = {source}; accept; }}; }};"
    yield f"  merge paths yes limit {MOST_WAYS};"
    yield "}"


def _ospf(
    version: int, network: Network, router: VirtualRouter, links: _Links, *, bfd: bool
) -> Iterator[str]:
    protocol = "v2" if version == 4 else "v3"
    yield f"protocol ospf {protocol} ospf{version} {{"
    yield "  tick 1;"
    yield f"  ecmp yes limit {MOST_WAYS};"
    yield f"  ipv{version} {{ import all; export none; }};"
    yield "  area 0 {"
    for prefix in _prefixes(version, network, router):
        yield f"    stubnet {prefix};"
    for peer, (_, cost) in sorted(links.items()):
        yield f'    interface "{device_to(peer)}" {{'
        timers = f"hello {HELLO_S}; dead {DEAD_S}; retransmit 2; bfd {'yes' if bfd else 'no'};"
        yield f"      type ptp; cost {cost}; {timers}"
        yield "    };"
    yield "  };"
    yield "}"


def _prefixes(version: int, network: Network, router: VirtualRouter) -> Iterator[str]:
    """Yield what is reached at a router: its own address, and the subnets of its stubs."""
    if version == 4:
        yield f"{router.address}/32"
    elif router.address6 is not None:
        yield f"{router.address6}/128"
    for stub in network.stubs:
        subnet = stub.subnet if version == 4 else stub.subnet6
        if stub.router == router.name and subnet is not None:
            yield str(subnet)
