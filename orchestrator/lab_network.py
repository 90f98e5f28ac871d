"""What may be written in a lab file below ``network``: whether routers and links are run, and how.

For `orchestrator.lab_schema`. What must go together with routers, hosts and clients is for
`orchestrator.lab_network_checks`.
"""

from pydantic import Field

from orchestrator.lab_entry import Entry
from orchestrator.lab_values import (
    AUTO,
    Address,
    Flag,
    Key,
    LinkWay,
    RoutingWay,
    Subnet4,
    Subnet6,
)
from orchestrator.model import NetworkSettings
from orchestrator.network import LinkEngine, Machine, Routing

_DEFAULT = NetworkSettings()


class NetworkSettingsEntry(Entry):
    """Whether routers and links are run, or only counted with in placement, and how."""

    run: Flag = Field(
        default=False, description="Make routers and links real, on this machine and `machines`."
    )
    routing: RoutingWay = Field(
        default=Routing.STATIC,
        description="Who finds the ways: `static`, we; `ospf`, a routing daemon in each router.",
    )
    links: LinkWay = Field(
        default=AUTO,
        description="What makes links slow: `auto`, `netem`, `user`, `shaper` or `none`.",
    )
    subnet: Subnet4 = Field(
        default=_DEFAULT.subnet, description="Where routers have their IPv4 addresses from."
    )
    subnet6: Subnet6 = Field(
        default=_DEFAULT.subnet6, description="Where routers have their IPv6 addresses from."
    )
    machines: dict[Key, Address] = Field(
        default={},
        description="Hosts that run routers, each with the address at which the others reach it.",
    )

    def noun(self) -> NetworkSettings:
        """Return the settings."""
        return NetworkSettings(
            run=self.run,
            routing=Routing(self.routing),
            engine=None if self.links == AUTO else LinkEngine(self.links),
            subnet=self.subnet,
            subnet6=self.subnet6,
            machines=tuple(Machine(name, address) for name, address in self.machines.items()),
        )
