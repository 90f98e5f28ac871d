"""What the lab file says of a host, held against what the host says of itself.

A lab can be planned while its hosts are away, so the file says what they are; when one answers,
this tells where the two differ. Pure: facts in, sentences out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.model import Host, cpu_ranges


@dataclass(frozen=True, slots=True)
class Difference:
    """A fact that the lab file has wrong, so that nothing can be started there: what, and the cure.

    `about` is the key of the host in the lab file.
    """

    about: str
    what: str
    cure: str


def differences(host: Host, machine: str, cores: int) -> Iterator[Difference]:
    """Yield what a host is not that the lab file says it is.

    `machine` is its architecture by libvirt's name, `cores` its number of processors.
    """
    if machine != host.architecture:
        yield Difference(
            "arch",
            f"the lab file says that it has {host.architecture} processors, and it has {machine}",
            f"write `arch: {machine}` in its entry in the lab file",
        )
    absent = [cpu for cpu in host.guest_cpus if cpu >= cores]
    if absent:
        yield Difference(
            "guest_cpus",
            f"the lab file lets guests run on its processors {cpu_ranges(host.guest_cpus)}, and it "
            f"has {cores}, so {cpu_ranges(absent)} are not there",
            f"correct `guest_cpus` in its entry in the lab file: 0-{cores - 1} are all",
        )
