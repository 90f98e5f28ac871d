"""Wakes from every rung of the ladder on Xen, against `xl create` of the same guest.

As part 1 of `benchmarks.wakes`, with hello as PVH on a test bed of this run's own (`make xenbed`):
real Xen, emulated. By hand is ``xl create`` with our vif script, and with Xen's own.

    python -m benchmarks.wakes_xen [--rounds 5]
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from benchmarks import xen
from benchmarks.wakes import add_rungs, by_rung, rungs_table, running
from images.build import hello
from orchestrator.hypervisors.xen_script import script
from orchestrator.model import Guest
from tests.xenbed.bed import Bed
from tests.xenbed.build import default_cache

PORT = 5386
BY_HAND = 9  # of its address in the bed's subnet: below the pool
LAB = """
name: wakes
zone: wakes.test
dns:
  listen: 127.0.0.1:{port}
  wake_budget: {{per_client: 10000/s, burst: 10000, total: 10000/s, total_burst: 10000}}
  rate_limit: {{per_second: 0}}
hosts:
  bed:
    uri: {uri}
    capacity: {{cpu: 8, memory: {memory_mib} MiB}}
    network: {{name: "bridge:{bridge}", subnet: {lan.subnet}, gateway: {lan.gateway},
              pool: {first}-{last}}}
images:
  hello: {{kernel: built:hello/kernel}}
services:
  hello:
    image: hello
    resources: {{cpu: 0.1, memory: {guest_mib} MiB}}
    ready: {{http: {{port: 80}}}}
    idle: {{after: never, paused: never, saved: never}}
    deadline: 120 s
"""


def lab_text(bed: Bed) -> str:
    """Return a lab whose one host is the bed."""
    lan = bed.state.lan
    return LAB.format(
        port=PORT,
        uri=bed.libvirt_uri,
        memory_mib=bed.state.guests_mib,
        guest_mib=xen.MEMORY_MIB,
        bridge=xen.BRIDGE,
        lan=lan,
        first=lan.subnet[20],
        last=lan.subnet[99],
    )


@contextmanager
def handmade(bed: Bed) -> Iterator[Guest]:
    """Give the guest as `xl` boots it; its kernel and our vif script are in dom0."""
    host = xen.host_of(bed)
    address = host.network.subnet[BY_HAND]
    with tempfile.TemporaryDirectory() as folder:
        guest = xen.guest_of(host, hello.build(Path(folder) / "hello").kernel, address)
        in_dom0 = Path(bed.put(guest.boot.kernel or Path(folder), "bench-hello"))
        bed.ssh(
            "sh", "-c", f"cat >{xen.OURS_IN_DOM0} && chmod 755 {xen.OURS_IN_DOM0}", stdin=script()
        )
        yield replace(guest, boot=replace(guest.boot, kernel=in_dom0))


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wakes_xen")
    parser.add_argument("--rounds", type=int, default=5, help="wakes from each rung (%(default)s)")
    options = parser.parse_args()
    bed = Bed.start(default_cache(), owned=True)
    table = rungs_table("Wakes on Xen, from the question to the answer")
    try:
        with running(lab_text(bed), PORT) as box, handmade(bed) as guest:
            seen = by_rung(box, "hello", options.rounds)
            scripts = {"xl, our vif script": xen.OURS_IN_DOM0, "xl, Xen's vif script": xen.STOCK}
            hands = {
                way: [xen.by_hand(bed, guest, vif).answered for _ in range(options.rounds)]
                for way, vif in scripts.items()
            }
            add_rungs(table, "hello", seen, hands)
        Console().print(table)
    finally:
        bed.stop()


if __name__ == "__main__":
    main()
