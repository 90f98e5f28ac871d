"""Runs ``tc``, ``nft`` and ``ip`` for redirectors: argument lists and standard input, no shell.

Whatever goes wrong is `CannotRedirect`, with what the program said.
"""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import CannotRedirect

_DECODER = json.JSONDecoder()
_PATIENCE_S = 20.0
_PACKAGES = {"tc": "iproute2", "ip": "iproute2", "bridge": "iproute2", "nft": "nftables"}
_FOLDERS = "/usr/sbin:/sbin:/usr/bin:/bin"  # a shell from `su` lacks the first two


@dataclass(frozen=True, slots=True)
class Commands:
    """Programs run in a network namespace, by its name; in ours if it is empty."""

    namespace: str = ""

    def run(self, *argv: str, text: str = "") -> str:
        """Return what a program prints; it reads `text`."""
        try:
            done = subprocess.run(
                self._inside(argv),
                input=text,
                capture_output=True,
                text=True,
                timeout=_PATIENCE_S,
                check=False,
                env={"PATH": _FOLDERS, "LC_ALL": "C"},
            )
        except FileNotFoundError as error:
            package = _PACKAGES.get(argv[0], argv[0])
            raise CannotRedirect(
                f"there is no program {argv[0]}", hint=f"install the package {package}"
            ) from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CannotRedirect(f"{' '.join(argv)}: {error}") from error
        if done.returncode != 0:
            said = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
            raise CannotRedirect(f"{' '.join(argv)}: {said}")
        return done.stdout

    def _inside(self, argv: Sequence[str]) -> list[str]:
        if not self.namespace:
            return [*argv]
        if argv[0] in ("ip", "tc"):
            return [argv[0], "-n", self.namespace, *argv[1:]]
        return ["ip", "netns", "exec", self.namespace, *argv]

    def ask(self, *argv: str, text: str = "") -> list[Any]:
        """Return the lists and objects that a program prints as JSON, lists joined to one."""
        printed = self.run(*argv, text=text).strip()
        found: list[Any] = []
        while printed:
            try:
                value, end = _DECODER.raw_decode(printed)
            except ValueError as error:
                what = f"{' '.join(argv)}: printed no JSON: {printed[:60]!r}"
                raise CannotRedirect(what, hint="install a newer iproute2 or nftables") from error
            found += value if isinstance(value, list) else [value]
            printed = printed[end:].lstrip()
        return found

    def devices(self) -> dict[str, int]:
        """Return the network devices: name to index."""
        return {each["ifname"]: each["ifindex"] for each in self.ask("ip", "-j", "link", "show")}
