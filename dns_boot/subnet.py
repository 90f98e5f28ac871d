"""EDNS Client Subnet (RFC 7871): what a resolver says of whom it asks for, and what we say to that.

For `dns_boot.resolver`. Which population a subnet belongs to, and how much of it decided, is known
by `dns_boot.clients`. Nothing here is believed: any client may claim any subnet, so it only ever
chooses between endpoints that everybody may have.
"""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from dns_boot.names import FormatError

_BITS = {0: 0, 1: 32, 2: 128}  # of an address, by family; 0 comes with no address at all
_HEAD_BYTES = 4


@dataclass(frozen=True, slots=True)
class ClientSubnet:
    """What the option of a query says; `address` has as many bytes as `source` bits need."""

    family: int
    source: int
    address: bytes

    @property
    def network(self) -> IPv4Network | IPv6Network | None:
        """The network it names; None if it names nobody (no bits, which asks us not to look)."""
        if not self.source:
            return None
        packed = self.address.ljust(_BITS[self.family] // 8, b"\0")
        return ip_network((ip_address(packed), self.source))

    def option(self, scope: int) -> bytes:
        """Return the data of the option for a reply that `scope` bits of the address decided."""
        return self.family.to_bytes(2, "big") + bytes((self.source, scope)) + self.address


def parse(data: bytes) -> ClientSubnet:
    """Return what the option of a query says; FormatError where RFC 7871, section 6, wants it."""
    if len(data) < _HEAD_BYTES:
        raise FormatError("a client subnet without a head")
    family, source, scope, address = int.from_bytes(data[:2], "big"), data[2], data[3], data[4:]
    if family not in _BITS or source > _BITS[family]:
        raise FormatError("a client subnet of no known kind")
    if scope:
        raise FormatError("a client subnet with a scope, in a query")
    if len(address) != (source + 7) // 8:
        raise FormatError("a client subnet with too many or too few bytes")
    if source % 8 and address[-1] & (0xFF >> source % 8):
        raise FormatError("a client subnet with bits beyond its length")
    return ClientSubnet(family, source, address)
