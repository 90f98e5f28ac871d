"""Where the time of a wake on Xen goes, and what of it is ours.

hello, our sample unikernel, is booted again and again by edgewake's driver (libvirt, over TCP) and
by hand (``xl create`` in dom0), with Xen's own vif script and with ours, by turns in one run on one
host: a test bed of this run's own (`make xenbed`). The ratio is edgewake's median over that of `xl`
with the same script. "vif script" is what a start takes longer than that of a guest without a card.

    python -m benchmarks.xen [--runs 10]
"""

import argparse
import shlex
import socket
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from images.bootspec import BootSpec, Nic
from images.build import hello
from images.facts import Entry
from orchestrator.hypervisors.libvirt_driver import LibvirtHypervisor
from orchestrator.hypervisors.xen_script import script
from orchestrator.model import Capacity, Guest, GuestNetwork, Host, Mark, mac_of
from tests.xenbed.bed import Bed
from tests.xenbed.build import default_cache
from tests.xenbed.plan import Wanted

OWNER = "bench"
BED = "bench"
BRIDGE = "xenbr0"
MEMORY_MIB = 8
PATIENCE_S = 60.0
STOCK = "vif-bridge"
OURS_IN_DOM0 = "/etc/xen/scripts/vif-edgewake"
GET = b"GET / HTTP/1.0\r\nHost: bench\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Times:
    """One boot, in seconds: until the guest is built, runs, and has answered (0: was not asked).

    `asked` is what our driver took before it called libvirt; it is part of `built`.
    """

    asked: float
    built: float
    runs: float
    answered: float


def wait_for_answer(address: IPv4Address) -> None:
    """Return when the guest serves its page; TimeoutError if it never does."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection((str(address), 80), 0.2) as client:
            client.settimeout(2.0)
            client.sendall(GET)
            if client.recv(16):
                return
        time.sleep(0.002)
    raise TimeoutError(f"no answer from {address}")


def by_driver(driver: LibvirtHypervisor, guest: Guest) -> Times:
    """Boot a guest as edgewake does."""
    stamps: dict[str, float] = {}
    began = time.monotonic()
    driver.start(guest, lambda stage: stamps.update({stage: time.monotonic() - began}))
    answered = 0.0
    if guest.boot.nics:
        wait_for_answer(guest.mark.address)
        answered = time.monotonic() - began
    driver.stop(guest.name)
    return Times(stamps["asked"], stamps["define"], stamps["start"], answered)


def by_hand(bed: Bed, guest: Guest, vif_script: str) -> Times:
    """Boot the same guest with ``xl create``, in a shell of dom0's that is there already."""
    nic = guest.boot.nics[0]
    config = (
        f'name="xl-{guest.name}"\ntype="pvh"\nmemory={MEMORY_MIB}\nvcpus=1\n'
        f'kernel="{guest.boot.kernel}"\ncmdline="{guest.boot.cmdline}"\n'
        f'vif=["bridge={BRIDGE},mac={nic.mac},script={vif_script}"]\n'
    )
    commands = (
        f"cat >/tmp/bench.cfg <<'END'\n{config}END\necho go; read -r _\n"
        f"xl create -q /tmp/bench.cfg && echo created; read -r _\nxl destroy xl-{guest.name}\n"
    )
    argv = [str(bed.state.folder / "ssh"), "dom0", shlex.join(["sh", "-c", commands])]
    with subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as shell:
        assert shell.stdin is not None  # noqa: S101 - we asked for pipes
        assert shell.stdout is not None  # noqa: S101
        _expect(shell.stdout.readline(), b"go")
        began = time.monotonic()
        shell.stdin.write(b"\n")
        shell.stdin.flush()
        _expect(shell.stdout.readline(), b"created")
        runs = time.monotonic() - began
        wait_for_answer(guest.mark.address)
        answered = time.monotonic() - began
        shell.stdin.write(b"\n")
        shell.stdin.close()
    return Times(0.0, runs, runs, answered)


def _expect(line: bytes, word: bytes) -> None:
    if line.strip() != word:
        raise RuntimeError(f"dom0 said {line!r} instead of {word!r}")


def measure(bed: Bed, runs: int, folder: Path) -> dict[str, list[Times]]:
    """Boot in every way, by turns."""
    host = host_of(bed)
    ours = LibvirtHypervisor(host, OWNER, console_dir=folder / "a")
    stock = LibvirtHypervisor(host, OWNER, console_dir=folder / "b", vif_script=STOCK)
    guest = guest_of(host, hello.build(folder / "hello").kernel, host.network.first)
    in_dom0 = Path(bed.put(guest.boot.kernel or folder, "bench-hello"))
    bed.ssh("sh", "-c", f"cat >{OURS_IN_DOM0} && chmod 755 {OURS_IN_DOM0}", stdin=script())
    handmade = replace(guest, boot=replace(guest.boot, kernel=in_dom0))
    bare = replace(guest, boot=replace(guest.boot, nics=()))
    ways: dict[str, Callable[[], Times]] = {
        "edgewake, our script": lambda: by_driver(ours, guest),
        "edgewake, Xen's script": lambda: by_driver(stock, guest),
        "edgewake, no card": lambda: by_driver(ours, bare),
        "xl, our script": lambda: by_hand(bed, handmade, OURS_IN_DOM0),
        "xl, Xen's script": lambda: by_hand(bed, handmade, STOCK),
    }
    try:
        by_driver(ours, guest)  # sends files, and starts what starts once
        found: dict[str, list[Times]] = defaultdict(list)
        for _run in track(range(runs), description="booting", transient=True):
            for way, boot in ways.items():
                found[way].append(boot())
        return found
    finally:
        ours.close()
        stock.close()


def host_of(bed: Bed) -> Host:
    """Return a bed as a host of a lab."""
    lan = bed.state.lan
    network = GuestNetwork(
        f"bridge:{BRIDGE}", lan.subnet, lan.gateway, lan.subnet[10], lan.subnet[99]
    )
    return Host("bed", bed.libvirt_uri, Capacity(1, bed.state.guests_mib), network)


def guest_of(host: Host, kernel: Path, address: IPv4Address) -> Guest:
    """Return hello, as it is booted here."""
    boot = BootSpec(
        kernel=kernel,
        memory_mib=MEMORY_MIB,
        entry=Entry.PVH,
        cmdline=f"ip={address}/{host.network.subnet.prefixlen}",
        nics=(Nic(host.network.name, mac_of(address)),),
    )
    return Guest("bench", Mark(OWNER, "bench", "bench", host.name, address), boot)


def table(found: dict[str, list[Times]]) -> Table:
    """Return the figures, in seconds."""
    shown = Table(title="A wake of hello on Xen, seconds: p50 / p95")
    for column in (
        "",
        "ours",
        "libvirt+libxl",
        "vif script",
        "resume",
        "guest",
        "all",
        "ratio to xl",
    ):
        shown.add_column(column, justify="left" if not column else "right")
    bare = statistics.median(times.built - times.asked for times in found["edgewake, no card"])
    for way, all_times in tuple(found.items()):
        answered = [times.answered for times in all_times if times.answered]
        built = [times.built - times.asked for times in all_times]
        hand = [times.answered for times in found[f"xl, {way.partition(', ')[2]}"]]
        mine = way.startswith("edgewake")
        shown.add_row(
            way,
            f"{statistics.median(times.asked for times in all_times):.3f}" if mine else "",
            f"{bare:.2f}" if mine else _figures(built) + " *",
            _figures([max(0.0, each - bare) for each in built]) if mine and answered else "",
            _figures([times.runs - times.built for times in all_times]) if mine else "",
            _figures([times.answered - times.runs for times in all_times]) if answered else "",
            _figures(answered) if answered else _figures(built),
            f"{statistics.median(answered) / statistics.median(hand):.2f}" if hand else "",
        )
    shown.caption = "* with its vif script and its own start"
    return shown


def _figures(values: list[float]) -> str:
    ordered = sorted(values)
    worst = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return f"{statistics.median(ordered):.2f} / {worst:.2f}"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.xen")
    parser.add_argument("--runs", type=int, default=10, help="boots of each kind (%(default)s)")
    options = parser.parse_args()
    bed = Bed.start(default_cache(), Wanted(BED), owned=True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            Console(width=120).print(table(measure(bed, options.runs, Path(folder))))
    finally:
        bed.stop()


if __name__ == "__main__":
    main()
