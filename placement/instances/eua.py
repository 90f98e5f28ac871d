"""Edge user allocation: as many users as possible on edge servers that cover them, few servers.

P. Lai et al., "Optimal edge user allocation in edge computing with variable sized vector bin
packing", ICSOC 2018. The files say where servers and users are (latitude and longitude). Coverage,
capacity and demand are drawn, as in the paper: so cases are named by their seed, and there is no
table of optima to compare with.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from placement.instances.base import Instance, read
from placement.matrix import Floats
from placement.problem import Demand, Host, Malformed, Options, Problem
from placement.rules import Fence

EARTH_M = 6_371_000.0
RESOURCES = ("cpu", "memory", "storage", "bandwidth")  # units without a name, as in the paper
SIZES = ((1, 2, 1, 2), (2, 3, 3, 4), (5, 7, 6, 6))  # what a user needs
MOST_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class Case:
    """Which servers and users, and what is drawn for them.

    `servers` and `users` are how many are taken, at random (None: all). The radius of a server is
    uniform in `radius_m`, each of its four capacities normal with `mean` and `deviation`.
    """

    users: int | None = None
    servers: int | None = None
    seed: int = 0
    radius_m: tuple[float, float] = (100.0, 150.0)
    mean: float = 35.0
    deviation: float = 10.0


def read_eua(servers: Path, users: Path, case: Case | None = None) -> Instance:
    """Return a case: hosts are servers, and soft demands the users, each near some servers.

    Its order is `unplaced`, then `hosts_on`: most users first, then fewest servers.

    Raises:
        Malformed: a file is not in the format, or has fewer rows than the case asks for.

    """
    case = case or Case()
    chance = np.random.default_rng(case.seed)
    there = _chosen(chance, servers, _spots(servers, "LATITUDE", "LONGITUDE"), case.servers)
    who = _chosen(chance, users, _spots(users, "Latitude", "Longitude"), case.users)
    radius = chance.uniform(*case.radius_m, len(there))
    capacity = np.maximum(1, chance.normal(case.mean, case.deviation, (len(there), len(RESOURCES))))
    size = chance.integers(len(SIZES), size=len(who))
    near = _metres(who, there) <= radius
    hosts = tuple(
        Host(f"s{i}", dict(zip(RESOURCES, map(float, row), strict=True)))
        for i, row in enumerate(np.round(capacity, 3).tolist())
    )
    demands = tuple(
        Demand(f"u{j}", dict(zip(RESOURCES, map(float, SIZES[kind]), strict=True)), least=0)
        for j, kind in enumerate(size.tolist())
    )
    fences = tuple(
        Fence(frozenset({f"u{j}"}), frozenset(f"s{i}" for i in np.flatnonzero(row)))
        for j, row in enumerate(near)
    )
    name = f"eua-{len(who)}-users-{len(there)}-servers-seed-{case.seed}"
    options = Options(weights={}, order=("unplaced", "hosts_on"))
    return Instance(name, Problem(hosts, demands, rules=fences), options)


def _spots(path: Path, latitude: str, longitude: str) -> Floats:
    """Return latitude and longitude of each row, in degrees."""
    rows = csv.DictReader(io.StringIO(read(path)))
    found = []
    for row in rows:
        try:
            spot = float(row[latitude]), float(row[longitude])
        except (KeyError, TypeError, ValueError) as error:
            where = f"{path.name}:{rows.line_num}"
            raise Malformed(where, f"{latitude} and {longitude} must be numbers") from error
        if not (abs(spot[0]) <= 90 and abs(spot[1]) <= 180):
            raise Malformed(f"{path.name}:{rows.line_num}", f"{spot} is no place on earth")
        found.append(spot)
        if len(found) > MOST_ROWS:
            raise Malformed(path.name, f"more than {MOST_ROWS} rows")
    return np.array(found).reshape(len(found), 2)


def _chosen(chance: np.random.Generator, path: Path, spots: Floats, many: int | None) -> Floats:
    if many is None:
        return spots
    if many > len(spots):
        raise Malformed(path.name, f"has {len(spots)} rows, {many} are asked for")
    return spots[np.sort(chance.choice(len(spots), many, replace=False))]


def _metres(one: Floats, other: Floats) -> Floats:
    """Return great circle distances, by the haversine formula."""
    a, b = np.radians(one)[:, None, :], np.radians(other)[None, :, :]
    half = np.sin((a - b) / 2) ** 2
    angle = half[..., 0] + np.cos(a[..., 0]) * np.cos(b[..., 0]) * half[..., 1]
    return np.asarray(2 * EARTH_M * np.arcsin(np.minimum(1.0, np.sqrt(angle))))
