"""What `edgewake doctor` says of virtual networks: what makes links slow here, and who routes.

Nothing is changed: what is tried is tried in a namespace that nobody else sees.
"""

from collections.abc import Iterator
from pathlib import Path

from orchestrator.errors import CannotNetwork
from orchestrator.model import Lab
from orchestrator.network import LinkEngine, Routing
from orchestrator.routers import daemons
from orchestrator.routers.netns import NetnsRouters
from orchestrator.verdicts import Check, Verdict

_SLOW = (LinkEngine.NETEM, LinkEngine.USER)  # what makes latency, jitter and loss


def check_networks(lab: Lab | None) -> Iterator[Check]:
    """Yield what is found; only a lab that runs its network can fail."""
    yield _links(lab)
    yield _routing(lab)


def _links(lab: Lab | None) -> Check:
    """Say which link engines work, and why others do not."""
    wanted = bool(lab and lab.network.run)
    bad = Verdict.FAIL if wanted else Verdict.WARN
    try:
        engines = NetnsRouters("doctor", Path("/")).engines()
    except CannotNetwork as error:
        return Check("links", bad, f"no virtual network can be made: {error.message}", error.hint)
    can = [engine for engine, why in engines.items() if not why]
    cannot = [f"not {engine} ({why})" for engine, why in engines.items() if why]
    told = f"links can be made by {', '.join([*can, *cannot])}"
    forced = lab.network.engine if lab else None
    if wanted and forced and forced not in can:
        to_do = "leave out network.links in the lab file: then the best that works is taken"
        return Check("links", Verdict.FAIL, f"the lab asks for {forced}: {told}", to_do)
    if not set(_SLOW) & set(can):
        to_do = "use a kernel with sch_netem, or one with tap devices (modprobe tun)"
        return Check("links", bad, f"{told}: so none can be slow or lossy", to_do)
    return Check("links", Verdict.OK, told)


def _routing(lab: Lab | None) -> Check:
    """Look for the routing daemon."""
    wanted = bool(lab and lab.network.run and lab.network.routing is Routing.OSPF)
    try:
        path = daemons.find_daemon()
    except CannotNetwork as error:
        if wanted:
            return Check("routing", Verdict.FAIL, error.message, error.hint)
        return Check("routing", Verdict.OK, "bird is not there, and only needed for OSPF")
    return Check("routing", Verdict.OK, path)
