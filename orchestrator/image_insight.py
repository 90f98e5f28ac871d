"""What is known of each image of a lab: what it is, how large, who uses it, and whether it can run.

Files that were not seen before are read for their digest, which can take seconds for large disks.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from images.bootspec import Image
from images.errors import ImageError
from orchestrator.boot import Boots
from orchestrator.errors import UnknownImage
from orchestrator.fleet import Fleet
from orchestrator.library import Fit, Known
from orchestrator.model import Service


@dataclass(frozen=True, slots=True)
class FlavourInsight:
    """One form of an image: what it is for people, its ways in, and its files in bytes."""

    title: str
    family: str
    entries: tuple[str, ...]
    file_bytes: int
    digest: str  # SHA-256 of the main file; empty if it cannot be read
    least_memory_mib: int


@dataclass(frozen=True, slots=True)
class ImageInsight:
    """An image; `unusable` says why it cannot be booted anywhere, empty if it can.

    `services` use it, and ask for `memory_mib` each; `hosts` would boot it for one of them now.
    """

    image: Image
    flavours: tuple[FlavourInsight, ...]
    services: tuple[str, ...]
    memory_mib: tuple[int, ...]
    hosts: tuple[str, ...]
    unusable: str


class Images:
    """Tells of the images of one orchestrator's lab. Safe to use from many threads."""

    def __init__(self, fleet: Fleet, boots: Boots) -> None:
        self._fleet = fleet
        self._boots = boots
        self._library = boots.library

    def all(self) -> tuple[ImageInsight, ...]:
        """Return all images of the lab, in its order."""
        return self._of(self._fleet.lab.images)

    def image(self, name: str) -> ImageInsight:
        """Return one image; raises `UnknownImage`."""
        found = self._of(each for each in self._fleet.lab.images if each.name == name)
        if not found:
            names = ", ".join(each.name for each in self._fleet.lab.images)
            raise UnknownImage(f"{name}: no such image", hint=f"the lab has: {names}")
        return found[0]

    def digest(self, fit: Fit | None) -> str:
        """Return the SHA-256 of the main file that is booted; empty if it cannot be told."""
        return self._digest(fit.known) if fit else ""

    def _of(self, images: Iterable[Image]) -> tuple[ImageInsight, ...]:
        return tuple(self._insight(image) for image in images)

    def _hosts(self, image: Image, users: Iterable[Service]) -> tuple[str, ...]:
        """Return the hosts that would boot an image for one of its users."""
        found: set[str] = set()
        for service in users:
            if found >= self._boots.hosts.keys():
                break
            fits = self._boots.fits(service).items()
            found |= {h for h, fit in fits if isinstance(fit, Fit) and fit.image.name == image.name}
        return tuple(sorted(found))

    def _insight(self, image: Image) -> ImageInsight:
        users = [each for each in self._fleet.lab.services if image.name in each.images]
        unusable = ""
        flavours: tuple[FlavourInsight, ...] = ()
        try:
            known = self._library.recognise(image)
            flavours = tuple(self._flavour(each) for each in known)
            unusable = "; ".join({each.facts.unusable for each in known} - {""})
        except (ImageError, OSError) as error:
            unusable = str(error)
        return ImageInsight(
            image=image,
            flavours=flavours,
            services=tuple(service.name for service in users),
            memory_mib=tuple(sorted({service.resources.memory_mib for service in users})),
            hosts=self._hosts(image, users),
            unusable=unusable,
        )

    def _flavour(self, known: Known) -> FlavourInsight:
        traits = known.family.traits
        least = (known.image.least_memory_mib, *traits.least_memory_mib.values())
        return FlavourInsight(
            title=known.title,
            family=traits.name,
            entries=tuple(sorted(known.facts.entries)),
            file_bytes=sum(path.stat().st_size for path in _files(known.image)),
            digest=self._digest(known),
            least_memory_mib=min((each for each in least if each), default=0),
        )

    def _digest(self, known: Known) -> str:
        try:
            return self._library.sha256(known.image.main_file)
        except OSError:
            return ""


def _files(image: Image) -> tuple[Path, ...]:
    return (image.main_file,) if image.exec else image.files
