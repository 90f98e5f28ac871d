"""The budget of a cold wake on QEMU: what of it is ours, libvirt's, QEMU's and the guest's.

Each family in turn is woken cold through edgewake and libvirt, built by hand with the shortest QEMU
command up to where its processor would run, and booted by hand until it answers; one of each, again
and again, so that whatever else the machine does hits all three alike. From them:

- ours: from the client's question to its answer, without what follows;
- libvirt: from asking the hypervisor until the guest runs, without QEMU's own start;
- QEMU: its own start, as by hand: the program, its libraries, the machine that it builds;
- guest: from its processor's start until it answers its readiness probe.

edgewake is a process of its own, as in use. Needs root. Xen's budget is `benchmarks.xen`'s.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields
from ipaddress import IPv4Address

from rich.console import Console
from rich.table import Table

from benchmarks.by_hand import built_s, plugged, spec_of, started
from benchmarks.wakes import BRIDGE, FAMILIES, NUMBER, PORT, Box, lab_text, running
from orchestrator.labfile import load_lab
from orchestrator.state_dir import StateDir

CARD = "ewbudget0"
HAND_ADDRESS = IPv4Address(f"10.{NUMBER}.0.9")  # outside of the pool


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of one wake, and of the guest by hand beside it."""

    ours: float
    libvirt: float
    qemu: float
    guest: float
    client: float  # the whole wake, as the client saw it
    hand: float  # from starting QEMU by hand to the first answer


def woken(box: Box, family: str) -> tuple[float, float, float]:
    """Wake a family; return seconds of the client, the hypervisor and the guest."""
    client_s = box.ask(family)
    at = dict(box.last_wake(family)["stamps"])
    return client_s, at["start"] - at["asked"], at["answer"] - at["start"]


def measure(box: Box, family: str, rounds: int) -> list[Spent]:
    """Wake, build and boot a family in turn, so many times."""
    lab = load_lab(box.folder.parent / "lab.yaml", images_dir=StateDir(box.folder).images)
    spec = spec_of(lab, family, HAND_ADDRESS)
    box.ask(family)  # starts what starts once
    spent = []
    with plugged(BRIDGE, CARD) as card:
        for _ in range(rounds):
            box.sleep(family, "cold")  # before all three: a guest that runs takes processor time
            qemu_s = built_s(spec, spec.memory_mib, card)
            with started(spec, spec.memory_mib, card, HAND_ADDRESS) as (_, boot):
                hand_s = boot.answer_s
            client_s, hypervisor_s, guest_s = woken(box, family)
            ours_s = client_s - hypervisor_s - guest_s
            libvirt_s = hypervisor_s - qemu_s
            spent.append(Spent(ours_s, libvirt_s, qemu_s, guest_s, client_s, hand_s))
    return spent


def median(spent: Sequence[Spent]) -> Spent:
    """Return the median of each part by itself; they need not add up to that of the whole."""
    parts = [[getattr(each, part.name) for each in spent] for part in fields(Spent)]
    return Spent(*map(statistics.median, parts))


def table(found: dict[str, Spent], rounds: int) -> Table:
    """Return the budget of each family: milliseconds, and hundredths of the whole."""
    shown = Table(title=f"Budget of a cold wake, p50 of {rounds}: ms (%)", title_justify="left")
    heads = ("family", "ours", "libvirt", "QEMU", "guest", "all", "by hand", "x by hand")
    for head in heads:
        shown.add_column(head, justify="left" if head == "family" else "right")
    for family, spent in found.items():
        parts = (spent.ours, spent.libvirt, spent.qemu, spent.guest)
        shown.add_row(
            family,
            *(f"{part * 1e3:.1f} ({part / spent.client:.1%})" for part in parts),
            f"{spent.client * 1e3:.0f}",
            f"{spent.hand * 1e3:.0f}",
            f"{spent.client / spent.hand:.2f}",
        )
    return shown


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--rounds", type=int, default=20, help="wakes of each family (20)")
    options.add_argument("--family", choices=FAMILIES, help="only this one")
    chosen = options.parse_args()
    families = (chosen.family,) if chosen.family else FAMILIES
    with running(lab_text(), PORT) as box:
        found = {family: median(measure(box, family, chosen.rounds)) for family in families}
    Console(width=120).print(table(found, chosen.rounds))


if __name__ == "__main__":
    main()
