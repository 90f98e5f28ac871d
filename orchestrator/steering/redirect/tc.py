"""Redirects by tc: filters at the ingress of an interface whose action is mirred, by three rungs.

``flower`` with skbmod is the way of the Viscum slides. ``u32`` and ``bpf`` need no more than mirred
if frames need no other MAC, and skbmod if they do. A redirect has two preferences, the even one for
IPv4 and the next for IPv6. Its filters have a cookie, in which are whose they are, how many there
are, and what they do: so our own are told from others, and whole ones from others.

Does not fail open by itself: what is sent to a device that is gone is dropped. `watch` sees to it.
"""

from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from orchestrator.errors import CannotRedirect
from orchestrator.packet_filter import Instruction
from orchestrator.rules.bpf import to_bpf
from orchestrator.rules.flower import to_flower
from orchestrator.rules.lower import VERSIONS
from orchestrator.rules.tree import Or, Rule
from orchestrator.rules.u32 import Word, to_u32
from orchestrator.steering.redirect.backend import Standing, mark_of
from orchestrator.steering.redirect.base import Redirect, Rung
from orchestrator.steering.redirect.commands import Commands

PREFERENCES = range(0xED00, 0xEE00, 2)
TC_RUNGS = frozenset({Rung.FLOWER, Rung.U32, Rung.BPF})  # called as tc calls its classifiers
NEVER = to_bpf(Or(()))

_PROTOCOLS = {4: "ip", 6: "ipv6"}
_GONE = "*"  # what tc calls the device of an action whose device is gone


class TcBackEnd:
    """The redirects of one owner, by all three rungs."""

    def __init__(self, owner: str, commands: Commands) -> None:
        self._commands = commands
        self._mark = mark_of(owner, 8)
        self._hooks: set[str] = set()  # interfaces whose hook we made
        self._used: dict[str, set[int]] = {}  # preferences, by interface with a hook

    # --- the back end ---------------------------------------------------------------------------

    def found(self) -> list[Standing]:
        """Return ours of all interfaces that have filters at their ingress."""
        groups = {interface: self._groups(interface) for interface in self._interfaces()}
        self._used = {interface: set(found) for interface, found in groups.items()}
        return [
            standing
            for interface, found in groups.items()
            for preference, group in found.items()
            if (standing := self._standing(f"{interface} {preference}", group))
        ]

    def _standing(self, place: str, group: "_Group") -> Standing | None:
        ours = sorted(each for each in group.cookies if each.startswith(self._mark))
        if not ours or not group.kinds <= TC_RUNGS:
            return None
        count, digest = int(ours[0][8:12], 16), ours[0][12:]
        alike = len(group.cookies) == len(group.kinds) == 1
        whole = alike and group.filters == count and _GONE not in group.devices
        device = min(group.devices)
        return Standing(Rung(min(group.kinds)), digest, place, whole, group.packets, device)

    def add(self, rung: Rung, redirect: Redirect, digest: str) -> None:
        """Add all filters in one batch; the first that is refused takes them all back."""
        filters = compiled(rung, redirect.rule)
        self._ensure_hook(redirect.interface)
        used = self._used[redirect.interface]
        preference = next(each for each in PREFERENCES if each not in used)
        used.add(preference)
        cookie = f"{self._mark}{len(filters):04x}{digest}"
        try:
            self._tc(added(redirect, preference, cookie, filters))
        except CannotRedirect:
            self._remove(redirect.interface, preference)
            raise

    def remove(self, standing: Standing) -> None:
        """Remove the filters of both versions, and then the hook if it was our own."""
        interface, preference = standing.place.split()
        self._remove(interface, int(preference))
        both = (self._show(interface, side) for side in ("ingress", "egress"))
        if interface in self._hooks and not any(both):
            self._hooks.discard(interface)
            self._used.pop(interface, None)
            self._tc([f"qdisc del dev {interface} clsact"])

    # --- what there is --------------------------------------------------------------------------

    def _interfaces(self) -> list[str]:
        listed = self._commands.ask("tc", "-j", "qdisc", "show")
        return [each["dev"] for each in listed if each["kind"] in ("clsact", "ingress")]

    def _groups(self, interface: str) -> dict[int, "_Group"]:
        groups: dict[int, _Group] = defaultdict(_Group)
        for each in self._show(interface):
            if (preference := each.get("pref", 0) & ~1) in PREFERENCES:
                groups[preference].note(each)
        return groups

    def _show(self, interface: str, side: str = "ingress") -> list[dict[str, Any]]:
        shown = self._commands.ask("tc", "-j", "-s", "filter", "show", "dev", interface, side)
        return [each for each in shown if isinstance(each, dict)]

    # --- changes --------------------------------------------------------------------------------

    def _ensure_hook(self, interface: str) -> None:
        if interface not in self._used:
            self._tc([f"qdisc add dev {interface} clsact"])
            self._hooks.add(interface)
            self._used[interface] = set()

    def _remove(self, interface: str, preference: int) -> None:
        for version in VERSIONS:
            with suppress(CannotRedirect):  # there is none of that version
                self._tc([f"filter del {_place(interface, version, preference)}"])

    def _tc(self, lines: list[str]) -> None:
        self._commands.run("tc", "-batch", "-", text="".join(f"{line}\n" for line in lines))


@dataclass(slots=True)
class _Group:
    """What was found at the two preferences of a redirect, of one interface."""

    cookies: set[str] = field(default_factory=set)
    kinds: set[str] = field(default_factory=set)
    filters: int = 0
    packets: int = 0
    devices: set[str] = field(default_factory=set)

    def note(self, shown: dict[str, Any]) -> None:
        """Count one entry of what tc shows; one without actions is no filter but its frame."""
        actions = shown.get("options", {}).get("actions", ())
        self.kinds.add(shown["kind"])
        if actions:
            self.filters += 1
        for action in actions:
            if action.get("kind") == "mirred":
                self.cookies.add(action.get("cookie", ""))
                self.packets += action.get("stats", {}).get("packets", 0)
                self.devices.add(action.get("to_dev", _GONE))


# --- what is said to tc -------------------------------------------------------------------------

Filter = tuple[int, str]  # version of IP, and what the filter looks for


def compiled(rung: Rung, rule: Rule) -> list[Filter]:
    """Return the filters that a rule needs; CannotSay if the rung cannot say it."""
    if rung is Rung.FLOWER:
        return [(each.version, _flower(each.pairs)) for each in to_flower(rule)]
    if rung is Rung.U32:
        return [(each.version, _u32(each.words)) for each in to_u32(rule)]
    programs = ((version, to_bpf(rule, versions=(version,))) for version in VERSIONS)
    return [(version, _bpf(program)) for version, program in programs if program != NEVER]


def added(redirect: Redirect, preference: int, cookie: str, filters: Iterable[Filter]) -> list[str]:
    """Return the lines with which ``tc -batch`` adds a redirect."""
    mac = f"action skbmod set dmac {redirect.to_mac} pipe " if redirect.to_mac else ""
    action = f"{mac}action mirred egress redirect dev {redirect.to_device} cookie {cookie}"
    return [
        f"filter add {_place(redirect.interface, version, preference)} {looks} {action}"
        for version, looks in filters
    ]


def _place(interface: str, version: int, preference: int) -> str:
    pref = preference + VERSIONS.index(version)
    return f"dev {interface} ingress protocol {_PROTOCOLS[version]} pref {pref}"


def _flower(pairs: Iterable[tuple[str, str]]) -> str:
    return " ".join(["flower", *(f"{key} {value}" for key, value in pairs)])


def _u32(words: Iterable[Word]) -> str:
    matches = (f"match u32 {e.value:#010x} {e.mask:#010x} at {e.offset}" for e in words)
    return " ".join(["u32", *matches])


def _bpf(program: tuple[Instruction, ...]) -> str:
    said = (" ".join(map(str, each)) for each in program)
    return f'bpf bytecode "{",".join([str(len(program)), *said])}"'
