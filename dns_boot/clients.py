"""Who asks: a source address becomes a `Client` with the population it belongs to.

For the resolver. What a population means (where it attaches, which endpoint is nearest to it) is
control's business. The most specific subnet of the lab wins, as in routing.
"""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from orchestrator.model import Client, Population

REMEMBERED = 8192  # source addresses; about 2 MB when all are in use


class Clients:
    """Knows the populations of a lab by their subnets."""

    def __init__(self, populations: Sequence[Population]) -> None:
        # One dictionary per prefix length, longest first: a look-up costs one step per length
        # that is in use, however many subnets there are.
        tables: dict[tuple[int, int], dict[int, str]] = {}
        for population in populations:
            for subnet in population.subnets:
                table = tables.setdefault((subnet.version, subnet.prefixlen), {})
                table.setdefault(int(subnet.network_address), population.name)
        self._tables = sorted(tables.items(), reverse=True)
        self.of = lru_cache(maxsize=REMEMBERED)(self._client)

    def _client(self, source: str) -> Client:
        """Return who is behind a source address, given as text; unknown text is nobody."""
        try:
            address = ip_address(source.partition("%")[0])
        except ValueError:
            return Client()
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped  # an IPv4 client on a socket that listens on ::
        return Client(address=address, population=self._population(address))

    def _population(self, address: IPv4Address | IPv6Address) -> str:
        for (version, length), table in self._tables:
            if version == address.version:
                host_bits = address.max_prefixlen - length
                name = table.get(int(address) >> host_bits << host_bits)
                if name is not None:
                    return name
        return ""
