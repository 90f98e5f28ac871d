"""Does a guest of this image survive being put to sleep on this host? Found out by doing it.

Many unikernels do not survive being saved, and some hypervisors cannot pause. A probe puts one
running guest to sleep, rouses it and asks whether it still answers, and whether its clock is right.
Who probes when, where the result is kept (by image and host) and what follows from it is the
business of `orchestrator.sleeping`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.errors import DiskFull, StartFailed
from orchestrator.hypervisors.base import Depth, Hypervisor

ANSWER_POLL_S = 0.02
HOLD_S = 3.0  # how long a guest sleeps whose clock can be read: dates of HTTP are whole seconds
CLOCK_ERROR_S = 1.5

Clock = Callable[[], float | None]


@dataclass(frozen=True, slots=True)
class Survival:
    """Whether a guest slept at `depth` and answered afterwards; `why` says why it did not.

    `sleep_s` and `rouse_s` are what either took (seconds), `rouse_s` until it answered. `clock`
    says whether its clock was still right, None if that could not be told.
    """

    depth: Depth
    works: bool
    why: str = ""
    sleep_s: float = 0.0
    rouse_s: float = 0.0
    clock: bool | None = None


def _no_clock() -> float | None:
    return None


def probe(
    hypervisor: Hypervisor,
    instance: str,
    depth: Depth,
    answers: Callable[[], bool],
    timeout_s: float,
    *,
    clock: Clock = _no_clock,
    wanted: Callable[[], bool] = lambda: False,
) -> Survival:
    """Put a running guest to sleep, rouse it, and wait until it answers, `timeout_s` at most.

    `clock` returns the guest's own time (seconds since the epoch), None where it does not tell; a
    guest that does sleeps for `HOLD_S`, unless somebody has `wanted` it meanwhile.

    Use a guest that nobody needs: where the ability is missing, it may be dead afterwards, and
    somebody must `stop` it. Raises `HostUnreachable`, `DiskFull` (it runs on then, and nothing was
    found out), and what `answers` raises.
    """
    offset = _offset(clock)
    began = time.monotonic()
    try:
        hypervisor.sleep(instance, depth)
        asleep = time.monotonic()
        held = offset is not None and _hold(wanted)
        roused = time.monotonic()
        hypervisor.rouse(instance)
    except DiskFull:  # which says nothing of the guest, and may pass
        hypervisor.rouse(instance)
        raise
    except StartFailed as error:
        return Survival(depth, works=False, why=error.message)
    while not answers():
        if time.monotonic() > roused + timeout_s:
            why = f"it did not answer within {timeout_s:g} s of being roused"
            return Survival(depth, works=False, why=why, sleep_s=asleep - began)
        time.sleep(ANSWER_POLL_S)
    rouse_s = time.monotonic() - roused
    after = _offset(clock) if held else None
    right = None if offset is None or after is None else abs(after - offset) < CLOCK_ERROR_S
    return Survival(depth, works=True, sleep_s=asleep - began, rouse_s=rouse_s, clock=right)


def _offset(clock: Clock) -> float | None:
    """Return by how much a guest's clock is ahead of a fixed moment; None where it does not tell.

    That is reckoned by a clock of ours that nobody sets: ours being set is not the guest's fault.
    """
    told = clock()
    return None if told is None else told - time.monotonic()


def _hold(wanted: Callable[[], bool]) -> bool:
    """Let `HOLD_S` pass; False if the guest was wanted before."""
    until = time.monotonic() + HOLD_S
    while time.monotonic() < until:
        if wanted():
            return False
        time.sleep(ANSWER_POLL_S)
    return True
