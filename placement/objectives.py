"""What a plan is judged by, as expressions over the model's columns: each term one function.

`placement.evaluate` says once more, and without this, what each term of a finished plan is; tests
compare the two. A new term is one function and one line here, and one of each there. No term is
ever below 0, so 0 is a bound on any weighted sum.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from placement.matrix import Entries, Ints, Linear
from placement.model import Model
from placement.problem import CPU, Demand, Malformed
from placement.rows import moves, network, requests

WORST = "worst_latency_ms"  # minimised by bisection, never as a sum


def latency_ms(model: Model) -> Linear:
    """Mean one-way latency of a request to the copy that serves it, in ms, over all demands.

    sum over c,p,h of rate[c,p] * latency[p,h] * share / sum of all rates
    """
    found = Linear()
    if model.arrays.total_rate > 0:
        found.add_all(requests.latency(model), 1 / model.arrays.total_rate)
    return found


def wake_ms(model: Model) -> Linear:
    """Return the expected wait of a request for a cold start, in ms.

    sum over c,h,f of rate[c] * P(cold)[c] * boot[c,f] * factor[h] * n[c,h,f] / replicas[c]
    / sum of all rates
    """
    arrays, found = model.arrays, Linear()
    if not arrays.total_rate or not arrays.pairs:
        return found
    requests_s = np.bincount(arrays.rate_class, arrays.rate, minlength=arrays.classes)
    cold = np.array([cold_share(arrays.demand(c)) for c in range(arrays.classes)])
    weight = requests_s * cold / np.maximum(arrays.replicas, 1) / arrays.total_rate
    boots = any(d.boot_ms or d.flavours for d in arrays.problem.demands)
    if not weight.any() or not boots:
        return found
    boot = np.array([_boot_ms(model, i) for i in range(arrays.pairs)])
    factor = np.array([host.boot_factor for host in arrays.problem.hosts])
    found.add(model.n, weight[arrays.pair_class] * boot * factor[arrays.pair_host])
    return found


def energy_w(model: Model) -> Linear:
    """Electrical power in W: idle power of hosts that are on, plus the share of busy cores.

    sum over h of idle[h] * y[h] + sum over c,h,f of (busy[h] - idle[h]) * cpu / room[h,cpu] * n
    """
    arrays, found = model.arrays, Linear()
    idle = np.array([host.idle_w for host in arrays.problem.hosts])
    busy = np.array([host.busy_w for host in arrays.problem.hosts])
    if idle.any():
        found.add(model.on(), idle)
    k = arrays.resources.index(CPU)
    room = arrays.room[:, k]
    slope = np.divide(busy - idle, room, out=np.zeros(len(room)), where=room > 0)
    found.add(model.n, slope[arrays.pair_host] * arrays.need[:, k])
    return found


def cost_hour(model: Model) -> Linear:
    """Money per hour: hosts that are on, units in use, and what a copy costs at a host.

    sum over h of host[h] * y[h] + sum over c,h,f of (sum over k of unit[h,k] * need + at[c,h]) * n
    """
    arrays, found = model.arrays, Linear()
    hosts = arrays.problem.hosts
    fixed = np.array([host.host_hour for host in hosts])
    if fixed.any():
        found.add(model.on(), fixed)
    unit = np.array([[host.unit_hour.get(k, 0.0) for k in arrays.resources] for host in hosts])
    unit = unit.reshape(len(hosts), len(arrays.resources))
    found.add(model.n, (unit[arrays.pair_host] * arrays.need).sum(axis=1))
    number = {name: h for h, name in enumerate(arrays.hosts)}
    for c in range(arrays.classes):
        if at := arrays.demand(c).cost_at:
            price = np.zeros(len(hosts))
            for name, money in at.items():
                if name in number:
                    price[number[name]] = money
            pairs = arrays.of(c)
            found.add(model.n[pairs], price[arrays.pair_host[pairs]])
    return found


def network_mbps(model: Model) -> Linear:
    """Mbit/s on all links together, each times the link's cost.

    sum over t,e of cost[e] * mbps[t] * f[t,e]
    """
    return network.carried(model)


def hosts_on(model: Model) -> Linear:
    """Count of hosts that run anything: sum over h of y[h]."""
    found = Linear()
    found.add(model.on(), 1.0)
    return found


def utilisation(model: Model) -> Linear:
    """Return the largest share of any resource in use: t, where room[h,k] * t >= load."""
    arrays, found = model.arrays, Linear()
    if not arrays.pairs:
        return found
    t = model.builder.add_columns("t", 1, math.inf)
    entries = Entries()
    count = len(arrays.resources)
    for k in range(count):
        room = arrays.room[arrays.pair_host, k]
        some = (arrays.need[:, k] > 0) & (room > 0)
        row: Ints = arrays.pair_host[some] * count + k
        entries.add(row, model.n[some], arrays.need[some, k] / room[some])
    rows = np.arange(len(arrays.hosts) * count)
    entries.add(rows, t, -1.0)
    h, resource = np.divmod(rows, count)
    model.builder.add_rows("peak", len(rows), entries, upper=0.0, h=h, k=resource)
    found.add(t, 1.0)
    return found


def migrations(model: Model) -> Linear:
    """Return copies that run now and do not stay, times cost; no more than will run count.

    sum over demands of cost * (min(copies now, replicas) - copies that stay)
    """
    costs = [model.arrays.demand(c).move_cost for c in range(model.arrays.classes)]
    return moves.moved(model, np.array(costs, dtype=float))


def broken(model: Model) -> Linear:
    """Wishes broken: sum over wishes of weight times amount (see `placement.rules`)."""
    return model.broken


def unplaced(model: Model) -> Linear:
    """Soft copies left out, each times its weight: sum over soft c of weight[c] * u[c]."""
    arrays, found = model.arrays, Linear()
    soft = np.flatnonzero(model.left_out >= 0)
    found.add(model.left_out[soft], [arrays.demand(int(c)).weight for c in soft])
    return found


def unserved_rps(model: Model) -> Linear:
    """Return requests per second to soft demands that no copy serves."""
    return requests.unserved(model)


def lost_revenue(model: Model) -> Linear:
    """Money per hour of slices refused: sum over s of revenue[s] * (1 - alpha[s])."""
    found = Linear()
    for each in model.arrays.problem.slices:
        if each.revenue is not None:
            found.add(model.admitted[each.name], -each.revenue)
            found.constant += each.revenue
    return found


TERMS: Mapping[str, Callable[[Model], Linear]] = {
    "latency_ms": latency_ms,
    "wake_ms": wake_ms,
    "energy_w": energy_w,
    "cost_hour": cost_hour,
    "network_mbps": network_mbps,
    "hosts_on": hosts_on,
    "utilisation": utilisation,
    "migrations": migrations,
    "broken": broken,
    "unplaced": unplaced,
    "unserved_rps": unserved_rps,
    "lost_revenue": lost_revenue,
}

NAMES = (*TERMS, WORST)


def expression(model: Model, name: str) -> Linear:
    """Return a term; `Malformed` for the one that cannot be summed."""
    if name == WORST:
        raise Malformed(name, "can be a limit, or alone in weights or in an order, not in a sum")
    return TERMS[name](model)


def cold_share(demand: Demand) -> float:
    """Return the probability that a request finds all copies asleep."""
    if demand.cold is not None:
        return demand.cold
    if demand.idle_s is None:
        return 0.0
    return math.exp(-sum(demand.rates.values()) * demand.idle_s)


def _boot_ms(model: Model, pair: int) -> float:
    demand, flavour = (
        model.arrays.demand(int(model.arrays.pair_class[pair])),
        model.arrays.flavour(pair),
    )
    return demand.boot_ms if flavour.boot_ms is None else flavour.boot_ms
