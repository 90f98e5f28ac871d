"""Who asks: a source address becomes a `Client` with the population it belongs to.

For the resolver, which may also know the subnet that it is asked for. What a population means
(where it attaches, which endpoint is nearest to it) is control's business. The most specific subnet
of the lab wins, as in routing.
"""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

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
        self.populations = tuple(populations)
        self.of = lru_cache(maxsize=REMEMBERED)(self._client)
        self.within = lru_cache(maxsize=REMEMBERED)(self._within)

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
        return self._longest(address, address.max_prefixlen)[0]

    def _longest(self, address: IPv4Address | IPv6Address, longest: int) -> tuple[str, int]:
        """Return whose subnet of at most `longest` bits has the address, and how many it has."""
        for (version, length), table in self._tables:
            if version == address.version and length <= longest:
                host_bits = address.max_prefixlen - length
                name = table.get(int(address) >> host_bits << host_bits)
                if name is not None:
                    return name, length
        return "", 0

    def _within(self, network: IPv4Network | IPv6Network) -> tuple[str, int]:
        """Return the population of a client subnet, and the scope of an answer for it, in bits.

        The scope is that of the population's subnet, and more where that has subnets of others in
        it: what is said for one prefix must not be believed for another that is told something
        else (RFC 7871, section 7.2.1). It is longer than the network where that is too short to
        tell. Takes time in proportion to the subnets of the lab, once per network.
        """
        address = network.network_address
        name, scope = self._longest(address, network.prefixlen)
        for population in self.populations:
            for subnet in population.subnets if population.name != name else ():
                if subnet.version == network.version and subnet.prefixlen > scope:
                    scope = max(scope, _bits_apart(address, network.prefixlen, subnet))
        return name, scope


def _bits_apart(
    address: IPv4Address | IPv6Address, known: int, subnet: IPv4Network | IPv6Network
) -> int:
    """Return how many bits tell an address, of which `known` bits count, from a subnet."""
    difference = int(address) ^ int(subnet.network_address)
    common = address.max_prefixlen - difference.bit_length()
    if common >= min(known, subnet.prefixlen):
        return subnet.prefixlen  # the subnet lies within what is known of the address
    return common + 1
