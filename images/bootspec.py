"""What a hypervisor needs in order to boot a guest, and nothing about what the guest is.

An image family (`images.families`) turns an `Image`, a `GuestAddress` and the service's
configuration into one `BootSpec`; a hypervisor driver turns the `BootSpec` into domain XML, a QEMU
command line or whatever it speaks. Neither knows the other.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Nic:
    """One network card of a guest.

    `network` is the host's name for what the card is plugged into (a libvirt network or a bridge);
    `mac` is written `aa:bb:cc:dd:ee:ff`.
    """

    network: str
    mac: str


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk of a guest: a raw or qcow2 file; read-only disks may be shared by many guests."""

    path: Path
    format: str = "raw"
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class GuestAddress:
    """The addresses a guest is to use on its first network card."""

    ipv4: IPv4Interface
    gateway: IPv4Address | None
    ipv6: IPv6Interface | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """A bootable image as the lab file names it.

    `family` is a name in `images.families.FAMILIES`; `kernel` and `initrd` are files on this
    machine; `cmdline` is what the user wants added to the family's own command line.
    """

    name: str
    family: str
    kernel: Path
    initrd: Path | None = None
    disks: tuple[Disk, ...] = ()
    cmdline: str = ""


@dataclass(frozen=True, slots=True)
class BootRequest:
    """What a family is told about the guest it is to describe.

    `name` is the instance (also its host name), `service` and `host` are for the guest to show;
    `config` is the service's own configuration from the lab file.
    """

    name: str
    service: str
    host: str
    address: GuestAddress
    nic: Nic
    memory_mib: int
    vcpus: int = 1
    config: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class BootSpec:
    """Everything a hypervisor needs to boot one guest.

    `memory_mib` is in MiB, `vcpus` counts virtual processors (at least 1). `machine` is a QEMU
    machine type; ``pc`` is the one all multiboot families boot on. `obeys_shutdown` says whether
    an ACPI power-button press ends the guest: most unikernels ignore it and are destroyed.
    """

    kernel: Path
    memory_mib: int
    vcpus: int = 1
    initrd: Path | None = None
    cmdline: str = ""
    nics: tuple[Nic, ...] = ()
    disks: tuple[Disk, ...] = ()
    machine: str = "pc"
    acpi: bool = True
    obeys_shutdown: bool = False
