"""Redirects by nftables: a table of ours, and in it a chain at the ingress hook for each redirect.

Fails open by itself. ``fwd to`` a device that is gone would drop packets. So before it, the kernel
looks up a route that leads to that device, in a routing table which only packets with a mark of
ours are looked up in: the route goes with the device, or with its being up, and then the packet
goes on as if there were no redirect. That holds with no process of ours running.

Each redirect has a number for these. It is the mark and the routing table: 0xE, four digits of its
owner, and three of its own. Its chain is called after it, after the versions of IP that it is
about (for only these there are routes), and after what it does.
"""

import re
from collections.abc import Iterable
from contextlib import suppress

from orchestrator.errors import CannotRedirect
from orchestrator.rules.lower import VERSIONS
from orchestrator.rules.nft import to_nft
from orchestrator.steering.redirect.backend import Standing, mark_of
from orchestrator.steering.redirect.base import Redirect, Rung
from orchestrator.steering.redirect.commands import Commands

PROTOCOL = "238"  # of our routes and routing rules; linux/rtnetlink.h leaves it to users
PREFERENCE = "23757"  # of our routing rules: before that of the main table, 32766
PRIORITY = -10  # of our chains at the hook

_SLOTS = range(1, 0x1000)
_SHOW = f"rule show\nroute show table all protocol {PROTOCOL}\n"
_CHAIN = re.compile(r"r(4|6|46)-[0-9a-f]{8}-[0-9a-f]{20}")


class NftBackEnd:
    """The redirects of one owner."""

    def __init__(self, owner: str, commands: Commands) -> None:
        self._commands = commands
        self._base = int(f"e{mark_of(owner, 4)}000", 16)
        self.table = f"edgewake-{mark_of(owner, 8)}"
        self._used: set[int] = set()

    # --- the back end ---------------------------------------------------------------------------

    def found(self) -> list[Standing]:
        """Return our chains, and what a crash left of routes without one."""
        ways = self._ways()
        found, chained = [], set()
        for name, (packets, device) in self._chains().items():
            place, _, digest = name.rpartition("-")
            versions, number = place[1:].split("-")
            chained.add(int(number, 16))
            needed = {f"{kind} {version}" for kind in ("rule", "route") for version in versions}
            whole = needed <= ways.get(int(number, 16), set())
            found.append(Standing(Rung.NFT, digest, place, whole, packets, device))
        self._used = chained | ways.keys()
        left = (f"r-{number:08x}" for number in ways if number not in chained)
        return [*found, *(Standing(Rung.NFT, "", place, whole=False) for place in left)]

    def add(self, rung: Rung, redirect: Redirect, digest: str) -> None:  # noqa: ARG002 - only one
        """Make the ways first, and then the chain, in one transaction of nftables."""
        matches = {version: to_nft(redirect.rule, (version,)) for version in VERSIONS}
        versions = [version for version in VERSIONS if matches[version]]
        number = next(each + self._base for each in _SLOTS if each + self._base not in self._used)
        self._used.add(number)
        name = f"r{''.join(map(str, versions))}-{number:08x}-{digest}"
        try:
            for version in versions:
                self._ip(version, added_ways(number, redirect.to_device))
            every = [match for version in versions for match in matches[version]]
            self._nft(added_chain(self.table, name, number, redirect, every))
        except CannotRedirect:
            self._remove_ways(number)
            raise

    def remove(self, standing: Standing) -> None:
        """Remove the chain first; and with the last one, the table."""
        name = f"{standing.place}-{standing.digest}"
        chains = self._chains()
        if name in chains:
            whole = f"table netdev {self.table}"
            chain = f"chain netdev {self.table} {name}"
            self._nft(
                f"delete {whole}\n" if len(chains) == 1 else f"flush {chain}\ndelete {chain}\n"
            )
        self._remove_ways(int(standing.place.rpartition("-")[2], 16))

    # --- what there is --------------------------------------------------------------------------

    def _chains(self) -> dict[str, tuple[int, str]]:
        """Return our chains by name: how many packets each has taken, and to which device."""
        (listed,) = self._commands.ask("nft", "-j", "list", "ruleset", "netdev")
        found: dict[str, tuple[int, str]] = {}
        for each in listed["nftables"]:
            chain, rule = each.get("chain", {}), each.get("rule", {})
            if chain.get("table") == self.table and _CHAIN.fullmatch(chain["name"]):
                found[chain["name"]] = 0, ""
            if rule.get("table") == self.table and rule["chain"] in found:
                said = {kind: what for each in rule["expr"] for kind, what in each.items()}
                if "fwd" in said:
                    before = found[rule["chain"]][0]
                    device = str(said["fwd"]["dev"])
                    found[rule["chain"]] = before + said["counter"]["packets"], device
        return found

    def _ways(self) -> dict[int, set[str]]:
        """Return of each number of ours which routing rules and routes there are."""
        ways: dict[int, set[str]] = {}
        for version in VERSIONS:
            for each in self._commands.ask("ip", "-j", f"-{version}", "-batch", "-", text=_SHOW):
                number = self._number(each.get("table", ""))
                kind = "route" if each.get("dst") == "default" else "rule"
                if number and (kind == "route" or each.get("protocol") == PROTOCOL):
                    ways.setdefault(number, set()).add(f"{kind} {version}")
        return ways

    def _number(self, table: str) -> int:
        """Return the number of a routing table that is ours; 0 of any other."""
        number = int(table) if table.isdecimal() else 0
        return number if number - self._base in _SLOTS else 0

    # --- changes --------------------------------------------------------------------------------

    def _remove_ways(self, number: int) -> None:
        for version in VERSIONS:
            for line in removed_ways(number):
                with suppress(CannotRedirect):  # it is gone already, or was never there
                    self._ip(version, [line])

    def _ip(self, version: int, lines: Iterable[str]) -> None:
        self._commands.run(
            "ip", f"-{version}", "-batch", "-", text="".join(f"{e}\n" for e in lines)
        )

    def _nft(self, text: str) -> None:
        self._commands.run("nft", "-f", "-", text=text)


def added_ways(number: int, device: str) -> list[str]:
    """Return what ``ip -batch`` makes: a way to the device, for packets with our mark."""
    return [
        f"rule add pref {PREFERENCE} fwmark {number:#x} lookup {number} protocol {PROTOCOL}",
        f"route replace default dev {device} table {number} protocol {PROTOCOL}",
    ]


def removed_ways(number: int) -> list[str]:
    """Return what takes that back, line by line."""
    return [
        f"rule del pref {PREFERENCE} fwmark {number:#x} lookup {number} protocol {PROTOCOL}",
        f"route del default table {number} protocol {PROTOCOL}",
    ]


def added_chain(
    table: str, name: str, number: int, redirect: Redirect, matches: Iterable[str]
) -> str:
    """Return the transaction that adds a redirect's chain, for ``nft -f``."""
    mac = f"ether daddr set {redirect.to_mac} " if redirect.to_mac else ""
    device = f'"{redirect.to_device}"'
    steer = (
        f"meta mark set {number:#x} fib daddr . mark oif {device} "
        f"meta mark set 0 {mac}counter fwd to {device}"
    )
    rules = [*(f"{match} {steer}" for match in matches), f"meta mark {number:#x} meta mark set 0"]
    return "\n".join(
        [
            f"table netdev {table} {{",
            f"  chain {name} {{",
            f'    type filter hook ingress device "{redirect.interface}" priority {PRIORITY};',
            *(f"    {rule}" for rule in rules),
            "  }",
            "}",
            "",
        ]
    )
