"""Demands for a set of hosts and populations: how large, how popular, asked for by whom.

All generators size their demands here, so that `utilisation` means the same everywhere: the share
of the cores, and of the memory, of all hosts together that all copies of all demands take.
"""

from collections.abc import Callable, Mapping, Sequence
from random import Random

from placement.generate import _make
from placement.problem import Demand, Host, Malformed

LARGEST_SHARE = 0.5  # of the largest host: what one copy may need at most
POPULARITY = 0.8  # exponent of Zipf's law, as measured of web requests (Breslau et al., 1999)
SPREAD = 3  # a population sends 1/SPREAD to SPREAD times what a middling one does
BISECTIONS = 60


def sized(
    rng: Random,
    hosts: Sequence[Host],
    wanted: Sequence[tuple[str, Mapping[str, float]]],
    *,
    utilisation: float,
    replicas: int = 1,
    bound_ms: float = 0.0,
    by_rate: bool = False,
    shapes: Sequence[int] = (),
) -> list[Demand]:
    """Return demands of given names and rates whose sizes add up to a utilisation.

    Cores are drawn uniformly between 0.5 and 1.5 times the mean, memory between 0.25 and 1.75; with
    `by_rate`, cores are proportional to the requests. `shapes[i]` numbers the shape of demand i:
    those with the same number have the same size (none: all differ).

    Raises:
        Malformed: the demands are too few to fill the hosts so far.

    """
    check("utilisation", utilisation, above=0.0, most=1.0)
    check("replicas", replicas, least=1, most=len(hosts))
    numbers = shapes or range(len(wanted))
    drawn = {n: (rng.uniform(0.5, 1.5), rng.uniform(0.25, 1.75)) for n in sorted(set(numbers))}
    cores = [drawn[number][0] for number in numbers]
    if by_rate:
        cores = [sum(rates.values()) for _, rates in wanted]
    memory = [drawn[number][1] for number in numbers]
    have = _make.capacity(hosts)
    cores, memory = (
        _filling(shares, utilisation * sum(each) / replicas, LARGEST_SHARE * max(each))
        for shares, each in zip((cores, memory), have, strict=True)
    )
    return [
        _make.demand(
            name,
            cpu=round(cpu, 4),
            memory_mib=round(mib, 1),
            rates=rates,
            replicas=replicas,
            bound_ms=bound_ms,
        )
        for (name, rates), cpu, mib in zip(wanted, cores, memory, strict=True)
    ]


def asked(
    rng: Random, populations: Sequence[str], *, services: int, total_rate: float, reach: int
) -> list[tuple[str, dict[str, float]]]:
    """Return names and rates of services that populations ask for.

    Populations differ in how much they ask, services in how popular they are (Zipf). Each service
    is asked for by at most `reach` populations, drawn at random.
    """
    check("services", services, least=1)
    check("reach", reach, least=1)
    check("total_rate", total_rate, above=0.0)
    weight = {name: SPREAD ** rng.uniform(-1, 1) for name in populations}
    popularity = [1 / (rank + 1) ** POPULARITY for rank in range(services)]
    rng.shuffle(popularity)
    scale = total_rate / sum(popularity)
    wanted = []
    for name, popular in zip(named("s", services), popularity, strict=True):
        near = sorted(rng.sample(populations, min(reach, len(populations))))
        asking = sum(weight[each] for each in near)
        wanted.append((name, {each: popular * scale * weight[each] / asking for each in near}))
    return wanted


def named(prefix: str, count: int) -> list[str]:
    """Return names that sort as they count: s00, s01, ..."""
    width = len(str(count - 1))
    return [f"{prefix}{number:0{width}}" for number in range(count)]


def check(
    name: str,
    value: float,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
) -> None:
    """Raise `Malformed` if a parameter is out of its range."""
    if least is not None and value < least:
        raise Malformed(name, f"must be at least {least:g}, not {value:g}")
    if above is not None and not value > above:
        raise Malformed(name, f"must be above {above:g}, not {value:g}")
    if most is not None and value > most:
        raise Malformed(name, f"must be at most {most:g}, not {value:g}")


def _filling(shares: Sequence[float], total: float, most: float) -> list[float]:
    """Return amounts proportional to shares, none above `most`, that add up to a total."""
    if len(shares) * most < total:
        raise Malformed(
            "services",
            f"{len(shares)} are too few for this utilisation: none may need more than "
            f"{LARGEST_SHARE:.0%} of the largest host",
        )

    def cut(scale: float) -> list[float]:
        return [min(most, share * scale) for share in shares]

    return cut(_root(lambda scale: sum(cut(scale)) - total, most / min(shares)))


def _root(rising: Callable[[float], float], most: float) -> float:
    """Return where a rising function passes through 0, between 0 and `most`."""
    low, high = 0.0, most
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return high
