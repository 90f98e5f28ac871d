"""Hosts, clients and demands spread evenly over a square: the instance of most placement papers.

Latency is proportional to distance. Hosts differ in size, power and price; two resources are scarce
to the same degree. With `classes` there are only so many kinds of demand, as when many unikernels
are copies of few images; without, all differ, which is the hard case.
"""

from random import Random

from placement.generate import _make
from placement.generate.demands import check, named, sized
from placement.generate.instance import Instance, Layout, Node
from placement.problem import Host

CORES = (8, 16, 32)
MIB_PER_CORE = (2048, 4096)
IDLE_W = (30.0, 90.0)  # uniform between; servers of EdgeSimPy's data set idle at about these
CORE_W = 6.0  # for each busy core
HOUR = (0.05, 0.15)  # money: uniform between, times cores/8


def uniform(
    rng: Random,
    *,
    hosts: int = 10,
    services: int = 50,
    utilisation: float = 0.6,
    classes: int = 0,
    populations: int = 10,
    replicas: int = 1,
    bound_ms: float = 0.0,
    side_ms: float = 20.0,
) -> Instance:
    """Return hosts and populations in a square whose side is `side_ms` long.

    Each service is asked for by one population. `classes` of 0 makes all services differ in size,
    else that many kinds of (size, population) are drawn. See `placement.generate.demands.sized` for
    `utilisation`; `bound_ms` of 0 is no latency bound.
    """
    check("hosts", hosts, least=1)
    check("services", services, least=1)
    check("populations", populations, least=1)
    check("classes", classes, least=0)
    check("side_ms", side_ms, above=0)
    nodes = {name: _node(rng, "host") for name in named("h", hosts)}
    clients = {name: _node(rng, "clients") for name in named("p", populations)}
    machines = [_host(rng, name) for name in nodes]
    kinds = [rng.choice(list(clients)) for _ in range(classes or services)]
    shapes = [rng.randrange(classes) for _ in range(services)] if classes else range(services)
    rate = [rng.uniform(1, 10) for _ in kinds]
    wanted = [
        (name, {kinds[shape]: rate[shape]})
        for name, shape in zip(named("s", services), shapes, strict=True)
    ]
    demands = sized(
        rng,
        machines,
        wanted,
        utilisation=utilisation,
        replicas=replicas,
        bound_ms=bound_ms,
        shapes=shapes,
    )
    latency_ms = {
        population: {name: side_ms * here.distance(there) for name, there in nodes.items()}
        for population, here in clients.items()
    }
    layout = Layout(
        {**nodes, **clients},
        hosts={name: name for name in nodes},
        populations={name: name for name in clients},
    )
    return Instance(_make.problem(machines, demands, latency_ms), layout)


def _node(rng: Random, kind: str) -> Node:
    return Node(rng.random(), rng.random(), kind)


def _host(rng: Random, name: str) -> Host:
    cores = rng.choice(CORES)
    idle = rng.uniform(*IDLE_W)
    return _make.host(
        name,
        cpu=cores,
        memory_mib=cores * rng.choice(MIB_PER_CORE),
        idle_w=idle,
        busy_w=idle + CORE_W * cores,
        host_hour=rng.uniform(*HOUR) * cores / min(CORES),
    )
