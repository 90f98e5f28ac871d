"""What to ask of the kernel so that namespaces and devices are as wanted: differences, as requests.

For the `netns` back end. Nothing is asked here; the requests are values.
"""

from collections.abc import Iterator
from ipaddress import IPv6Interface

from orchestrator.linux.rtnetlink import (
    Device,
    Interface,
    Request,
    add_address,
    add_neighbour,
    remove_address,
    set_device,
)
from orchestrator.routers.kernel import Contents, Place
from orchestrator.routers.layout import Cable, End, Node
from orchestrator.routers.names import link_local

LO_INDEX = 1  # in every namespace


def settle_node(node: Node, place: Place) -> list[Request]:
    """Return what a namespace's `lo` lacks, or has too much."""
    (lo,) = (each for each in place.devices if each.index == LO_INDEX)
    requests = [] if lo.up else [set_device(LO_INDEX, f"lo of {node.name}", up=True)]
    return [*requests, *_addresses(place, LO_INDEX, node.addresses)]


def settle_end(
    cable: Cable, end: End, device: Device, place: Place, bridge: Device | None
) -> list[Request]:
    """Return what an end lacks, except its mark, its engine and being down."""
    requests = []
    what = f"{end.device} of {cable.name}"
    master = bridge.index if bridge else 0
    if device.name != end.device:
        requests.append(set_device(device.index, what, name=end.device))
    if device.master != master:
        requests.append(set_device(device.index, what, master=master))
    if not cable.up:
        return requests
    if not device.up:
        requests.append(set_device(device.index, what, up=True))
    local = () if end.bridge else (IPv6Interface((link_local(end.mac), 64)),)
    requests += _addresses(place, device.index, (*end.addresses, *local))
    if end.peer_mac and (device.index, end.peer_mac) not in place.neighbours:
        requests.append(add_neighbour(device.index, link_local(end.peer_mac), end.peer_mac))
    return requests


def restore(before: Contents, place: Place) -> list[Request]:
    """Return what undoes settling, of devices that are still there."""
    there = {device.index: device for device in place.devices}
    old = {device.index: device for device in before.devices if device.index in there}
    requests = [
        set_device(index, device.name, name=device.name, alias=device.alias, up=device.up)
        for index, device in old.items()
        if (there[index].name, there[index].alias, there[index].up)
        != (device.name, device.alias, device.up)
    ]
    requests += [
        remove_address(each.device, each.interface)
        for each in place.addresses - before.addresses
        if each.ours
    ]
    requests += [
        add_address(each.device, each.interface)
        for each in before.addresses - place.addresses
        if each.ours and each.device in old
    ]
    requests += [
        add_neighbour(index, link_local(mac), mac)
        for index, mac in before.neighbours - place.neighbours
        if index in old
    ]
    return requests


def _addresses(place: Place, index: int, wanted: tuple[Interface, ...]) -> Iterator[Request]:
    there = {each for each in place.addresses if each.device == index}
    have = {each.interface for each in there}
    yield from (add_address(index, each) for each in wanted if each not in have)
    for each in sorted(there, key=str):
        if each.ours and each.interface not in wanted:
            yield remove_address(index, each.interface)
