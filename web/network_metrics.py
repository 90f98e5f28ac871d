"""What Prometheus is told of a virtual network; `web.metrics` writes it.

Labels are the names of the lab: each end of a link is a `router` and its `peer`.
"""

from collections.abc import Iterator, Sequence

from orchestrator.metrics import Labels
from orchestrator.network import AppState, PortCounters
from orchestrator.network_monitor import Sample
from web.families import Family, family

MIB = 1 << 20
_PORTS = (  # the end of a metric's name, the counter, and what it counts
    ("receive_bytes", "rx_bytes", "Bytes that a router received at one end of a link or stub."),
    ("transmit_bytes", "tx_bytes", "Bytes that a router sent at one end of a link or stub."),
    ("receive_packets", "rx_packets", "Packets that a router received at one end."),
    ("transmit_packets", "tx_packets", "Packets that a router sent at one end."),
    ("dropped_packets", "drops", "Packets that were to leave and could not, lost or without room."),
)


def families(samples: Sequence[Sample]) -> Iterator[Family]:
    """Yield what there is to be told of networks, in the order of their names."""
    if not samples:
        return
    for name, key, about in _PORTS:
        yield family(
            f"edgewake_router_{name}_total",
            "counter",
            about,
            (
                (_port(each.network, port), float(getattr(port, key)))
                for each in samples
                for port in each.counters
            ),
        )
    yield family(
        "edgewake_router_cpu_seconds_total",
        "counter",
        "Processor time of a router's programs since edgewake began to look.",
        (
            ((("network", each.network), ("router", router)), seconds)
            for each in samples
            for router, seconds in sorted((each.cpu_s or {}).items())
        ),
    )
    yield from _links(samples)
    yield from _apps(samples)


def _links(samples: Sequence[Sample]) -> Iterator[Family]:
    states = [(each.network, state) for each in samples for state in each.links]
    yield family(
        "edgewake_link_up",
        "gauge",
        "Whether a link carries packets; and by what it is made slow.",
        (
            (
                (
                    ("network", network),
                    ("link", state.link.name),
                    ("engine", str(state.engine)),
                ),
                float(state.link.up),
            )
            for network, state in states
        ),
    )
    yield family(
        "edgewake_link_bandwidth_bytes_per_second",
        "gauge",
        "What a link can carry in each direction, if that is limited.",
        (
            ((("network", network), ("link", state.link.name)), bandwidth * 1e6 / 8)
            for network, state in states
            if (bandwidth := state.link.quality.bandwidth_mbps) is not None
        ),
    )


def _apps(samples: Sequence[Sample]) -> Iterator[Family]:
    states = [(each.network, state) for each in samples for state in each.apps]
    kinds = (
        ("edgewake_app_running", "gauge", "Whether a program on a router runs.", _running),
        ("edgewake_app_cpu_seconds_total", "counter", "Processor time of a program.", _cpu),
        ("edgewake_app_memory_bytes", "gauge", "Resident memory of a program.", _memory),
    )
    for name, kind, about, value in kinds:
        yield family(
            name, kind, about, ((_app(network, state), value(state)) for network, state in states)
        )


def _running(state: AppState) -> float:
    return float(state.running)


def _cpu(state: AppState) -> float:
    return state.cpu_s


def _memory(state: AppState) -> float:
    return state.memory_mib * MIB


def _port(network: str, port: PortCounters) -> Labels:
    return ("network", network), ("router", port.router), ("peer", port.peer)


def _app(network: str, state: AppState) -> Labels:
    return ("network", network), ("router", state.app.router), ("app", state.app.name)
