"""What a change of a virtual network costs the packets that are under way while it is made.

For `orchestrator.cli_net`. Packets go between two routers on this machine before, during and after
the change; `orchestrator.linux.probing` counts them.
"""

from collections.abc import Callable

from orchestrator.linux import namespaces
from orchestrator.linux.probing import Loss, Probe
from orchestrator.network import Network

BEFORE_S = 3.0  # for packets to arrive at all; where they do not, they may after the change
AFTER_S = 15.0  # OSPF may take that long: RFC 2328, MinLSInterval is 5 s
CUT_OFF_S = 1.0  # where no way is left there is nothing to wait for


def measured(
    network: Network,
    a: str,
    b: str,
    namespace_of: Callable[[str, str], str],
    change: Callable[[], None],
    *,
    after_s: float = AFTER_S,
) -> Loss | None:
    """Make a change while packets go from one router to another; None if both are not here.

    Packets go on until they arrive steadily again, for `after_s` at most.
    """
    start, end = (namespace_of(network.name, node) for node in (a, b))
    if not {start, end} <= {*namespaces.names()}:
        change()
        return None
    source, destination = network.router(a).address, network.router(b).address
    with Probe(start, end, source, destination) as probe:
        probe.await_steady(BEFORE_S)
        change()
        probe.await_steady(after_s)
    return probe.loss()


def loss_told(loss: Loss) -> str:
    """Return what became of packets, such as ``3 of 120 packets lost, 30 ms without any``."""
    if not loss.lost:
        return f"0 of {loss.sent} packets lost"
    return (
        f"{loss.lost} of {loss.sent} packets lost, {loss.longest_gap_s * 1000:.0f} ms without any"
    )
