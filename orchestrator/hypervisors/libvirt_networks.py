"""The network that guests of one host are plugged into: ours to make and remove, or given.

A libvirt network that is ours carries the UUID that `domain_xml.network_uuid` derives. A bridge
that libvirt does not know (``bridge:NAME``) is never made nor removed by us.
"""

import threading
from contextlib import suppress
from xml.etree import ElementTree as ET

import libvirt

from orchestrator.errors import StartFailed
from orchestrator.hypervisors.domain_xml import network_uuid, network_xml, same_network
from orchestrator.hypervisors.libvirt_errors import lookup
from orchestrator.model import BRIDGE, GuestNetwork


class Networks:
    """The networks of one owner on one host.

    Methods raise `StartFailed`, and libvirt's errors, which the driver translates.
    """

    def __init__(self, host: str, owner: str) -> None:
        self._host = host
        self._owner = owner
        self._lock = threading.Lock()  # for the field below
        self._bridges: dict[str, str] = {}  # of networks, by their names

    def set(self, conn: libvirt.virConnect, name: str, wanted: GuestNetwork | None) -> None:
        """Make the network `name` exist as wanted; None removes it, if it is ours."""
        if name.startswith(BRIDGE):
            if wanted is not None and wanted.create:
                raise self._refused(
                    f"{name} is a bridge, and bridges are not made by edgewake",
                    "write `create: false` and make it there, or name a libvirt network",
                )
            return
        network = lookup(conn.networkLookupByName, name)
        ours = network is not None and network.UUIDString() == network_uuid(self._owner, name)
        if wanted is None:
            if network is not None and ours:
                self._remove(conn, network)
        elif not wanted.create:
            self._check_foreign(network, name)
        elif network is not None and not ours:
            raise self._refused(
                f"network {name} exists there and is not ours",
                "choose another name, or write `create: false` to use it as it is",
            )
        else:
            self._make(conn, network, wanted)

    def bridge(self, conn: libvirt.virConnect, name: str) -> str:
        """Return ``bridge:NAME`` for what a card is plugged into there."""
        if name.startswith(BRIDGE):
            return name
        with self._lock:
            known = self._bridges.get(name)
        if known is None:
            network = conn.networkLookupByName(name)
            self._check_foreign(network, name)
            known = network.bridgeName()
            with self._lock:
                self._bridges[name] = known
        return BRIDGE + known

    def forget(self) -> None:
        """Take nothing for granted any more about which network has which bridge."""
        with self._lock:
            self._bridges.clear()

    def _make(
        self, conn: libvirt.virConnect, network: libvirt.virNetwork | None, wanted: GuestNetwork
    ) -> None:
        xml = network_xml(self._owner, wanted)
        if network is not None:
            if _serves(network, xml):
                return
            self._remove(conn, network)
        try:
            conn.networkCreateXML(xml)
        except libvirt.libvirtError:
            # Another driver of ours may share libvirt and network, and have been quicker.
            uuid = network_uuid(self._owner, wanted.name)
            rival = lookup(conn.networkLookupByUUIDString, uuid)
            if rival is None or not _serves(rival, xml):
                raise

    def _remove(self, conn: libvirt.virConnect, network: libvirt.virNetwork) -> None:
        self.forget()
        if network.isActive():
            plugged = max(len(network.listAllPorts()), _cards_on(conn, network.bridgeName()))
            if plugged:
                raise self._refused(
                    f"network {network.name()} has {plugged} guest cards plugged in",
                    "stop those guests first",
                )
            network.destroy()

    def _check_foreign(self, network: libvirt.virNetwork | None, name: str) -> None:
        if network is None:
            advice = "define it, or write `create: true` to have it made"
            raise self._refused(f"network {name} does not exist there", advice)
        if not network.isActive():
            advice = f"start it with `virsh net-start {name}`"
            raise self._refused(f"network {name} is not active there", advice)

    def _refused(self, message: str, advice: str) -> StartFailed:
        return StartFailed(self._host, message, hint=advice)


def _serves(network: libvirt.virNetwork, xml: str) -> bool:
    """Return whether a network is up and as this XML wants it."""
    return network.isActive() == 1 and same_network(network.XMLDesc(), xml)


def _cards_on(conn: libvirt.virConnect, bridge: str) -> int:
    """Return how many guest cards are plugged into a bridge without libvirt's keeping count."""
    cards = 0
    for domain in conn.listAllDomains():
        with suppress(libvirt.libvirtError):  # it has just ended
            root = ET.fromstring(domain.XMLDesc())  # noqa: S314 - written by libvirt, without a DTD
            sources = root.iterfind("devices/interface/source")
            cards += sum(source.get("bridge") == bridge for source in sources)
    return cards
