"""What guests are measured to be beside what the literature on unikernels claims of them.

For people: per image, how large its files are, what memory its guests ask for and take, what an
idle one uses of a processor, and how long a boot takes. Memory is asked of the hypervisors.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import fmean

from orchestrator.boot import Boots
from orchestrator.errors import HypervisorError
from orchestrator.fleet import Fleet
from orchestrator.image_insight import ImageInsight
from orchestrator.model import AWAKE, Instance, Rung
from orchestrator.percentile import percentile
from orchestrator.trace import Wake

LECTURE = "the lecture on VLSP, unikernels and services that boot by DNS that edgewake follows"
PAPERS = "Jitsu (NSDI 2015): 30 to 45 ms on x86; ClickOS (NSDI 2014): about 30 ms"


@dataclass(frozen=True, slots=True)
class Claim:
    """What is claimed of unikernels: `key` names the field of `MeasuredImage` beside it.

    `most` is in the field's unit.
    """

    key: str
    text: str
    most: float
    source: str


CLAIMS = (
    Claim("file_bytes", "a web server's image is 7 MB without its pages", 7e6, LECTURE),
    Claim("memory_bytes", "a web server runs in 22 MB of memory", 22e6, LECTURE),
    Claim("idle_cpu", "it uses less than 2 % of a processor", 0.02, LECTURE),
    Claim("boot_p50_s", "it boots in tens of milliseconds", 0.1, f"{LECTURE}; {PAPERS}"),
)


@dataclass(frozen=True, slots=True)
class MeasuredImage:
    """An image as measured; None where nothing was. Means and medians are of guests of this run.

    `asked_mib` is the least that a service gives its guests. `memory_bytes` is the mean of `guests`
    that are awake. `idle_cpu` is cores, the mean of `idle_looks` in which a guest received less
    than a packet a second. `boot_p50_s` is the median of `boots` from nothing, from the order to
    the hypervisor to the guest's first answer.
    """

    name: str
    family: str
    file_bytes: int | None
    asked_mib: int | None
    memory_bytes: float | None
    guests: int
    idle_cpu: float | None
    idle_looks: int
    boot_p50_s: float | None
    boots: int


class Measurer:
    """Measures the images of one orchestrator. Blocks while hypervisors are asked.

    `idle` returns the shares of a processor that an instance used in quiet looks.
    """

    def __init__(
        self, fleet: Fleet, boots: Boots, idle: Callable[[str], tuple[float, ...]]
    ) -> None:
        self._fleet = fleet
        self._boots = boots
        self._idle = idle

    def measured(
        self, images: Iterable[ImageInsight], wakes: Iterable[Wake]
    ) -> tuple[MeasuredImage, ...]:
        """Return what is measured of images; `wakes` are those that are remembered."""
        guests: dict[str, list[Instance]] = {}
        for instance in self._fleet.instances():
            fit = self._boots.booted(instance)
            if fit is not None and instance.state in AWAKE:
                guests.setdefault(fit.image.name, []).append(instance)
        boots = self._boot_times(wakes)
        return tuple(
            self._measure(image, guests.get(image.image.name, []), boots.get(image.image.name, []))
            for image in images
        )

    def _measure(
        self, image: ImageInsight, guests: list[Instance], boots: list[float]
    ) -> MeasuredImage:
        takes = [size for each in guests if (size := self._memory(each)) is not None]
        idle = [share for each in guests for share in self._idle(each.name)]
        flavour = image.flavours[0] if image.flavours else None
        return MeasuredImage(
            name=image.image.name,
            family=flavour.family if flavour else image.image.family,
            file_bytes=flavour.file_bytes if flavour else None,
            asked_mib=min(image.memory_mib, default=None),
            memory_bytes=fmean(takes) if takes else None,
            guests=len(takes),
            idle_cpu=fmean(idle) if idle else None,
            idle_looks=len(idle),
            boot_p50_s=percentile(sorted(boots), 0.5) if boots else None,
            boots=len(boots),
        )

    def _memory(self, instance: Instance) -> int | None:
        parts = self._boots.hosts.get(instance.host)
        if parts is None or instance.host in self._fleet.lost():
            return None
        try:
            return parts.hypervisor.memory_bytes(instance.name)
        except HypervisorError:
            return None

    def _boot_times(self, wakes: Iterable[Wake]) -> dict[str, list[float]]:
        """Return how long boots took by image, as far as it is known what was booted."""
        found: dict[str, list[float]] = {}
        for wake in wakes:
            took_s = boot_s(wake)
            service = self._fleet.service(wake.service)
            if took_s is None or service is None:
                continue
            fit = self._boots.fit_of(service, wake.host)
            found.setdefault(fit.image.name if fit else service.images[0], []).append(took_s)
        return found


def boot_s(wake: Wake) -> float | None:
    """Return how long the guest of a cold wake took to answer, once the hypervisor was asked."""
    if wake.outcome != "ready" or wake.rung != Rung.COLD:
        return None
    at = dict(wake.stamps)  # of several tries, the last
    if "asked" not in at or at.get("answer", 0.0) <= at["asked"]:
        return None
    return at["answer"] - at["asked"]
