"""Seeded warm problems to experiment with, for tests and benchmarks.

Hosts and clients lie evenly in a square whose side is some milliseconds long; the popularity of
services follows Zipf's law, as does how many of them share a boot recipe.
"""

from math import hypot
from random import Random

from placement.problem import CPU, MEMORY
from placement.warm.problem import (
    COLD,
    PAUSED,
    READY,
    SAVED,
    Recipe,
    Rest,
    Sleeper,
    Spare,
    WarmHost,
    WarmProblem,
)

POPULARITY = 0.8  # exponent of Zipf's law, as measured of web requests (Breslau et al., 1999)
SIZES_MIB = (8, 16, 32, 64, 128, 256)  # from a unikernel to a small Linux
COLD_S = (0.2, 4.0)  # uniform between; a unikernel, and a Linux (docs/measurements.md)
SAVED_SHARE, PAUSED_S = 0.3, 0.01  # of the cold start; seconds
DISK, DISK_SHARE = "disk_mib", 4  # of the memory


def warm_problem(
    seed: int,
    *,
    hosts: int = 10,
    services: int = 100,
    recipes: int = 0,
    share: float = 0.3,
    idle_s: float = 60.0,
    requests_s: float = 0.02,
    side_ms: float = 20.0,
    bound_ms: float | None = None,
) -> WarmProblem:
    """Return a problem in which hosts have room for a `share` of all services at once.

    The services have `requests_s` requests a second on average. With `recipes`, every second
    service is of one of so many boot recipes. Equal seeds give equal problems.
    """
    rng = Random(f"warm {seed}")  # noqa: S311 - no secret is made of it
    names = [f"h{i}" for i in range(hosts)]
    spots = {name: (rng.random(), rng.random()) for name in names}
    clients = {f"p{i}": (rng.random(), rng.random()) for i in range(max(1, hosts // 2))}
    speed = {name: rng.uniform(0.7, 1.5) for name in names}
    kinds = {f"r{i}": (rng.choice(SIZES_MIB), rng.uniform(*COLD_S)) for i in range(recipes)}
    sleepers = []
    weights = [1 / (i + 1) ** POPULARITY for i in range(services)]
    total_mib = 0.0
    for i in range(services):
        kind = rng.choice([*kinds]) if kinds and i % 2 else ""
        mib, cold_s = kinds[kind] if kind else (rng.choice(SIZES_MIB), rng.uniform(*COLD_S))
        total_mib += mib
        rate = requests_s * services * weights[i] / sum(weights)
        sleepers.append(
            Sleeper(
                name=f"s{i}",
                rests={name: _rests(mib, cold_s * speed[name]) for name in names},
                rates={rng.choice([*clients]): rate},
                idle_s=idle_s,
                latency_bound_ms=bound_ms,
                recipe=kind,
            )
        )
    shares = [rng.uniform(0.5, 1.5) for _ in names]
    room = [share * total_mib * each / sum(shares) for each in shares]
    return WarmProblem(
        hosts=tuple(
            WarmHost(name, {MEMORY: mib, DISK: DISK_SHARE * mib, CPU: mib / 1024})
            for name, mib in zip(names, room, strict=True)
        ),
        services=tuple(sleepers),
        recipes=tuple(
            Recipe(name, {host: _spare(mib, cold_s * speed[host]) for host in names})
            for name, (mib, cold_s) in kinds.items()
        ),
        latency_ms={
            client: {name: side_ms * hypot(x - a, y - b) for name, (a, b) in spots.items()}
            for client, (x, y) in clients.items()
        },
    )


def _rests(mib: float, cold_s: float) -> tuple[Rest, ...]:
    return (
        Rest(COLD, cold_s),
        Rest(SAVED, SAVED_SHARE * cold_s, {DISK: mib}),
        Rest(PAUSED, PAUSED_S, {MEMORY: mib}),
        Rest(READY, 0.0, {MEMORY: mib, CPU: 0.005}),
    )


def _spare(mib: float, cold_s: float) -> Spare:
    return Spare({MEMORY: mib}, adopt_s=2 * PAUSED_S, miss_s=cold_s, refill_s=cold_s, most=4)
