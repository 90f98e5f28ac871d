"""Family `rumprun`: a NetBSD program baked with Rumprun, for QEMU (``hw_virtio``) or Xen PV.

Everything is one object that looks like JSON, on the command line, where all before the first ``{``
is skipped (rumprun doc/config.md, lib/librumprun_base/config.c). On Xen the Xenstore key
``rumprun/cfg`` would win over it (platform/xen/init.c), and holds less: its Xenstore client waits
for a reply to be whole in a ring of 1024 bytes, header included (platform/xen/xen/xenbus/xenbus.c),
so it reads 1008, and hangs on more; a PV guest's command line has 1023.

It is not quite JSON: a key is repeated for each environment variable, and strings are taken as they
stand, escapes and all, so a value can have neither double quotes nor backslashes. The address is
static; an image that is to use DHCP brings a template with ``"method":"dhcp"``.

An entry of the service's config becomes the environment variable KEY.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from images.bootspec import BootRequest, BootSpec, Image, Platform
from images.errors import ImageRefused
from images.facts import Entry, ImageFacts
from images.families import AddressBy, Inspect, Traits
from images.families.cmdline import (
    XEN_PV,
    Limit,
    Syntax,
    command_line,
    plain_word,
    printable,
    refuse_initrd,
    spec,
    variable,
    what_of,
)

MULTIBOOT_BUFFER = 4096  # BMK_MULTIBOOT_CMDLINE_SIZE, hw/kernel.h; with path, blank and final NUL
FROM_DISK = "_RUMPRUN_ROOTFSCFG="  # wherever that stands, all configuration is read from a disk

_CONFIG = (
    '{{[{config},]"cmdline":"{service}[ {args}]","hostname":"{name}",'
    '"net":{{CARD,"type":"inet","method":"static","addr":"{ip}","mask":"{prefix}"[,"gw":"{gw}"]}}}}'
)
TEMPLATES = {
    Platform.QEMU: _CONFIG.replace("CARD", '"if":"vioif0"'),
    Platform.XEN: _CONFIG.replace("CARD", '"if":"xenif0","cloner":"true"'),
}
TRAITS = Traits(
    name="rumprun",
    title="Rumprun",
    entries={Platform.QEMU: (Entry.MULTIBOOT,), Platform.XEN: (Entry.XEN_PV,)},
    default_memory_mib=64,
    least_memory_mib={Platform.QEMU: 12, Platform.XEN: 32},
    address={Platform.QEMU: AddressBy.CMDLINE, Platform.XEN: AddressBy.CMDLINE},
    elsewhere={Platform.SPT: "a tender starts Solo5 images only"},
    legacy_virtio=True,
    # On QEMU a guest whose programs have ended says so and stays (platform/hw/kernel.c). The line
    # "=== main() of ... returned" is not the end: an image may have several programs.
    end_pattern=r"(?m)^halted\r?$",
)


def _string(value: str, what: str) -> str:
    if set(printable(value, what)) & set('"\\'):
        raise ImageRefused(
            f"{what} may have no double quotes or backslashes, since Rumprun does not undo "
            f"escapes, and it is {value!r}; single quotes keep words together"
        )
    if FROM_DISK in value:
        raise ImageRefused(f"{what} may not contain {FROM_DISK}, which Rumprun acts on")
    return value


def _setting(name: str, value: str, request: BootRequest) -> str:
    return f'"env":"{variable(name, request)}={_string(value, what_of(name, request))}"'


SYNTAX = Syntax(text=plain_word, args=_string, setting=_setting, between=",")


@dataclass(frozen=True, slots=True)
class Rumprun:
    """The `images.families.Family` of Rumprun unikernels."""

    traits: Traits = TRAITS

    def check(self, image: Image, inspect: Inspect) -> None:  # noqa: ARG002 - one file is all
        """Raise `ImageError` if there is an initrd, which would be read in place of the line."""
        refuse_initrd(image, "Rumprun", "it would be read in place of the configuration")

    def boot_spec(self, image: Image, facts: ImageFacts, request: BootRequest) -> BootSpec:  # noqa: ARG002 - all its images are told the same
        """Return how to boot the image as requested; ImageRefused if it cannot be said to it."""
        limits = _limits(image, request)
        line = command_line(image, request, TEMPLATES[request.platform], SYNTAX, limits)
        return spec(image, request, TRAITS, line)


def _limits(image: Image, request: BootRequest) -> Sequence[Limit]:
    if request.platform is Platform.XEN:
        return (XEN_PV,)
    return (Limit(MULTIBOOT_BUFFER - 2 - len(str(image.kernel)), "Rumprun"),)


RUMPRUN = Rumprun()
