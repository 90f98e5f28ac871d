"""ARP: a hint to this machine about a guest that is booting, and a way to ask for its address.

A SYN to an address the kernel does not know waits for an ARP reply; a request that is sent while
the guest boots is lost, and the next one follows a second later. We know the MAC: with an entry in
state STALE (no ATF_PERM, see arp(7)) packets leave at once, and the kernel checks and drops the
entry by itself like any it learned. That is best effort: without CAP_NET_ADMIN, or for an address
that is not on a local network, nothing happens but a slower first answer.
"""

import contextlib
import fcntl
import socket
import struct
from errno import ENODEV
from ipaddress import IPv4Address, IPv4Network

_SIOCGIFADDR = 0x8915  # linux/sockios.h
_SIOCDARP = 0x8953
_SIOCSARP = 0x8955
_ARPHRD_ETHER = 1
_ATF_COM = 0x02  # linux/if_arp.h: the hardware address is valid
_ARPREQ = struct.Struct("=H2x4s8xH14si16s16s")  # struct arpreq: pa, ha, flags, netmask, device

_ETH_P_ARP = 0x0806
_BROADCAST = b"\xff" * 6
_ARP = struct.Struct("!HHBBH6s4s6s4s")  # RFC 826, for Ethernet and IPv4
_ARP_HEAD = (_ARPHRD_ETHER, 0x0800, 6, 4)
_REQUEST = 1


def hint(address: IPv4Address, mac: str) -> bool:
    """Note which MAC an address on a local network has; return whether that was possible.

    The network is found by the kernel's routes. Calling it again, also for an entry whose check
    has failed meanwhile, makes the entry usable again.
    """
    return _ioctl(_SIOCSARP, address, bytes.fromhex(mac.replace(":", "")), _ATF_COM)


def call(address: IPv4Address) -> bool:
    """Ask once for an address on a local network, by broadcast; return whether that was possible.

    Whoever has it answers, and bridges on the way see where from.
    """
    try:
        arp = ArpSocket(address)
    except OSError:
        return False
    with arp.socket, contextlib.suppress(OSError):
        arp.ask()
    return True


def interface_on(subnet: IPv4Network, address: IPv4Address) -> str:
    """Return the interface that packets to an address of a network leave by, if it is on it.

    Empty if this machine has no address of its own on that network.
    """
    try:
        source = _source_towards(address)
        return _interface_with(source) if source in subnet and source != address else ""
    except OSError:
        return ""


def forget(address: IPv4Address) -> bool:
    """Drop what is known of an address; return whether there was anything to drop."""
    return _ioctl(_SIOCDARP, address, b"", 0)


class ArpSocket:
    """Asks one address by ARP on the network it is on, and listens for it.

    Making one raises PermissionError without CAP_NET_RAW, and OSError if no route leads to the
    address or the network it leads to is not an Ethernet.
    """

    def __init__(self, address: IPv4Address) -> None:
        self._address = address
        self._source = _source_towards(address)
        interface = _interface_with(self._source)
        self.socket = socket.socket(
            socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(_ETH_P_ARP)
        )
        with contextlib.ExitStack() as failing:
            failing.callback(self.socket.close)
            self.socket.bind((interface, _ETH_P_ARP))
            *_, hardware, self._mac = self.socket.getsockname()
            if hardware != _ARPHRD_ETHER:
                raise OSError(ENODEV, f"{interface} is not an Ethernet: nobody answers ARP there")
            failing.pop_all()
        self._everybody = (interface, _ETH_P_ARP, 0, 0, _BROADCAST)

    def ask(self) -> None:
        """Broadcast a request; raises OSError if the network is down."""
        source, target = self._source.packed, self._address.packed
        packet = _ARP.pack(*_ARP_HEAD, _REQUEST, self._mac, source, bytes(6), target)
        self.socket.sendto(packet, self._everybody)

    def heard(self) -> bool:
        """Take one packet that has arrived; return whether it is from the address."""
        try:
            packet = self.socket.recv(256)
        except OSError:
            return False
        return arp_sender(packet) == self._address


def arp_sender(packet: bytes) -> IPv4Address | None:
    """Return whose address an ARP request or reply announces, None if it is not one for IPv4."""
    if len(packet) < _ARP.size:
        return None
    *head, _, _, sender, _, _ = _ARP.unpack_from(packet)
    return IPv4Address(sender) if tuple(head) == _ARP_HEAD else None


def _ioctl(request: int, address: IPv4Address, mac: bytes, flags: int) -> bool:
    entry = _ARPREQ.pack(socket.AF_INET, address.packed, _ARPHRD_ETHER, mac, flags, b"", b"")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, request, entry)
    except OSError:
        return False
    return True


def _source_towards(address: IPv4Address) -> IPv4Address:
    """Return our own address on the way to another (connecting UDP sends nothing)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unsent:
        unsent.connect((str(address), 9))
        return IPv4Address(unsent.getsockname()[0])


def _interface_with(address: IPv4Address) -> str:
    """Return the name of the interface that has this address of ours."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            request = struct.pack("16s24x", name.encode())
            try:
                reply = fcntl.ioctl(any_socket, _SIOCGIFADDR, request)
            except OSError:
                continue  # an interface without an IPv4 address
            if reply[20:24] == address.packed:
                return name
    raise OSError(ENODEV, f"no interface has the address {address}")
