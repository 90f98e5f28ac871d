"""Which rungs this machine's kernel and programs have: each is tried in a throw-away namespace."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import CannotRedirect
from orchestrator.linux import namespaces
from orchestrator.rules.parse import parse
from orchestrator.steering.redirect.backend import BackEnd
from orchestrator.steering.redirect.base import Redirect, Rung
from orchestrator.steering.redirect.commands import Commands
from orchestrator.steering.redirect.nft import NftBackEnd
from orchestrator.steering.redirect.tc import TC_RUNGS, TcBackEnd

_NAME = "ew-probe-"
_OWNER = "probe"
_SAMPLE = parse("ip version 4 and tcp and dst 203.0.113.10 and dst port 80")
_MAC = "02:00:00:00:00:01"


@dataclass(frozen=True, slots=True)
class Ability:
    """Why a rung cannot be used, and why it cannot give frames another MAC; empty if it can."""

    why_not: str = ""
    why_no_mac: str = ""


def probe() -> dict[Rung, Ability]:
    """Try all rungs, which takes some 0.2 s; CannotRedirect if there is nowhere to try them."""
    try:
        return _probed()
    except OSError as error:
        raise CannotRedirect(
            f"there is no network namespace to try in what can steer: {error}", hint="run as root"
        ) from error


def back_ends(owner: str, commands: Commands) -> dict[Rung, BackEnd]:
    """Return a back end for each rung."""
    filters, chains = TcBackEnd(owner, commands), NftBackEnd(owner, commands)
    return {rung: filters if rung in TC_RUNGS else chains for rung in Rung}


def _probed() -> dict[Rung, Ability]:
    _sweep()
    name = f"{_NAME}{os.getpid()}"
    commands = Commands(name)
    namespaces.make(name)
    try:
        pair = ("link", "add", "name", "in", "type", "veth", "peer", "name", "out")
        commands.run("ip", *pair)
        for device in ("in", "out"):
            commands.run("ip", "link", "set", device, "up")
        return {rung: _ability(rung, end) for rung, end in back_ends(_OWNER, commands).items()}
    finally:
        namespaces.remove(name)


def _ability(rung: Rung, end: BackEnd) -> Ability:
    with_mac = Redirect("probe", _SAMPLE, "in", "out", _MAC)
    without = Redirect("probe", _SAMPLE, "in", "out")
    return Ability(_why_not(rung, end, without), _why_not(rung, end, with_mac))


def _why_not(rung: Rung, end: BackEnd, redirect: Redirect) -> str:
    try:
        end.found()
        end.add(rung, redirect, redirect.digest())
        for each in end.found():
            end.remove(each)
    except CannotRedirect as error:
        return str(error)
    return ""


def _sweep() -> None:
    """Remove namespaces of probes that were killed."""
    for name in namespaces.names():
        process = name.removeprefix(_NAME)
        if name.startswith(_NAME) and not Path("/proc", process).exists():
            with suppress(OSError):
                namespaces.remove(name)
