"""What a person needs to know about a bed that runs: how to reach it, use it and stop it."""

from tests.xenbed.bed import Bed
from tests.xenbed.commands import command_line

_FIRST_GUEST, _LAST_GUEST = 10, -6  # addresses of the subnet: dom0s lie before, some stay free
CPUS = 2


def stanza(bed: Bed) -> str:
    """Return the bed as an entry of a lab file's `hosts`.

    The URI's host is our loopback, which is no way from one bed to another: guests are migrated to
    the bed's own address, where it has a network that others can be on.
    """
    state = bed.state
    subnet = state.lan.subnet
    reached = f"    migration_address: {state.address}\n" if bed.reachable else ""
    return (
        f"  {state.name}:\n"
        f"    uri: {bed.libvirt_uri}\n{reached}"
        f"    capacity: {{cpu: {CPUS}, memory: {state.guests_mib} MiB}}\n"
        f"    network:\n"
        f"      name: xenbr0\n"
        f"      subnet: {subnet}\n"
        f"      gateway: {state.lan.gateway}\n"
        f"      pool: {subnet[_FIRST_GUEST]}-{subnet[_LAST_GUEST]}\n"
    )


def describe(bed: Bed) -> str:
    """Return what to tell whoever started the bed."""
    state = bed.state
    forward = command_line(bed.cache, "forward", state.name)
    guests = (
        f"{state.lan.subnet}, reached from this machine ({state.lan.gateway} on "
        f"{state.lan.bridge}); dom0 is {state.address}"
        if bed.reachable
        else f"{state.lan.subnet}, inside QEMU: reached only through forwarded ports (as root, the "
        f"bed has a tap). Forward one: {forward} ADDRESS PORT"
    )
    return (
        f"Bed {state.name}: Xen 4.17 with libvirt, emulated, for tests only.\n\n"
        f"    over ssh     {bed.ssh_uri}\n"
        f"    over tcp     {bed.libvirt_uri}\n"
        f"    a shell      {state.folder}/ssh dom0\n"
        f"    images       {state.folder}/ssh dom0 'cat >/var/lib/libvirt/images/NAME' <FILE\n"
        f"    guests       {guests}\n"
        f"    serial log   {state.serial}\n"
        f"    stop         {command_line(bed.cache, 'stop', state.name)}\n\n"
        f"In a lab file, under hosts:\n\n{stanza(bed)}"
    )
