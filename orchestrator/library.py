"""Which image a host boots for a service: the first of its flavours that the host can run.

Joins what `images` knows (what a file is, how its family boots, what a host can start) with our
nouns. It reads image files, so nothing here is called with a lock held; facts, and what follows
from them, are remembered as long as a file does not change.
"""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from logging import getLogger
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from images import commands
from images.bootspec import BootRequest, BootSpec, HostTraits, Image, Nic, Platform
from images.catalog import Fetched
from images.errors import ImageError, ImageNotFound, ImageRefused
from images.facts import Entry, ImageFacts
from images.families import Family, Inspect, family
from images.families.template import parse
from images.match import match, resolve
from orchestrator.digests import Digests
from orchestrator.errors import ImageUnusable
from orchestrator.model import (
    Guest,
    Host,
    Instance,
    InstanceState,
    Lab,
    Mark,
    OnCrash,
    ProbeKind,
    Public,
    Service,
    instance_name,
    mac_of,
)

log = getLogger(__name__)

MOST_JUDGED = 10_000  # what hosts can boot for services, remembered at a time
PLATFORMS = {"xen": Platform.XEN, "spt": Platform.SPT, "netns": Platform.NETNS}


class Shelf(Protocol):
    """Where images of the catalogue come from; `images.catalog.Catalog` is one."""

    def fetch(self, asked: Image) -> Sequence[Fetched]:
        """Return the flavours of an image; one that is not of the catalogue is its only flavour."""
        ...

    def hold(self, who: str, files: Iterable[Path]) -> None:
        """Keep those files that are of the catalogue, for as long as `who` needs them."""
        ...

    def release(self, who: str) -> None:
        """Let go of what was held for `who`; if nothing was, do nothing."""
        ...

    def holders(self) -> tuple[str, ...]:
        """Return for whom files are held."""
        ...


class NoShelf:
    """Stands where there is no catalogue."""

    def fetch(self, asked: Image) -> Sequence[Fetched]:
        """Return the image itself; raises `ImageNotFound` if it is to come from a catalogue."""
        if asked.catalog:
            raise ImageNotFound(f"{asked.catalog}: there is no catalogue here")
        return (Fetched("", (), lambda: asked),)

    def hold(self, who: str, files: Iterable[Path]) -> None:
        """Do nothing."""

    def release(self, who: str) -> None:
        """Do nothing."""

    def holders(self) -> tuple[str, ...]:
        """Return nobody."""
        return ()


@dataclass(frozen=True, slots=True)
class Place:
    """A host as an image sees it: the noun, and what it can start."""

    host: Host
    traits: HostTraits

    @property
    def kind(self) -> tuple[HostTraits, bool]:
        """What hosts have in common that take the same images: guests are told the same there."""
        return self.traits, self.host.network.subnet6 is not None


@dataclass(frozen=True, slots=True)
class Known:
    """An image whose files are there and make sense: what it is, and whose family."""

    image: Image
    facts: ImageFacts
    family: Family

    @property
    def title(self) -> str:
        """What it is, for people."""
        ways = ", ".join(sorted(self.facts.entries)) or "no known way in"
        return f"{self.family.traits.title} ({ways})"

    @property
    def takes_ipv6(self) -> bool:
        """Whether its guests are told an IPv6 address."""
        if self.image.template:
            return "ip6" in parse(self.image.template).words
        return self.family.traits.ipv6

    @property
    def takes_own_address(self) -> bool:
        """Whether its guests are told an address of their own, for their loopback."""
        if self.image.template:
            return "own" in parse(self.image.template).words
        return self.family.traits.own_address


@dataclass(frozen=True, slots=True)
class Fit:
    """An image that a host can run for a service, and by which way in.

    `flavour` is its name in the catalogue; empty for an image that is not from there.
    """

    known: Known
    entry: Entry
    flavour: str = ""

    @property
    def title(self) -> str:
        """What it is called, for people."""
        of = f" in flavour {self.flavour}" if self.flavour else ""
        return f"image {self.image.name}{of}"

    @property
    def image(self) -> Image:
        """The image, with its files."""
        return self.known.image


class Library:
    """The images of a lab as hosts see them. Safe to use from many threads.

    `inspect` tells what a file is; `shelf` is the catalogue. Whoever shares `digests` hashes each
    file once.
    """

    def __init__(
        self, inspect: Inspect, shelf: Shelf | None = None, digests: Digests | None = None
    ) -> None:
        self._inspect = inspect
        self._shelf = shelf or NoShelf()
        self._digests = digests or Digests()
        self._judged: dict[tuple[str, ...], tuple[_Question, Fit]] = {}

    def recognise(self, image: Image) -> tuple[Known, ...]:
        """Return every flavour of an image with what it is; raises `ImageError` if one is bad."""
        return tuple(self._known(each.ready()) for each in self._shelf.fetch(image))

    def files(self, lab: Lab) -> tuple[Path, ...]:
        """Return the files of all images of a lab that are there and right."""
        found: list[Path] = []
        for image in lab.images:
            with suppress(ImageError):
                for flavour in self._shelf.fetch(image):
                    with suppress(ImageError):
                        found += flavour.ready().files
        return tuple(found)

    def hold(self, guest: Guest) -> None:
        """Keep the files of a guest until it is released; raises `ImageUnusable`."""
        try:
            self._shelf.hold(guest.name, guest.boot.files)
        except ImageError as error:
            raise ImageUnusable(guest.mark.service, str(error)) from error

    def holders(self) -> tuple[str, ...]:
        """Return the instances for which files are held."""
        try:
            return self._shelf.holders()
        except ImageError as error:
            log.warning("who holds files of the catalogue cannot be read: %s", error)
            return ()

    def release(self, instance: str) -> None:
        """Let go of the files of a guest that is gone; what fails is logged."""
        try:
            self._shelf.release(instance)
        except ImageError as error:
            log.warning("the files of %s stay in the catalogue: %s", instance, error)

    def fit(self, lab: Lab, service: Service, place: Place) -> Fit:
        """Return the first image of a service that such a host can boot for it.

        Raises `ImageUnusable` saying why none does, image by image.
        """
        reasons: list[str] = []
        for attempt in self._attempts(lab, service, place):
            if isinstance(attempt, Fit):
                return attempt
            reasons.append(attempt.text)
        raise ImageUnusable(service.name, "; ".join(reasons))

    def fits(self, lab: Lab, service: Service, place: Place) -> tuple[Fit, ...]:
        """Return all flavours of a service's images that such a host can boot, preferred first."""
        attempts = self._attempts(lab, service, place)
        return tuple(attempt for attempt in attempts if isinstance(attempt, Fit))

    def digest(self, fit: Fit) -> str:
        """Return the SHA-256 of what is booted: way in and files. OSError if one is not there.

        Of a command, its arguments and all files of its tree count, else its program. A block
        device counts by its name: it would have to be read each time.
        """
        whole = hashlib.sha256(fit.entry.encode())
        if fit.image.exec:
            whole.update(bytes.fromhex(commands.digest(fit.image, self._digests.of)))
        for path in fit.image.files:
            device = path.is_block_device()
            whole.update(os.fsencode(path) if device else bytes.fromhex(self._digests.of(path)))
        return whole.hexdigest()

    def sha256(self, path: Path) -> str:
        """Return the SHA-256 of a file, read once as long as it does not change; raises OSError."""
        return self._digests.of(path)

    def version(self, fit: Fit) -> str:
        """Return what tells a flavour from others, and from itself with other bytes; it is cheap.

        A file that is written anew counts as changed.
        """
        files = [f"{path}:{_version(path)}" for path in fit.image.files]
        if fit.image.exec:
            files.append(_command_version(fit.image))
        return " ".join((fit.image.name, fit.flavour, fit.entry, *files))

    def written_at(self, fit: Fit) -> float:
        """Return when a file of an image was last written (s since the epoch); raises OSError."""
        if fit.image.exec:
            return commands.written_at(fit.image)
        return max((path.stat().st_mtime for path in fit.image.files), default=0.0)

    def unfit(self, lab: Lab, service: Service, places: Mapping[str, Place]) -> Mapping[str, str]:
        """Return the hosts that can run no image of a service, and why in a clause.

        Empty for images that are all absent or damaged: that is not a host's fault, and booting
        one says what is wrong.
        """
        verdicts: dict[tuple[HostTraits, bool], str] = {}
        for place in places.values():
            if place.kind not in verdicts:
                verdicts[place.kind] = self._why_not(lab, service, place)
        said = {name: verdicts[place.kind] for name, place in places.items()}
        return {name: why for name, why in said.items() if why}

    def guest(
        self,
        lab: Lab,
        service: Service,
        instance: Instance,
        place: Place,
        owner: str,
        *,
        fit: Fit | None = None,
    ) -> Guest:
        """Return what the hypervisor is to start for an instance; raises `ImageUnusable`.

        It boots `fit`, or else the first image that can be. A guest that is not told its IPv6
        address has none in its mark.
        """
        fit = fit or self.fit(lab, service, place)
        try:
            spec = boot_spec(fit.known, fit.entry, service, instance, place)
        except ImageError as error:
            raise ImageUnusable(service.name, f"image {fit.image.name}: {error}") from error
        mark = Mark(
            owner=owner,
            instance=instance.name,
            service=service.name,
            host=instance.host,
            address=instance.address,
            address6=instance.address6 if fit.known.takes_ipv6 else None,
            obeys_shutdown=is_asked_to_end(spec, place.traits.platform),
            dumps_core=service.on_crash is OnCrash.COREDUMP,
        )
        return Guest(
            name=instance.name,
            mark=mark,
            boot=spec,
            cpu=service.resources.cpu,
            cpu_cap=service.cpu_cap,
        )

    def _attempts(self, lab: Lab, service: Service, place: Place) -> "Iterator[Fit | _Miss]":
        """Try the flavours of a service's images on a host, one after the other."""
        if service.probe.kind is ProbeKind.XENSTORE and not place.traits.xenstore:
            yield _Miss(f"its probe waits for a Xenstore key, {_no_xenstore(place)}", refused=True)
            return
        for name in service.images:
            image = lab.image(name)
            try:
                flavours = self._shelf.fetch(image)
            except ImageError as error:
                yield _Miss(f"image {name}: {error}", refused=False)
                continue
            for flavour in flavours:
                try:
                    yield self._fit(lab, service, flavour, place)
                except ImageError as error:
                    yield _Miss(f"image {name}: {error}", refused=isinstance(error, ImageRefused))

    def _fit(self, lab: Lab, service: Service, flavour: Fetched, place: Place) -> Fit:
        if flavour.platforms and place.traits.platform not in flavour.platforms:
            wanted = " and ".join(flavour.platforms)
            raise ImageRefused(f"its flavour {flavour.flavour} is for {wanted}")
        question = _Question(lab.name, service, place, self._known(flavour.ready()))
        key = (service.name, place.host.name, question.known.image.name, flavour.flavour)
        asked, fit = self._judged.get(key, (None, None))
        if fit is None or asked != question:
            fit = Fit(question.known, _judge(question), flavour.flavour)
            if len(self._judged) >= MOST_JUDGED:
                self._judged = {}
            self._judged[key] = question, fit
        return fit

    def _known(self, image: Image) -> Known:
        if image.exec:
            facts = commands.command_facts(image, self._inspect)
        else:
            found = {path: self._inspect(path) for path in image.files}  # all have to be there
            facts = found[image.main_file]
        how = family(resolve(image, facts))
        how.check(image, self._inspect)
        return Known(image, facts, how)

    def _why_not(self, lab: Lab, service: Service, place: Place) -> str:
        misses: list[_Miss] = []
        for attempt in self._attempts(lab, service, place):
            if isinstance(attempt, Fit):
                return ""
            misses.append(attempt)
        misses.sort(key=lambda miss: not miss.refused)
        return "; ".join(miss.text for miss in misses) if any(m.refused for m in misses) else ""


def _command_version(image: Image) -> str:
    try:
        return commands.version(image)
    except (OSError, ImageError):
        return "gone"


def _version(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file does; None if it is not there."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


@dataclass(frozen=True, slots=True)
class _Question:
    """Whether a host can boot an image for a service, with all that the answer depends on."""

    lab: str
    service: Service
    place: Place
    known: Known


def _judge(question: _Question) -> Entry:
    """Return the way in by which a host boots an image; raises `ImageRefused` if there is none."""
    service, place, known = question.service, question.place, question.known
    matched = match(
        known.image,
        known.facts,
        known.family.traits,
        place.traits,
        service.resources.memory_mib,
        dumps_core=service.on_crash is OnCrash.COREDUMP,
    )
    if matched.entry is None:
        raise ImageRefused(matched.why_not)
    # What the family refuses to say to this image is as good a reason as any other.
    spec = boot_spec(
        known, matched.entry, service, example(question.lab, service, place.host), place
    )
    if spec.xenstore and not place.traits.xenstore:
        keys = ", ".join(key for key, _ in spec.xenstore)
        raise ImageRefused(f"it wants Xenstore keys ({keys}), {_no_xenstore(place)}")
    return matched.entry


@dataclass(frozen=True, slots=True)
class _Miss:
    """Why a flavour is not booted on a host; `refused` if that is for what the host is."""

    text: str
    refused: bool


def _own_address(known: Known, public: Public) -> IPv4Address | IPv6Address:
    """Return the public address that a guest is to have; ImageRefused if it cannot be told so."""
    if not known.takes_own_address:
        by = "its template" if known.image.template else f"family {known.family.traits.name}"
        raise ImageRefused(
            f"its guests are not told to have the public address {public.address}: "
            f"{by} does not say it"
        )
    return public.address


def boot_spec(
    known: Known, entry: Entry, service: Service, instance: Instance, place: Place
) -> BootSpec:
    """Return how an instance of a service is booted; raises `ImageError`."""
    network = place.host.network
    address = network.guest_address(instance.address)
    if service.public:
        address = replace(address, own=(_own_address(known, service.public),))
    request = BootRequest(
        name=instance.name,
        service=known.image.name if known.image.anonymous else service.name,
        host=instance.host,
        address=address if known.takes_ipv6 else replace(address, ipv6=None),
        nic=Nic(network=network.name, mac=instance.mac),
        memory_mib=service.resources.memory_mib,
        vcpus=service.resources.processors,
        config=service.config,
        platform=place.traits.platform,
        entry=entry,
        port=next((port.number for port in service.ports if port.protocol == "tcp"), 0),
    )
    try:
        return known.family.boot_spec(known.image, known.facts, request)
    except ImageError:
        raise
    except Exception as error:
        name = known.family.traits.name
        log.exception("image family %s failed", name)
        raise ImageRefused(
            f"its family {name} failed: {error!r}; that is a defect of the family, see the log"
        ) from error


def _no_xenstore(place: Place) -> str:
    """Say why a host has no Xenstore that we reach, as the rest of a sentence."""
    if place.traits.platform is Platform.XEN:
        return (
            "and those of this Xen host are out of reach: they take a command there, so its URI "
            "must be xen:///system on this machine, or xen+ssh"
        )
    return "and only guests of a Xen host have those"


def is_asked_to_end(spec: BootSpec, platform: Platform) -> bool:
    """Return whether a guest is asked to shut down before it is destroyed.

    One that hangs keeps whoever looks at its domain waiting for 60 s on Xen (libxl). So there only
    those are asked that have something to lose: a disk that they write to.
    """
    may_lose = platform is not Platform.XEN or any(not disk.read_only for disk in spec.disks)
    return spec.obeys_shutdown and may_lose


def example(lab: str, service: Service, host: Host) -> Instance:
    """Return an instance as it might be: the first of its service, at the pool's first address."""
    address = host.network.first
    return Instance(
        name=instance_name(lab, service.name, 0),
        service=service.name,
        host=host.name,
        address=address,
        address6=host.network.address6(address),
        mac=mac_of(address),
        state=InstanceState.BOOTING,
        created_at=time.time(),
    )


def traits_of(host: Host, *, kvm: bool = False) -> HostTraits:
    """Return what a host can start, as its URI and its network in the lab file tell."""
    parts = urlsplit(host.uri)
    _driver, _, transport = parts.scheme.partition("+")
    by_command = transport == "ssh" or (transport in {"", "unix"} and not parts.netloc)
    return HostTraits(
        platform=PLATFORMS.get(host.driver, Platform.QEMU),
        architecture=host.architecture,
        kvm=kvm,
        dhcp=host.network.dhcp,
        # What is only remembered stands for any host.
        xenstore=(host.driver == "xen" and by_command) or host.driver == "memory",
    )
