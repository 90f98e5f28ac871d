"""Which image a host boots for a service: the first of its flavours that the host can run.

Joins what `images` knows (what a file is, how its family boots, what a host can start) with our
nouns. It reads image files, so nothing here is called with a lock held; facts are remembered as
long as a file does not change.
"""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from logging import getLogger
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from images.bootspec import BootRequest, BootSpec, HostTraits, Image, Nic, Platform
from images.catalog import Fetched
from images.errors import ImageError, ImageNotFound, ImageRefused
from images.facts import Entry, ImageFacts
from images.families import Family, Inspect, family
from images.families.template import parse
from images.match import match, resolve
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
    Service,
    instance_name,
    mac_of,
)

log = getLogger(__name__)

PLATFORMS = {"xen": Platform.XEN, "spt": Platform.SPT}


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
    """The images of a lab as hosts see them.

    `inspect` tells what a file is; `shelf` is the catalogue.
    """

    def __init__(self, inspect: Inspect, shelf: Shelf | None = None) -> None:
        self._inspect = inspect
        self._shelf = shelf or NoShelf()
        self._digests = _Digests()

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
        """Return the SHA-256 of what is booted: way in and files. OSError if one is not there."""
        whole = hashlib.sha256(fit.entry.encode())
        for path in fit.image.files:
            whole.update(self._digests.of(path))
        return whole.hexdigest()

    def version(self, fit: Fit) -> str:
        """Return what tells a flavour from others, and from itself with other bytes; it is cheap.

        A file that is written anew counts as changed.
        """
        files = [f"{path}:{_version(path)}" for path in fit.image.files]
        return " ".join((fit.image.name, fit.flavour, fit.entry, *files))

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
        known = self._known(flavour.ready())
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
        spec = boot_spec(known, matched.entry, service, example(lab, service, place.host), place)
        if spec.xenstore and not place.traits.xenstore:
            keys = ", ".join(key for key, _ in spec.xenstore)
            raise ImageRefused(f"it wants Xenstore keys ({keys}), {_no_xenstore(place)}")
        return Fit(known, matched.entry, flavour.flavour)

    def _known(self, image: Image) -> Known:
        facts = self._inspect(image.main_file)
        for path in image.files:  # whether they are there
            self._inspect(path)
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


class _Digests:
    """SHA-256 of files, computed once as long as a file does not change."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, int, int], bytes]] = {}

    def of(self, path: Path) -> bytes:
        """Return the digest of a file; OSError if it cannot be read."""
        version = _version_of(path.stat())
        known = self._known.get(path)
        if known is not None and known[0] == version:
            return known[1]
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        self._known[path] = version, digest
        return digest


def _version_of(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _version(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file does; None if it is not there."""
    try:
        return _version_of(path.stat())
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class _Miss:
    """Why a flavour is not booted on a host; `refused` if that is for what the host is."""

    text: str
    refused: bool


def boot_spec(
    known: Known, entry: Entry, service: Service, instance: Instance, place: Place
) -> BootSpec:
    """Return how an instance of a service is booted; raises `ImageError`."""
    network = place.host.network
    address = network.guest_address(instance.address)
    request = BootRequest(
        name=instance.name,
        service=service.name,
        host=instance.host,
        address=address if known.takes_ipv6 else replace(address, ipv6=None),
        nic=Nic(network=network.name, mac=instance.mac),
        memory_mib=service.resources.memory_mib,
        vcpus=service.resources.processors,
        config=service.config,
        platform=place.traits.platform,
        entry=entry,
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


def example(lab: Lab, service: Service, host: Host) -> Instance:
    """Return an instance as it might be: the first of its service, at the pool's first address."""
    address = host.network.first
    return Instance(
        name=instance_name(lab.name, service.name, 0),
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
