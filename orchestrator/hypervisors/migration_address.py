"""Where a guest's memory is sent: an address at which its destination waits for it.

QEMU's driver may be left to find one. libxl's may not: it listens at the very address that it is
told, and when it cannot, libvirt (9.0) never gives back the lock that the source took for the
migration (libvirt src/libvirt-domain.c, `virDomainMigrateVersion3Full`: after a Prepare that failed
only a driver with change protection, which libxl's is not, is asked to Confirm). So what a Xen host
listens at is made sure of before. Asks the resolver here, and the host's own shell where its URI
has one; no libvirt.
"""

import re
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from orchestrator.errors import StartFailed
from orchestrator.hypervisors.connection_uri import read_uri
from orchestrator.hypervisors.host_command import HostProcess, host_command
from orchestrator.model import Host

COMMAND_S = 15.0

# A fixed text, into which nothing is ever put. A busybox dom0 understands it, too.
ADDRESSES = """\
PATH=$PATH:/usr/sbin:/sbin
ip -o address show && echo end
"""
_ADDRESS = re.compile(r"\binet6? ([0-9a-fA-F.:]+)[/ ]")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

Address = IPv4Address | IPv6Address


def address_of(host: Host) -> str:
    """Return the URI at which memory is sent to a host; empty leaves it to the host's libvirt."""
    return _uri(_name(host))


def own_address_of(host: Host) -> str:
    """Return the URI at which memory is sent to a host, with an IP address that it can listen at.

    Asks the host for its addresses where its URI has a way to its shell; elsewhere any address will
    do that does not lead back to whoever uses it. Takes as long as the resolver, and `COMMAND_S` at
    most. Raises `StartFailed` if there is none.
    """
    name = _name(host)
    if not name:
        raise _refused(host, "nothing says at which address it takes guests")
    usable = [each for each in _resolved(name) if _leads_elsewhere(each)]
    if not usable:
        raise _refused(host, f"its name {name} leads to no address that other hosts could send to")
    theirs = _addresses_there(host)
    own = usable if theirs is None else [each for each in usable if each in theirs]
    if not own:
        told = ", ".join(map(str, usable))
        raise _refused(host, f"no network device there has the address {told}")
    return _uri(str(own[0]))


def read_addresses(said: str) -> frozenset[Address] | None:
    """Return the addresses in what `ADDRESSES` says; None if it was not carried out."""
    if said.splitlines()[-1:] != ["end"]:
        return None
    return frozenset(map(ip_address, _ADDRESS.findall(said)))


def _name(host: Host) -> str:
    name = host.migration_address or urlsplit(host.uri).hostname or ""
    # A tunnel to it, perhaps; certainly no way from one host to another.
    return "" if name in _LOOPBACK else name


def _uri(name: str) -> str:
    return f"tcp://[{name}]" if ":" in name else f"tcp://{name}" if name else ""


def _resolved(name: str) -> list[Address]:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [ip_address(place[0]) for *_, place in found]


def _leads_elsewhere(address: Address) -> bool:
    useless = address.is_loopback or address.is_unspecified or address.is_multicast
    return not useless and not (address.version == 6 and address.is_link_local)


def _addresses_there(host: Host) -> frozenset[Address] | None:
    """Return the host's addresses; None if it cannot be asked."""
    command = host_command(read_uri(host.uri), ADDRESSES)
    if not command:
        return None
    try:
        process = HostProcess(command)
    except OSError:
        return None
    return read_addresses(process.exchange(b"", COMMAND_S).decode(errors="replace"))


def _refused(host: Host, why: str) -> StartFailed:
    advice = f"set migration_address of {host.name} to an address that {host.name} itself has"
    return StartFailed(host.name, f"no guest can be migrated there: {why}", hint=advice)
