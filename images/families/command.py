"""Family `command`: a program of this machine, or of a folder of its own, run as a process.

No machine is booted, and so nothing is on a command line of ours: the arguments are the image's,
letter by letter, and the host sets the address. What a guest is told otherwise is in its
environment: EDGEWAKE_ADDRESS and its like, PORT, and the service's config, each entry a variable.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from images.bootspec import BootRequest, BootSpec, Command, Image, Platform
from images.errors import ImageRefused
from images.facts import Entry, ImageFacts
from images.families import AddressBy, Inspect, Traits
from images.families.cmdline import variable, what_of

OURS = "EDGEWAKE_"  # what a service's config may not set
_UNTELLABLE = "a NUL or half a character, which no process can be told; remove it"
PATHS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TRAITS = Traits(
    name="command",
    title="a command",
    entries={Platform.NETNS: (Entry.COMMAND,)},
    default_memory_mib=64,
    least_memory_mib={Platform.NETNS: 4},
    address={Platform.NETNS: AddressBy.HOST},
    ipv6=True,
    own_address=True,
    obeys_shutdown=True,
)


@dataclass(frozen=True, slots=True)
class CommandFamily:
    """The `images.families.Family` of programs that are run as they are."""

    traits: Traits = TRAITS

    def check(self, image: Image, inspect: Inspect) -> None:  # noqa: ARG002 - no file to look into
        """Raise `ImageRefused` unless it says what to run, and nothing that nobody would read."""
        if not image.exec:
            raise ImageRefused("a command needs 'exec:', the program and its arguments")
        for number, argument in enumerate(image.exec):
            if not _tellable(argument):
                raise ImageRefused(f"entry {number} of 'exec:' has {_UNTELLABLE}")

    def boot_spec(self, image: Image, facts: ImageFacts, request: BootRequest) -> BootSpec:  # noqa: ARG002 - all of them are alike
        """Return how to run the command as requested; ImageRefused if it cannot be told that."""
        obeys = image.obeys_shutdown
        return BootSpec(
            kernel=None,
            memory_mib=request.memory_mib,
            vcpus=request.vcpus,
            nics=(request.nic,),
            entry=request.entry,
            machine="",
            acpi=False,
            end_pattern=image.end_pattern,
            obeys_shutdown=TRAITS.obeys_shutdown if obeys is None else obeys,
            command=Command(
                argv=image.exec,
                environment=tuple(_environment(image, request).items()),
                address=request.address,
                tree=image.tree or Path("/"),
                filtered=image.filtered,
            ),
        )


def _environment(image: Image, request: BootRequest) -> dict[str, str]:
    address = request.address
    told = {
        "ADDRESS": str(address.ipv4.ip),
        "ADDRESS6": str(address.ipv6.ip) if address.ipv6 else "",
        "GATEWAY": str(address.gateway or ""),
        "INSTANCE": request.name,
        "SERVICE": "" if image.anonymous else request.service,
        "HOST": request.host,
    }
    port = {"PORT": str(request.port)} if request.port else {}
    return {
        "PATH": PATHS,
        "HOME": "/tmp",  # noqa: S108 - its own, and all that it may write to
        "LANG": "C.UTF-8",
        **port,
        **dict(_setting(name, value, request) for name, value in request.config),
        **{f"{OURS}{name}": value for name, value in told.items() if value},
    }


def _setting(name: str, value: str, request: BootRequest) -> tuple[str, str]:
    if variable(name, request).startswith(OURS):
        raise ImageRefused(
            f"{what_of(name, request)} cannot be used: variables that begin with {OURS} are ours"
        )
    if not _tellable(value):
        raise ImageRefused(f"{what_of(name, request)} has {_UNTELLABLE}")
    return name, value


def _tellable(text: str) -> bool:
    """Return whether a text can be an argument or a variable of a process (execve(2))."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


COMMAND = CommandFamily()
