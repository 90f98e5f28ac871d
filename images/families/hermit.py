"""Family `hermit`: a Hermit application, started by the Hermit loader.

The loader (``hermit-loader-x86_64``, multiboot) is the image's kernel, the application its initrd,
a multiboot module. The address is on the command line, ``-ip 10.0.0.2 -mask 255.255.255.0 -gateway
10.0.0.1``, then ``env=KEY=VALUE`` for each variable, ``--`` and the program's arguments, split as a
shell does (hermit-os/kernel src/env/mod.rs). A kernel built with DHCP takes the address it is told
for as long as DHCP gives none.

All of this was read, not run. Its driver takes modern virtio cards only
(src/drivers/virtio/transport/pci.rs), the reverse of the other multiboot families, hence q35, where
libvirt puts the card behind a PCI Express port.
"""

from dataclasses import dataclass

from images.bootspec import BootRequest, BootSpec, Image, Platform
from images.errors import ImageRefused
from images.facts import Entry, Format, ImageFacts
from images.families import AddressBy, Inspect, Traits
from images.families.cmdline import (
    Syntax,
    command_line,
    shell_word,
    spec,
    variable,
    what_of,
)

TEMPLATE = "-ip {ip} -mask {mask}[ -gateway {gw}][ {config}] --[ {args}]"
TRAITS = Traits(
    name="hermit",
    title="Hermit",
    entries={Platform.QEMU: (Entry.MULTIBOOT,)},
    default_memory_mib=128,
    least_memory_mib={Platform.QEMU: 64},  # what the loader's own tests use (xtask/src/ci/qemu.rs)
    address={Platform.QEMU: AddressBy.CMDLINE},
    elsewhere={
        Platform.XEN: "its loader has no Xen entry",
        Platform.SPT: "a tender starts Solo5 images only",
    },
    machines=("q35",),
    # hermit-os/hermit-rs-template README: qemu64,apic,fsgsbase,fxsr,rdrand,rdtscp,xsave,xsaveopt
    needs_kvm="QEMU's emulated processor lacks fsgsbase, xsave and others that it uses",
)


def _setting(name: str, value: str, request: BootRequest) -> str:
    pair = f"{variable(name, request)}={value}"
    return shell_word(f"env={pair}", what_of(name, request))


SYNTAX = Syntax(text=shell_word, setting=_setting)


@dataclass(frozen=True, slots=True)
class Hermit:
    """The `images.families.Family` of Hermit."""

    traits: Traits = TRAITS

    def check(self, image: Image, inspect: Inspect) -> None:
        """Raise `ImageError` unless the loader comes with an application."""
        if image.initrd is None:
            raise ImageRefused(
                "Hermit is started by its loader: name the loader as 'kernel:' and the application "
                "as 'initrd:'"
            )
        facts = inspect(image.initrd)
        if facts.format is not Format.ELF:
            raise ImageRefused(
                f"{image.initrd} is no Hermit application: an ELF file (it is {facts.format})"
            )

    def boot_spec(self, image: Image, facts: ImageFacts, request: BootRequest) -> BootSpec:  # noqa: ARG002 - they are the loader's, always the same
        """Return how to boot the image as requested; ImageRefused if it cannot be said to it."""
        return spec(image, request, TRAITS, command_line(image, request, TEMPLATE, SYNTAX))


HERMIT = Hermit()
