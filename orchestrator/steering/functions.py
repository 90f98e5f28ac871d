"""What a function of a chain does to packets by itself: which it lets pass, which its program gets.

By nftables in the function's own namespace, so that its program needs no rights. What comes by a
tunnel towards the end of the chain is looked at, and nothing else: what goes back is a reply to it.
A filter stands at the device (netdev, ingress); what is intercepted is sent to the program's port
by address translation, which only that namespace knows of.
"""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from errno import EINVAL, ENOENT, ETIMEDOUT
from ipaddress import IPv4Address, IPv6Address

from orchestrator.linux import namespaces
from orchestrator.rules.lower import VERSIONS
from orchestrator.rules.nft import to_nft
from orchestrator.rules.tree import TCP, UDP, Protocol, Rule, all_of, any_of

NFT = "/usr/sbin/nft"
_PATIENCE_S = 10.0
# Tunnels need their neighbours (RFC 4861), whatever a filter says.
_UPKEEP = ("ip6 saddr fe80::/10 accept", "ip6 daddr { fe80::/10, ff02::/16 } accept")


@dataclass(frozen=True, slots=True)
class Intercept:
    """TCP and UDP packets that match `rule` are for the function's own program, at its `port`."""

    rule: Rule
    port: int

    def matches(self, versions: tuple[int, ...] = VERSIONS) -> tuple[str, ...]:
        """Return what nftables compares; CannotSay if that were too much."""
        return to_nft(all_of(any_of(Protocol(TCP), Protocol(UDP)), self.rule), versions)


@dataclass(frozen=True, slots=True)
class Function:
    """What a function does: it lets pass what matches `admits` (None: all), and may intercept."""

    admits: Rule | None = None
    intercepts: tuple[Intercept, ...] = ()


Own = Sequence[IPv4Address | IPv6Address]  # addresses of the function, one per family


def nft_text(table: str, function: Function, tunnels: Sequence[str], own: Own = ()) -> str:
    """Return the script for nft(8) that puts a function's tables in place of what was there.

    What it intercepts is sent to its `own` address of the family; none: that passes.
    """
    devices = ", ".join(sorted(tunnels))
    lines = [*_fresh("netdev", table), *_fresh("inet", table)]
    if function.admits is not None and tunnels:
        lines += [
            f"table netdev {table} {{",
            "  chain admits {",
            f"    type filter hook ingress devices = {{ {devices} }} priority 0; policy drop;",
            *(f"    {line}" for line in _UPKEEP),
            *(f"    {match} accept" for match in to_nft(function.admits)),
            "  }",
            "}",
        ]
    if function.intercepts and tunnels:
        lines += [
            f"table inet {table} {{",
            "  chain intercepts {",
            "    type nat hook prerouting priority dstnat; policy accept;",
            *(
                f"    iifname {{ {devices} }} {match} {_to(address, each.port)}"
                for each in function.intercepts
                for address in own
                for match in each.matches((address.version,))
            ),
            "  }",
            "}",
        ]
    return "\n".join(lines) + "\n"


def apply(namespace: str, script: str) -> None:
    """Run a script of nft(8) inside a namespace, whole or not at all. Raises OSError."""

    def run() -> None:
        try:
            done = subprocess.run(
                [NFT, "-f", "-"],
                input=script,
                text=True,
                capture_output=True,
                timeout=_PATIENCE_S,
                check=False,
            )
        except FileNotFoundError as error:
            why = "there is no program nft; install the package nftables"
            raise OSError(ENOENT, why, namespace) from error
        except subprocess.TimeoutExpired as error:
            why = f"nft has not answered for {_PATIENCE_S:.0f} s"
            raise OSError(ETIMEDOUT, why, namespace) from error
        if done.returncode:
            said = done.stderr.strip().partition("\n")[0] or f"exit status {done.returncode}"
            raise OSError(EINVAL, f"nft: {said}", namespace)

    namespaces.inside(namespace, run)


def _to(address: IPv4Address | IPv6Address, port: int) -> str:
    """Return the verdict; a redirect would need an address of the tunnel's own."""
    if address.version == 4:
        return f"dnat ip to {address}:{port}"
    return f"dnat ip6 to [{address}]:{port}"


def _fresh(family: str, table: str) -> list[str]:
    """Remove a table whether it is there or not: one that was just made always is."""
    return [f"table {family} {table}", f"delete table {family} {table}"]
