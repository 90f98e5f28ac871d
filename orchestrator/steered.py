"""Opens what steers packets in this machine's kernel, for `edgewake up`: chains and redirects."""

from collections.abc import Callable
from contextlib import ExitStack

from orchestrator.control import Orchestrator
from orchestrator.model import Lab, RedirectBy
from orchestrator.routers.names import namespace_of
from orchestrator.steering.base import Steering
from orchestrator.steering.chained import ChainSteering
from orchestrator.steering.chains import ChainPaths, Station
from orchestrator.steering.redirect.base import Rung
from orchestrator.steering.redirect.ladder import LinuxRedirector
from orchestrator.steering.redirect.services import Redirects
from orchestrator.wanted_network import network_of, this_machine


def steered(
    orchestrator: Orchestrator,
    lab: Lab,
    owner: str,
    world_of: Callable[[str], str | None],
    undo: ExitStack,
) -> tuple[Steering, ...]:
    """Return what steers packets; `world_of` is an instance's namespace, `undo` lets go of all.

    Nothing is looked at yet. What steers redirects is read from `lab`, all else from the one in
    use.
    """
    chains = ChainSteering(
        ChainPaths(owner),
        lambda: orchestrator.lab,
        endpoints_of=orchestrator.fleet.endpoints,
        namespace_of=world_of,
        entries=entries_of,
    )
    force = None if lab.redirect is RedirectBy.AUTO else Rung(lab.redirect)
    redirects = Redirects(
        lambda: orchestrator.lab, LinuxRedirector(owner, force=force, watched=True)
    )
    undo.callback(redirects.close)
    redirects.start()
    return chains, redirects


def entries_of(lab: Lab) -> tuple[Station, ...]:
    """Return the routers on this machine at which clients enter the lab's network, if it runs."""
    if not lab.network.run:
        return ()
    network, machine = network_of(lab), this_machine(lab)
    doors = {population.router for population in lab.populations}
    return tuple(
        Station(namespace_of(network.name, router.name), router.address, router.address6)
        for router in network.routers
        if router.name in doors and router.machine == machine
    )
