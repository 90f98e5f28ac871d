"""Does a guest of this image survive being put to sleep on this host? Found out by doing it.

Many unikernels do not survive being saved, and some hypervisors cannot pause. A probe puts one
running guest to sleep, rouses it and asks whether it still answers. Who probes when, where the
result is kept (by image digest and host) and what follows from it is the business of the policy of
sleep, which is not written yet: this is all that it needs from below.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.errors import StartFailed
from orchestrator.hypervisors.base import Depth, Hypervisor

ANSWER_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Ability:
    """Whether a guest slept at `depth` and answered afterwards; `why` says why it did not.

    `sleep_s` and `rouse_s` are what either took (seconds), `rouse_s` until it answered.
    """

    depth: Depth
    works: bool
    why: str = ""
    sleep_s: float = 0.0
    rouse_s: float = 0.0


def probe(
    hypervisor: Hypervisor,
    instance: str,
    depth: Depth,
    answers: Callable[[], bool],
    timeout_s: float,
) -> Ability:
    """Put a running guest to sleep, rouse it, and wait until it answers, `timeout_s` at most.

    Use a guest that nobody needs: where the ability is missing, it may be dead afterwards, and
    somebody must `stop` it. Raises `HostUnreachable`, and what `answers` raises.
    """
    began = time.monotonic()
    try:
        hypervisor.sleep(instance, depth)
        asleep = time.monotonic()
        hypervisor.rouse(instance)
    except StartFailed as error:
        return Ability(depth, works=False, why=error.message)
    deadline = time.monotonic() + timeout_s
    while not answers():
        if time.monotonic() > deadline:
            why = f"it did not answer within {timeout_s:g} s of being roused"
            return Ability(depth, works=False, why=why, sleep_s=asleep - began)
        time.sleep(ANSWER_POLL_S)
    return Ability(depth, works=True, sleep_s=asleep - began, rouse_s=time.monotonic() - asleep)
