"""Decides where a bed is to be on this machine, and removes what an earlier one left there."""

import os
import shutil
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from uuid import uuid4

from tests.xenbed import network
from tests.xenbed import state as states
from tests.xenbed.commands import command_line
from tests.xenbed.errors import BedError
from tests.xenbed.state import DEFAULT_NAME, State

MEMORY_MIB = 2048
DOM0_MIB = 512
SPARE_MIB = 128  # at least, beside dom0's: Xen was seen to take 11 of them, guests have the rest


def _may_make_taps() -> bool:
    return os.geteuid() == 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a bed is to be like.

    `subnet` is the guests' (default: a free one); `join` names another bed whose network it is to
    be on as well; `tap` says whether this machine is to reach guests at their addresses, which
    takes root. `memory_mib` is the whole bed's, `dom0_mib` that of its dom0. A `cold` bed boots
    instead of going on from a snapshot.
    """

    name: str = DEFAULT_NAME
    subnet: IPv4Network | None = None
    join: str = ""
    tap: bool = field(default_factory=_may_make_taps)
    memory_mib: int = MEMORY_MIB
    dom0_mib: int = DOM0_MIB
    cold: bool = False


def check(cache: Path, wanted: Wanted) -> None:
    """Raise `BedError` for what cannot be, before anything is built or booted for it."""
    states.folder_of(cache, wanted.name)
    least = wanted.dom0_mib + SPARE_MIB
    if wanted.memory_mib < least:
        raise BedError(
            f"--memory {wanted.memory_mib}: a bed takes {least} MiB at least, {wanted.dom0_mib} of "
            "them for its dom0; what is left is its guests'"
        )
    others = [state for state in states.all_beds(cache) if state.pid() is not None]
    if wanted.join and not any(_is_to_be_joined(other, wanted) for other in others):
        raise _nobody_to_join(wanted, others)


def plan(cache: Path, wanted: Wanted) -> State:
    """Choose a bed's network and ports, after removing what an earlier one of that name left."""
    name, folder = wanted.name, states.folder_of(cache, wanted.name)
    if old := states.read(cache, name):
        if old.find_process() is not None:
            stop = command_line(cache, "stop", name)
            raise BedError(f"bed {name} runs already; stop it: {stop}")
        forget(cache, old)
    shutil.rmtree(folder, ignore_errors=True)
    others = [state for state in states.all_beds(cache) if state.pid() is not None]
    lan, owner = _choose_lan(wanted, others)
    used = {state.address for state in others if lan.bridge and state.lan.bridge == lan.bridge}
    address = next(host for host in list(lan.subnet.hosts())[1:] if host not in used)
    taken = [port for state in others for port in (state.ssh_port, state.libvirt_port)]
    libvirt_port, ssh_port = network.choose_ports(2, name, taken)
    return State(
        name=name,
        folder=folder,
        id=uuid4(),
        ssh_port=ssh_port,
        libvirt_port=libvirt_port,
        lan=lan,
        bridge_owner=owner,
        address=address,
        memory_mib=wanted.memory_mib,
        dom0_mib=wanted.dom0_mib,
    )


def _choose_lan(wanted: Wanted, others: list[State]) -> tuple[network.Lan, str]:
    """Return the network a bed is to be on, and which bed made (or makes) its bridge."""
    ours = network.bridge_name(wanted.name) if wanted.tap else ""
    for other in others:
        # Whoever joined us may run still, on the bridge that we made when we ran last.
        if _is_to_be_joined(other, wanted) or (ours and other.lan.bridge == ours):
            return other.lan, other.bridge_owner
    if wanted.join:
        raise _nobody_to_join(wanted, others)
    taken = (*network.routed_subnets(), *(other.lan.subnet for other in others))
    subnet = wanted.subnet or network.choose_subnet(taken)
    if any(subnet.overlaps(other) for other in taken) and ours:
        raise BedError(f"{subnet} is in use on this machine; name another subnet, or none")
    return network.Lan(ours, subnet), wanted.name


def _is_to_be_joined(other: State, wanted: Wanted) -> bool:
    return bool(other.lan.bridge) and other.name == wanted.join


def _nobody_to_join(wanted: Wanted, others: list[State]) -> BedError:
    there = ", ".join(other.name for other in others if other.lan.bridge) or "none"
    return BedError(
        f"--join: no bed {wanted.join} with a tap runs that {wanted.name} could join; "
        f"those that run with one: {there}"
    )


def forget(cache: Path, state: State) -> None:
    """Remove the devices and files of a bed whose QEMU has ended."""
    bridge = state.lan.bridge
    if bridge and not is_joining(cache, state):
        network.remove_bridge(bridge, network.alias(states.folder_of(cache, state.bridge_owner)))
    shutil.rmtree(state.folder, ignore_errors=True)


def is_joining(cache: Path, state: State) -> bool:
    """Return whether another bed that runs is on this one's bridge."""
    others = (other for other in states.all_beds(cache) if other.name != state.name)
    return any(o.lan.bridge == state.lan.bridge and o.pid() is not None for o in others)
