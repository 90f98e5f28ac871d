"""Which image a host boots for a service: the first of its flavours that the host can run.

Joins what `images` knows (what a file is, how its family boots, what a host can start) with our
nouns. It reads image files, so nothing here is called with a lock held; facts are remembered as
long as a file does not change.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from images.bootspec import BootRequest, BootSpec, HostTraits, Image, Nic, Platform
from images.errors import ImageError, ImageRefused
from images.facts import Entry, ImageFacts
from images.families import Family, Inspect, family
from images.match import match, resolve
from orchestrator.errors import ImageUnusable
from orchestrator.model import Guest, Host, Instance, Lab, Mark, Service

Fetch = Callable[[Image], Sequence[Image]]

PLATFORMS = {"xen": Platform.XEN, "spt": Platform.SPT}


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


@dataclass(frozen=True, slots=True)
class Fit:
    """An image that a host can run: with its files, what they are, and the way in."""

    image: Image
    facts: ImageFacts
    family: Family
    entry: Entry


class Library:
    """The images of a lab as hosts see them.

    `inspect` tells what a file is. `fetch` returns an image with its files in place, verified; an
    image of the catalogue may come in several flavours. Both raise `ImageError`.
    """

    def __init__(self, inspect: Inspect, fetch: Fetch = lambda image: (image,)) -> None:
        self._inspect = inspect
        self._fetch = fetch

    def recognise(self, image: Image) -> tuple[Known, ...]:
        """Return every flavour of an image with what it is; raises `ImageError` if one is bad."""
        return tuple(self._known(each) for each in self._fetch(image))

    def files(self, lab: Lab) -> tuple[Path, ...]:
        """Return the files of all images of a lab that are there."""
        found: list[Path] = []
        for image in lab.images:
            with suppress(ImageError):
                found += (path for each in self._fetch(image) for path in each.files)
        return tuple(found)

    def fit(self, lab: Lab, service: Service, traits: HostTraits) -> Fit:
        """Return the first image of a service that runs on such a host.

        Raises `ImageUnusable` saying why none does, image by image.
        """
        reasons: list[str] = []
        for image in self._flavours(lab, service, reasons):
            try:
                return self._fit(image, service.resources.memory_mib, traits)
            except ImageError as error:
                reasons.append(f"image {image.name}: {error}")
        raise ImageUnusable(service.name, "; ".join(reasons))

    def unfit(
        self, lab: Lab, service: Service, hosts: Mapping[str, HostTraits]
    ) -> Mapping[str, str]:
        """Return the hosts that can run no image of a service, and why in a clause.

        Empty for images that are all absent or damaged: that is not a host's fault, and booting
        one says what is wrong.
        """
        verdicts: dict[HostTraits, str] = {}
        for traits in set(hosts.values()):
            verdicts[traits] = self._why_not(lab, service, traits)
        return {name: verdicts[traits] for name, traits in hosts.items() if verdicts[traits]}

    def guest(
        self, lab: Lab, service: Service, instance: Instance, traits: HostTraits, owner: str
    ) -> Guest:
        """Return what the hypervisor is to start for an instance; raises `ImageUnusable`.

        A guest that cannot be told an IPv6 address has none in its mark.
        """
        fit = self.fit(lab, service, traits)
        if not fit.family.traits.ipv6:
            instance = replace(instance, address6=None)
        try:
            spec = boot_spec(fit, lab, service, instance, traits)
        except ImageError as error:
            raise ImageUnusable(service.name, f"image {fit.image.name}: {error}") from error
        mark = Mark(
            owner=owner,
            instance=instance.name,
            service=service.name,
            host=instance.host,
            address=instance.address,
            address6=instance.address6,
            obeys_shutdown=spec.obeys_shutdown,
        )
        return Guest(name=instance.name, mark=mark, boot=spec)

    def _flavours(self, lab: Lab, service: Service, reasons: list[str]) -> Iterable[Image]:
        for name in service.images:
            image = lab.image(name)
            try:
                yield from self._fetch(image)
            except ImageError as error:
                reasons.append(f"image {name}: {error}")

    def _fit(self, image: Image, memory_mib: int, traits: HostTraits) -> Fit:
        known = self._known(image)
        matched = match(image, known.facts, known.family.traits, traits, memory_mib)
        if matched.entry is None:
            raise ImageRefused(matched.why_not)
        return Fit(image, known.facts, known.family, matched.entry)

    def _known(self, image: Image) -> Known:
        facts = self._inspect(image.main_file)
        how = family(resolve(image, facts))
        how.check(image, self._inspect)
        return Known(image, facts, how)

    def _why_not(self, lab: Lab, service: Service, traits: HostTraits) -> str:
        absent: list[str] = []
        refused: list[str] = []
        for image in self._flavours(lab, service, absent):
            try:
                self._fit(image, service.resources.memory_mib, traits)
            except ImageRefused as error:
                refused.append(f"image {image.name}: {error}")
            except ImageError as error:
                absent.append(f"image {image.name}: {error}")
            else:
                return ""
        return "; ".join((*refused, *absent)) if refused else ""


def boot_spec(
    fit: Fit, lab: Lab, service: Service, instance: Instance, traits: HostTraits
) -> BootSpec:
    """Return how an instance of a service is booted; raises `ImageError`."""
    network = lab.host(instance.host).network
    address = network.guest_address(instance.address)
    return fit.family.boot_spec(
        fit.image,
        fit.facts,
        BootRequest(
            name=instance.name,
            service=service.name,
            host=instance.host,
            address=address if instance.address6 else replace(address, ipv6=None),
            nic=Nic(network=network.name, mac=instance.mac),
            memory_mib=service.resources.memory_mib,
            vcpus=max(1, round(service.resources.cpu)),
            config=service.config,
            platform=traits.platform,
            entry=fit.entry,
        ),
    )


def traits_of(host: Host, *, kvm: bool = False) -> HostTraits:
    """Return what a host can start, as its URI and its network in the lab file tell."""
    driver = urlsplit(host.uri).scheme.partition("+")[0]
    return HostTraits(
        platform=PLATFORMS.get(driver, Platform.QEMU), kvm=kvm, dhcp=host.network.dhcp
    )
