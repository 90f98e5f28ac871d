"""Where programs of this machine reach what it listens at."""

from ipaddress import ip_address


def reached_at(address: str) -> str:
    """Return the address to ask: the loopback's for whatever listens at all of them."""
    listens = ip_address(address)
    if not listens.is_unspecified:
        return address
    return "::1" if listens.version == 6 else "127.0.0.1"
