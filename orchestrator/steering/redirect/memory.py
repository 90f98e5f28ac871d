"""A redirector that remembers: the same contract as the kernel's, for tests and hosts in memory."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.steering.redirect.base import InPlace, Redirect, Refused, Rung


@dataclass(slots=True)
class MemoryKernel:
    """What outlives a redirector: devices, redirects by owner and digest, and what was touched."""

    devices: set[str]
    standing: dict[tuple[str, str], Redirect] = field(default_factory=dict)
    touched: list[str] = field(default_factory=list)


class MemoryRedirector:
    """Redirects in a `MemoryKernel`; one owner's."""

    def __init__(self, owner: str, kernel: MemoryKernel) -> None:
        self._owner = owner
        self._kernel = kernel
        self._wanted: tuple[Redirect, ...] = ()
        self._lock = threading.Lock()

    def set(self, wanted: Sequence[Redirect]) -> tuple[Refused, ...]:
        """Remember exactly these, but for those with devices that are not there."""
        with self._lock:
            self._wanted = tuple(wanted)
            refused = [Refused(each, why) for each in wanted if (why := self._why_not(each))]
            good = [each for each in wanted if not self._why_not(each)]
            new = {(self._owner, each.digest()): each for each in good}
            standing = self._kernel.standing
            old = [key for key in standing if key[0] == self._owner and key not in new]
            self._kernel.touched += [each.name for key, each in new.items() if key not in standing]
            standing.update(new)
            for key in old:
                self._kernel.touched.append(standing.pop(key).name)
        return tuple(refused)

    def _why_not(self, redirect: Redirect) -> str:
        wanted = (redirect.interface, redirect.to_device)
        missing = [each for each in wanted if each not in self._kernel.devices]
        return f"there is no device {missing[0]}" if missing else ""

    def in_place(self) -> tuple[InPlace, ...]:
        """Return those that are there, while their devices are."""
        with self._lock:
            return tuple(
                InPlace(each, Rung.NFT)
                for each in self._wanted
                if (self._owner, each.digest()) in self._kernel.standing and not self._why_not(each)
            )

    def rungs(self) -> dict[Rung, str]:
        """Return that all can be used."""
        return dict.fromkeys(Rung, "")

    def close(self) -> None:
        """Do nothing; redirects stay."""
