"""What Prometheus is told of a lab: services, instances, and what hosts have and draw.

Labels are names of the lab and words for states; `web.metrics` joins it with the rest.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from orchestrator.metrics import Labels
from orchestrator.model import InstanceState, Rung
from orchestrator.views import HostStatus, ServiceStatus, Status
from web.families import Family, family

MIB = 1 << 20
STATES = ("asleep", "waking", "awake", "stopping")


def families(status: Status) -> Iterator[Family]:
    """Yield what there is to be told."""
    yield from _services(status.services)
    yield from _hosts(status.hosts)


def _services(services: Sequence[ServiceStatus]) -> Iterator[Family]:
    states = Counter(service.state for service in services)
    yield family(
        "edgewake_services",
        "gauge",
        "Services of the lab by state; asleep is healthy.",
        (((("state", state),), states[state]) for state in (*STATES, *_new(states))),
    )
    rungs = Counter(str(service.rung) for service in services)
    yield family(
        "edgewake_services_by_rung",
        "gauge",
        "Services of the lab by the rung from which a wake would be shortest.",
        (((("rung", rung),), rungs[rung]) for rung in Rung),
    )
    yield family(
        "edgewake_services_in_trouble",
        "gauge",
        "Services whose last wake failed, that were lost, or that cannot be ended.",
        [((), sum(bool(service.trouble) for service in services))],
    )
    found = Counter(
        (instance.host, str(instance.state)) for each in services for instance in each.instances
    )
    hosts = sorted({host for host, _ in found})
    yield family(
        "edgewake_instances",
        "gauge",
        "Instances of services, by host and state.",
        (
            ((("host", host), ("state", str(state))), found[host, str(state)])
            for host in hosts
            for state in InstanceState
        ),
    )


def _new(states: Iterable[str]) -> list[str]:
    return sorted(set(states) - set(STATES))


def _hosts(hosts: Sequence[HostStatus]) -> Iterator[Family]:
    plain = (
        ("edgewake_host_reachable", "Whether the host answers.", _reachable),
        (
            "edgewake_host_refused",
            "Whether its network is wrong: nothing goes there.",
            _off,
        ),
        ("edgewake_host_draining", "Whether the host is being drained, or is drained.", _draining),
        ("edgewake_host_spares", "Anonymous instances that rest there.", _spares),
    )
    for name, about, value in plain:
        yield family(name, "gauge", about, ((_named(each), value(each)) for each in hosts))
    yield family(
        "edgewake_host_cpu_cores",
        "gauge",
        "Processors of a host: usable by guests, spoken for by ours, and free by its own word.",
        (
            ((*_named(each), ("kind", kind)), cores)
            for each in hosts
            for kind, cores, _ in _amounts(each)
        ),
    )
    yield family(
        "edgewake_host_memory_bytes",
        "gauge",
        "Memory of a host: usable by guests, spoken for by ours, and free by its own word.",
        (
            ((*_named(each), ("kind", kind)), memory)
            for each in hosts
            for kind, _, memory in _amounts(each)
        ),
    )
    yield family(
        "edgewake_host_power_watts",
        "gauge",
        "Power that a host is reckoned to draw, by its figures in the lab file.",
        (
            (_named(each), watts)
            for each in hosts
            if (watts := _watts(each)) is not None and not each.lost
        ),
    )


def _named(each: HostStatus) -> Labels:
    return (("host", each.host.name),)


def _reachable(each: HostStatus) -> float:
    return float(not each.lost)


def _off(each: HostStatus) -> float:
    return float(bool(each.refused))


def _draining(each: HostStatus) -> float:
    return float(each.drain is not None)


def _spares(each: HostStatus) -> float:
    return each.spares


def _amounts(each: HostStatus) -> Iterator[tuple[str, float, int]]:
    """Yield kinds of capacity with cores and bytes; a lost host says nothing of what is free."""
    amounts = {"usable": each.host.usable, "used": each.used, "free": each.free}
    for kind, amount in amounts.items():
        if amount is not None and not (kind == "free" and each.lost):
            yield kind, amount.cpu, amount.memory_mib * MIB


def _watts(each: HostStatus) -> float | None:
    """Return the power by the linear model of placement; None without figures."""
    energy, cores = each.host.energy, each.host.capacity.cpu
    if not energy.busy_w and not energy.idle_w:
        return None
    busy = min(1.0, each.used.cpu / cores) if cores else 0.0
    return energy.idle_w + max(0.0, energy.busy_w - energy.idle_w) * busy
