"""Where a lab wants more than guards can do: hosts whose traffic does not pass this machine.

Pure. For whoever applies a lab or has it checked; the guards themselves say it again when they are
opened (`orchestrator.traffic`).
"""

from orchestrator.model import Lab, Reply

WHAT_TO_DO = (
    "run an edgewake there; or set `wake_on_traffic: false` and no `reply: early`, "
    "and let DNS wake its services"
)


def unguarded(lab: Lab) -> dict[str, str]:
    """Return what will not happen on hosts that are other machines, by host; empty if all will."""
    woken = any(service.wake_on_traffic for service in lab.services)
    early = [service.name for service in lab.services if service.reply is Reply.EARLY]
    lost = ["packets do not wake what sleeps there (`wake_on_traffic`)"] if woken else []
    if early:
        lost.append(f"questions wait for the guest in spite of `reply: early` ({', '.join(early)})")
    if not lost:
        return {}
    why = f"on another machine: {'; '.join(lost)}"
    return {host.name: why for host in lab.hosts if host.is_elsewhere}
