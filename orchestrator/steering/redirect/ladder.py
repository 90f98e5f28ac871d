"""Redirects by whatever this machine has: the first rung that can say a redirect makes it.

The rungs are probed once, when they are first needed. One can be forced; then there are no others.
What stands of ours is asked of the kernel each time, so a crash needs no record: what is wanted and
stands whole is left alone, what is missing is added, and only then what is left over is removed.
"""

import re
import subprocess
import threading
from collections.abc import Callable, Sequence
from functools import cached_property, partial

from orchestrator.errors import CannotRedirect, CannotSay
from orchestrator.rules.bpf import to_bpf
from orchestrator.steering.redirect import watch
from orchestrator.steering.redirect.backend import Standing
from orchestrator.steering.redirect.base import InPlace, Redirect, Refused, Rung
from orchestrator.steering.redirect.commands import Commands
from orchestrator.steering.redirect.probe import Ability, back_ends, probe
from orchestrator.steering.redirect.tc import NEVER

_DEVICE = re.compile(r"[A-Za-z0-9_.:@-]{1,15}")
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}|")


class LinuxRedirector:
    """The redirects of one owner on this machine, or in a network namespace of it, by its name.

    If they are `watched`, a process of its own sees to it that they go with the instances even when
    we are not there any more.
    """

    def __init__(
        self,
        owner: str,
        *,
        force: Rung | None = None,
        namespace: str = "",
        watched: bool = False,
        probed: Callable[[], dict[Rung, Ability]] = probe,
    ) -> None:
        self._start_watch = partial(watch.start, owner, namespace) if watched else None
        self._watch: subprocess.Popen[bytes] | None = None
        self._commands = Commands(namespace)
        self._ends = back_ends(owner, self._commands)
        self._force = force
        self._probe = probed
        self._wanted: tuple[Redirect, ...] = ()
        self._lock = threading.Lock()

    # --- the seam -------------------------------------------------------------------------------

    def set(self, wanted: Sequence[Redirect]) -> tuple[Refused, ...]:
        """Make it so: add what is missing, then remove what is left over."""
        with self._lock:
            self._wanted = tuple(wanted)
            devices = self._commands.devices()
            standing = self._standing()
            kept: set[str] = set()
            refused = []
            for redirect in wanted:
                try:
                    kept.add(self._ensure(redirect, devices, standing))
                except (CannotRedirect, CannotSay) as error:
                    refused.append(Refused(redirect, str(error)))
            for each in standing:
                if not each.whole or self._key(each) not in kept:
                    self._ends[each.rung].remove(each)
            if kept:
                self._ensure_watch()
            return tuple(refused)

    def in_place(self) -> tuple[InPlace, ...]:
        """Return which of the wanted ones stand whole."""
        with self._lock:
            devices = self._commands.devices()
            whole = {self._key(each): each for each in self._standing() if each.whole}
            return tuple(
                InPlace(redirect, each.rung, each.packets)
                for redirect in self._wanted
                for rung in Rung
                if (each := whole.get(self._wanted_key(redirect, rung, devices)))
            )

    def rungs(self) -> dict[Rung, str]:
        """Return what the probe said; it is asked again until it could tell."""
        return {rung: ability.why_not for rung, ability in self._abilities.items()}

    def close(self) -> None:
        """Do nothing; redirects stay."""

    # --- inside ---------------------------------------------------------------------------------

    @cached_property
    def _abilities(self) -> dict[Rung, Ability]:
        return self._probe()

    def _ensure_watch(self) -> None:
        if self._start_watch and (self._watch is None or self._watch.poll() is not None):
            self._watch = self._start_watch()

    def _standing(self) -> list[Standing]:
        usable = (rung for rung, ability in self._abilities.items() if not ability.why_not)
        return [each for end in {self._ends[rung]: 0 for rung in usable} for each in end.found()]

    def _ensure(
        self, redirect: Redirect, devices: dict[str, int], standing: Sequence[Standing]
    ) -> str:
        """Have a redirect, by the first rung that can; return by what to know it."""
        _check(redirect, devices)
        whole = {self._key(each) for each in standing if each.whole}
        why_not = []
        for rung in self._candidates():
            key = self._wanted_key(redirect, rung, devices)
            if why := self._cannot(rung, redirect):
                why_not.append(f"{rung}: {why}")
                continue
            try:
                if key not in whole:
                    self._ends[rung].add(rung, redirect, key.partition(" ")[2])
            except (CannotRedirect, CannotSay) as error:
                why_not.append(f"{rung}: {error}")
            else:
                return key
        raise CannotRedirect("; ".join(why_not))

    def _candidates(self) -> Sequence[Rung]:
        return (self._force,) if self._force else tuple(Rung)

    def _cannot(self, rung: Rung, redirect: Redirect) -> str:
        ability = self._abilities[rung]
        return ability.why_not or (ability.why_no_mac if redirect.to_mac else "")

    @staticmethod
    def _key(standing: Standing) -> str:
        return f"{standing.rung} {standing.digest}"

    @staticmethod
    def _wanted_key(redirect: Redirect, rung: Rung, devices: dict[str, int]) -> str:
        """Return by what to know it; a device made anew is another one under the same name."""
        ends = (devices.get(name, 0) for name in (redirect.interface, redirect.to_device))
        return f"{rung} {redirect.digest(*ends)}"


def _check(redirect: Redirect, devices: dict[str, int]) -> None:
    for device in (redirect.interface, redirect.to_device):
        if not _DEVICE.fullmatch(device) or device not in devices:
            raise CannotRedirect(f"there is no device {device!r}")
    if to_bpf(redirect.rule) == NEVER:
        raise CannotRedirect("its rule means no packet at all")
    if not _MAC.fullmatch(redirect.to_mac):
        raise CannotRedirect(f"{redirect.to_mac!r} is no MAC address")
