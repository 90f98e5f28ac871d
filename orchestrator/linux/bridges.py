"""Bridges and tap devices of this machine, marked as ours by their link alias.

For back ends that plug processes into a network without libvirt. Decides nothing: who calls says
what is to exist, and looks at `Link.alias` before removing anything. Calls concern the network
namespace of the thread that makes them. Every OSError raised names the device.

Link aliases can be read with `ip link`, last until the device is gone, and need no other record.
"""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from errno import EBUSY, ENODEV
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from pathlib import Path
from types import TracebackType
from typing import Any, Self

NAME_MAX = 15  # characters; IFNAMSIZ is 16 with its final NUL (linux/if.h)
NO_DAD = 0x02  # linux/if_addr.h IFA_F_NODAD: an address is used at once

_PATIENCE_S, _POLL_S = 5.0, 0.001
_IPV6 = Path("/proc/sys/net/ipv6/conf")
_SCOPE_LINK = 253  # linux/rtnetlink.h RT_SCOPE_LINK

Interface = IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True)
class Link:
    """A network device. `master` is the index of the bridge it is a port of, 0 if of none.

    `kind` is the kernel's word, such as ``bridge`` or ``tun``. Counters are in bytes and the host's
    view: what a guest sent through a tap was received (`rx_bytes`) by the tap.
    """

    name: str
    index: int
    kind: str
    alias: str
    master: int
    mtu: int
    up: bool
    rx_bytes: int
    tx_bytes: int
    tx_packets: int


@dataclass(frozen=True, slots=True)
class FarEnd:
    """The card at the other end of a pair: its name and MAC, and the file of its namespace."""

    name: str
    mac: str
    namespace: Path


class Links:
    """A netlink socket, open inside a ``with`` block; for one thread at a time."""

    def __enter__(self) -> Self:
        from pyroute2 import IPRoute  # noqa: PLC0415 - 0.2 s, for those only who have such hosts

        with _os_errors("netlink"):
            self._netlink: Any = IPRoute()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._netlink.close()

    def all(self) -> tuple[Link, ...]:
        """Return every device, in one round trip."""
        with _os_errors("all devices"):
            return tuple(_link(message) for message in self._netlink.link("dump"))

    def find(self, name: str) -> Link | None:
        """Return the device of that name, or None."""
        try:
            with _os_errors(name):
                (message,) = self._netlink.link("get", ifname=name)
        except OSError as error:
            if error.errno == ENODEV:
                return None
            raise
        return _link(message)

    def ports(self, bridge: Link) -> tuple[Link, ...]:
        """Return the devices that are plugged into a bridge."""
        return tuple(link for link in self.all() if link.master == bridge.index)

    def add_bridge(self, name: str, alias: str, mac: str) -> Link:
        """Make a bridge, down and without addresses; it never exists without its alias.

        So it is made under another name, which a later attempt finds if this one is cut short. With
        a MAC address given, a bridge does not take one from its ports, which come and go.
        """
        draft = "ewd" + hashlib.sha256(f"{alias} {name}".encode()).hexdigest()[: NAME_MAX - 3]
        with _os_errors(name), ExitStack() as undo:
            left = self.find(draft)
            if left is not None:
                self.remove(left)
            # Unikernels seldom speak MLD, so multicast is for all ports, without snooping.
            self._netlink.link("add", ifname=draft, kind="bridge", address=mac, br_mcast_snooping=0)
            (made,) = self._netlink.link("get", ifname=draft)
            undo.callback(self._netlink.link, "del", index=made["index"])
            self._set(made["index"], ifname=name, ifalias=alias)
            (made,) = self._netlink.link("get", index=made["index"])
            undo.pop_all()
        return _link(made)

    def add_tap(self, name: str, alias: str, bridge: Link, user: int) -> None:
        """Make a tap device that stays, up, as a port of a bridge; that user (a uid) may open it.

        The host talks to guests through the bridge, so the tap itself has no IPv6: a guest hears
        only what concerns it, and its counters stand still when it is idle.
        """
        with _os_errors(name), ExitStack() as undo:
            self._netlink.link("add", ifname=name, kind="tuntap", mode="tap", uid=user)
            (made,) = self._netlink.link("get", ifname=name)
            undo.callback(self._netlink.link, "del", index=made["index"])
            _use_ipv6(name, wanted=False)
            self._set(made["index"], ifalias=alias, master=bridge.index, mtu=bridge.mtu, state="up")
            self._await_free(made["index"])
            undo.pop_all()

    def add_pair(self, name: str, alias: str, bridge: Link, far: "FarEnd") -> None:
        """Make two cards with a wire between: one a port of a bridge, one in another namespace.

        The port is up, and has no IPv6 like a tap; the far end is down. Both are gone when one of
        them is, and so when the namespace ends.
        """
        with _os_errors(name), ExitStack() as undo, far.namespace.open("rb") as there:
            peer = {
                "ifname": far.name,
                "address": far.mac,
                "mtu": bridge.mtu,
                "net_ns_fd": there.fileno(),
            }
            self._netlink.link("add", ifname=name, kind="veth", mtu=bridge.mtu, peer=peer)
            (made,) = self._netlink.link("get", ifname=name)
            undo.callback(self._netlink.link, "del", index=made["index"])
            _use_ipv6(name, wanted=False)
            self._set(made["index"], ifalias=alias, master=bridge.index, state="up")
            undo.pop_all()

    def addresses(self, link: Link) -> frozenset[Interface]:
        """Return the addresses of a device, except those that mean only the link itself."""
        with _os_errors(link.name):
            return frozenset(
                ip_interface(f"{entry.get_attr('IFA_ADDRESS')}/{entry['prefixlen']}")
                for entry in self._netlink.addr("dump", index=link.index)
                if entry["scope"] != _SCOPE_LINK
            )

    def bring_up(self, link: Link, addresses: Iterable[Interface]) -> None:
        """Give a device exactly these addresses, and set it up.

        IPv6 addresses work at once: a bridge without guests has no carrier, and duplicate address
        detection would wait for one. Without an IPv6 address, the device has no IPv6 at all.
        """
        wanted, there = frozenset(addresses), self.addresses(link)
        with _os_errors(link.name):
            for address in there - wanted:
                self._address("del", link, address)
            _use_ipv6(link.name, wanted=any(map(_is_6, wanted)))
            for address in wanted - there:
                self._address("add", link, address, **({"flags": NO_DAD} if _is_6(address) else {}))
            self._set(link.index, state="up")

    def remove(self, link: Link) -> None:
        """Remove a device; one that is gone already is no error."""
        try:
            with _os_errors(link.name):
                self._netlink.link("del", index=link.index)
        except OSError as error:
            if error.errno != ENODEV:
                raise

    def _await_free(self, index: int) -> None:
        """Wait until nobody has a tap open, which its carrier shows: then somebody else can.

        What made it has closed it, but a child that another thread was just forking has a copy.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while self._netlink.link("get", index=index)[0].get_attr("IFLA_CARRIER"):
            if time.monotonic() > deadline:
                raise OSError(EBUSY, os.strerror(EBUSY), f"tap device {index}")
            time.sleep(_POLL_S)

    def _set(self, index: int, **attributes: Any) -> None:
        self._netlink.link("set", index=index, **attributes)

    def _address(self, verb: str, link: Link, address: Interface, **more: int) -> None:
        prefix = address.network.prefixlen
        self._netlink.addr(
            verb, index=link.index, address=str(address.ip), prefixlen=prefix, **more
        )


def _is_6(address: Interface) -> bool:
    return address.version == 6


def _use_ipv6(name: str, *, wanted: bool) -> None:
    """Switch a device's IPv6 on or off; where that cannot be, it stays and only makes noise."""
    with suppress(OSError):
        (_IPV6 / name / "disable_ipv6").write_text("0" if wanted else "1")


def _link(message: Any) -> Link:
    """Turn an RTM_NEWLINK message (rtnetlink(7)) into ours."""
    counters = message.get_attr("IFLA_STATS64") or {}
    return Link(
        name=message.get_attr("IFLA_IFNAME"),
        index=message["index"],
        kind=message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or "",
        alias=message.get_attr("IFLA_IFALIAS") or "",
        master=message.get_attr("IFLA_MASTER") or 0,
        mtu=message.get_attr("IFLA_MTU"),
        up=message["state"] == "up",
        rx_bytes=counters.get("rx_bytes", 0),
        tx_bytes=counters.get("tx_bytes", 0),
        tx_packets=counters.get("tx_packets", 0),
    )


@contextmanager
def _os_errors(device: str) -> Iterator[None]:
    """Turn pyroute2's errors into the OSError of the same number, with the device's name."""
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415 - as above

    try:
        yield
    except NetlinkError as error:
        raise OSError(error.code, os.strerror(error.code), device) from error
