"""When may an awake service be put to sleep? Pure decisions, each with its reason.

DNS silence alone does not make a service idle: a download may run for an hour after one query, and
a client may use an address as long as the TTL it was given. So three kinds of use count: traffic
seen at the guest's own network card, answers that may still sit in somebody's cache, and being
probed by us right now. Times here are monotonic seconds; only who is to be awake at certain hours
is looked up on the wall clock.
"""

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.hours import local_time
from orchestrator.model import IdlePolicy

# Below this, both ways within one idle period, traffic is upkeep (ARP, IPv6 neighbour discovery),
# not use: one ARP exchange is 42 to 60 bytes each way, the shortest TCP exchange over 150.
UPKEEP_BYTES = 150


@dataclass(slots=True)
class TrafficMeter:
    """Tells use from upkeep in one guest's interface counters.

    A guest that only sends (announcements) or only receives (broadcasts, floods to a closed card)
    is not being used: both directions must move.
    """

    seen_at: float
    rx_bytes: int = 0
    tx_bytes: int = 0
    used_at: float = 0.0
    primed: bool = False

    def count(self, rx_bytes: int, tx_bytes: int, now: float, forget_s: float) -> None:
        """Take in a reading of the counters; `used_at` moves when it shows use.

        Upkeep adds up to nothing: a baseline older than `forget_s` seconds is replaced.
        """
        restarted = rx_bytes < self.rx_bytes or tx_bytes < self.tx_bytes
        if not self.primed or restarted:
            self._baseline(rx_bytes, tx_bytes, now)
            return
        if min(rx_bytes - self.rx_bytes, tx_bytes - self.tx_bytes) > UPKEEP_BYTES:
            self.used_at = now
            self._baseline(rx_bytes, tx_bytes, now)
        elif now - self.seen_at > forget_s:
            self._baseline(rx_bytes, tx_bytes, now)

    def _baseline(self, rx_bytes: int, tx_bytes: int, now: float) -> None:
        self.rx_bytes, self.tx_bytes, self.seen_at, self.primed = rx_bytes, tx_bytes, now, True


@dataclass(frozen=True, slots=True)
class Use:
    """What is known about the use of an awake service.

    `up_at` is when it became ready (or was adopted), `traffic_at` when traffic was last seen,
    `asked_at` when an answer was last handed out, `slept_at` when it was last put to sleep before
    that (None: not in this run); `probing` says that a readiness probe of ours is open.
    """

    up_at: float
    traffic_at: float = 0.0
    asked_at: float = 0.0
    slept_at: float | None = None
    probing: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a service may sleep now, and the reason, for events and for people."""

    sleep: bool
    reason: str


class KeptUp(StrEnum):
    """Why a service has to be awake though nobody uses it."""

    PIN = "pin"
    KEEP_WARM = "keep-warm"

    @property
    def reason(self) -> str:
        """That in words."""
        return {KeptUp.PIN: "it is pinned", KeptUp.KEEP_WARM: "kept warm at this time"}[self]


def kept_up(policy: IdlePolicy, now: float) -> KeptUp | None:
    """Return why a service has to be awake at a time (wall clock); None if it need not be."""
    if policy.pin:
        return KeptUp.PIN
    if policy.keep_warm:
        moment = local_time(now, policy.timezone)
        if any(hours.cover(moment) for hours in policy.keep_warm):
            return KeptUp.KEEP_WARM
    return None


def verdict(use: Use, policy: IdlePolicy, ttl_s: float, now: float) -> Verdict:
    """Decide whether a service may be put to sleep at `now`."""
    if policy.after_s is None:
        return Verdict(False, "never sleeps: idle is 'never'")
    if use.probing:
        return Verdict(False, "a readiness probe is open")
    unused_s = now - max(use.up_at, use.traffic_at, use.asked_at)
    waits = (
        (use.up_at + policy.min_up_s - now, "minimum up time"),
        (_steady_until(use, policy) - now, "cool-down after an early sleep"),
        (use.asked_at + ttl_s - now, "an answer may still be cached"),
        (policy.after_s - unused_s, "used a moment ago"),
    )
    for left_s, reason in waits:
        if left_s > 0:
            return Verdict(False, f"{reason}: {left_s:.1f} s left")
    return Verdict(True, f"unused for {unused_s:.1f} s")


def _steady_until(use: Use, policy: IdlePolicy) -> float:
    """Return until when a service stays up because it was needed again soon after a sleep."""
    if use.slept_at is None or use.up_at - use.slept_at > policy.cool_down_s:
        return 0.0
    return use.up_at + policy.cool_down_s


class Usage:
    """Keeps what `verdict` needs, for all services. Written by the sweep and by wakes."""

    def __init__(self) -> None:
        self._up_at: dict[str, float] = {}
        self._slept_at: dict[str, float] = {}
        self._meters: dict[str, dict[str, TrafficMeter]] = {}

    def woke(self, service: str, now: float) -> None:
        """Note that a service became ready, or was found running at a restart."""
        self._up_at[service] = now

    def slept(self, service: str, now: float) -> None:
        """Note that a service was put to sleep."""
        self._slept_at[service] = now
        self._up_at.pop(service, None)
        self._meters.pop(service, None)

    def traffic(
        self, service: str, instance: str, counters: tuple[int, int], now: float, forget_s: float
    ) -> None:
        """Take in an instance's received and sent bytes."""
        meters = self._meters.setdefault(service, {})
        meter = meters.setdefault(instance, TrafficMeter(seen_at=now))
        meter.count(*counters, now=now, forget_s=forget_s)

    def traffic_at(self, service: str, instance: str) -> float:
        """Return when traffic of an instance was last seen; 0 if never in this run."""
        meter = self._meters.get(service, {}).get(instance)
        return meter.used_at if meter else 0.0

    def traffic_of(self, service: str) -> float:
        """Return when traffic of any instance of a service was last seen; 0 if never."""
        meters = self._meters.get(service, {})
        return max((meter.used_at for meter in tuple(meters.values())), default=0.0)

    def of(self, service: str, *, asked_at: float, probing: bool, now: float) -> Use:
        """Return what is known about the use of a service."""
        return Use(
            up_at=self._up_at.setdefault(service, now),
            traffic_at=self.traffic_of(service),
            asked_at=asked_at,
            slept_at=self._slept_at.get(service),
            probing=probing,
        )
