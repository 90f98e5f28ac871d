"""What a hypervisor needs in order to boot a guest, and nothing about what the guest is.

An image family (`images.families`) turns an `Image`, a `GuestAddress` and the service's
configuration into one `BootSpec`; a hypervisor driver turns the `BootSpec` into domain XML, a
tender's arguments or whatever it speaks. Neither knows the other.
"""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path

from images.facts import Architecture, Entry


class Platform(StrEnum):
    """What runs the guests of a host."""

    QEMU = "qemu"
    XEN = "xen"
    SPT = "spt"
    NETNS = "netns"


@dataclass(frozen=True, slots=True)
class HostTraits:
    """What a host can start, as far as an image has to care.

    `kvm` says that KVM was seen to boot a guest there. `dhcp` says that its guest network gives
    each MAC address of ours the address we chose for it. `xenstore` says that its guests have a
    Xenstore, and that keys there can be written and watched from here.
    """

    platform: Platform = Platform.QEMU
    architecture: Architecture = Architecture.X86_64
    kvm: bool = False
    dhcp: bool = False
    xenstore: bool = False


@dataclass(frozen=True, slots=True)
class Nic:
    """One network card of a guest.

    `network` is the host's name for what the card is plugged into (a libvirt network or a bridge);
    `mac` is written `aa:bb:cc:dd:ee:ff`. `name` is what the image itself calls the device (Solo5).
    `transitional` asks for a virtio card that also speaks the protocol from before virtio 1.0,
    wherever the machine would offer a modern one only. `xenstore_ip` is the value of the `ip` key
    of the card's Xenstore backend, where some Xen guests look for their address.
    """

    network: str
    mac: str
    name: str = ""
    transitional: bool = False
    xenstore_ip: str = ""


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk of a guest: a raw or qcow2 file; read-only disks may be shared by many guests.

    `name` is what the image itself calls the device (Solo5).
    """

    path: Path
    format: str = "raw"
    read_only: bool = True
    name: str = ""


@dataclass(frozen=True, slots=True)
class GuestAddress:
    """The addresses a guest is to use on its first network card.

    `own` are further ones that it is to have on its loopback: packets to them come by that card.
    """

    ipv4: IPv4Interface
    gateway: IPv4Address | None
    ipv6: IPv6Interface | None = None
    own: tuple[IPv4Address | IPv6Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Image:
    """A bootable image as the lab file names it.

    `family` is a name in `images.families.FAMILIES`; empty means that the file's bytes tell.
    `kernel` is the file that is started, None for an image that boots from its first disk; all
    files are on this machine. `catalog` names an image of the catalogue, which then says all that
    is not said here. `cmdline` is what the user wants the guest's program to be told, put where the
    family wants it.

    The rest overrides what the family says, where it is not empty (or None): `template` the whole
    command line, with the words of `images.families.template`; `machine` the QEMU machine type;
    `end_pattern` the console text (a regular expression) that means the guest has ended;
    `obeys_shutdown` whether an ACPI or Xen shutdown request ends it; `least_memory_mib` the least
    memory, in MiB.

    `anonymous` says that guests need not be told for which service they are booted.

    `exec` makes it a command instead: a program of this machine, or of `tree` (a folder that its
    processes see as their root), by its path there, and its arguments. `filtered` keeps the program
    from system calls that services have no use for.
    """

    name: str
    family: str = ""
    kernel: Path | None = None
    initrd: Path | None = None
    disks: tuple[Disk, ...] = ()
    catalog: str = ""
    cmdline: str = ""
    template: str = ""
    machine: str = ""
    end_pattern: str = ""
    obeys_shutdown: bool | None = None
    least_memory_mib: int | None = None
    anonymous: bool = False
    exec: tuple[str, ...] = ()
    tree: Path | None = None
    filtered: bool = True

    @property
    def main_file(self) -> Path:
        """The file that says what the image is: its program, its kernel, or its first disk."""
        if self.exec:
            return (self.tree or Path("/")) / self.exec[0].lstrip("/")
        return self.kernel if self.kernel is not None else self.disks[0].path

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the image."""
        some = (self.kernel, self.initrd, *(disk.path for disk in self.disks))
        return tuple(path for path in some if path is not None)


@dataclass(frozen=True, slots=True)
class BootRequest:
    """What a family is told about the guest it is to describe.

    `name` is the instance (also its host name), `service` and `host` are for the guest to show;
    `service` is the image's name for an anonymous image; `config` is the service's own
    configuration from the lab file. `platform` is what will run it
    and `entry` the way in that `images.match` chose; the nic carries network and MAC only.
    `port` is the first TCP port that the service says it has; 0 for none.
    """

    name: str
    service: str
    host: str
    address: GuestAddress
    nic: Nic
    memory_mib: int
    vcpus: int = 1
    config: tuple[tuple[str, str], ...] = ()
    platform: Platform = Platform.QEMU
    entry: Entry = Entry.LINUX
    port: int = 0


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run as it is: no machine is booted for it.

    `argv` begins with the program's path in `tree`, which its processes see as their root folder;
    `environment` is all that there is of one. `address` is for the host to set on the card.
    `filtered` is as in `Image`.
    """

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    address: GuestAddress
    tree: Path = Path("/")
    filtered: bool = True


@dataclass(frozen=True, slots=True)
class BootSpec:
    """Everything a hypervisor needs to boot one guest.

    `memory_mib` is in MiB, `vcpus` counts virtual processors (at least 1). `entry` is the way in
    (on Xen it decides between PV and PVH); `kernel` is None when the guest boots from its first
    disk. `machine` is a QEMU machine type; ``pc`` is the one all multiboot families boot on.
    `xenstore` are keys below the domain's own path and their values, written before it runs.
    `end_pattern` is a regular expression: console text that means that the guest has ended though
    its domain is still there; empty if the domain ends by itself. `obeys_shutdown` says whether a
    shutdown request (ACPI power button, Xen's control/shutdown) ends the guest: most unikernels
    ignore it and are destroyed. `command` is what to run instead of all this; `kernel` and `disks`
    are empty then.
    """

    kernel: Path | None
    memory_mib: int
    vcpus: int = 1
    initrd: Path | None = None
    cmdline: str = ""
    nics: tuple[Nic, ...] = ()
    disks: tuple[Disk, ...] = ()
    entry: Entry = Entry.LINUX
    machine: str = "pc"
    acpi: bool = True
    xenstore: tuple[tuple[str, str], ...] = ()
    end_pattern: str = ""
    obeys_shutdown: bool = False
    command: Command | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files the host needs, in the order they are named here."""
        some = (self.kernel, self.initrd, *(disk.path for disk in self.disks))
        return tuple(path for path in some if path is not None)
