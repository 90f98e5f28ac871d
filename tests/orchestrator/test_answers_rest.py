"""Whatever happens, an answer never leads to another service while a cache may still hold it."""

from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import NoCapacity
from orchestrator.fleet import Fleet
from orchestrator.model import DnsSettings, Instance, InstanceState, Lab
from orchestrator.store.base import Quarantine
from tests.world import a_host, a_service


@dataclass(frozen=True)
class Said:
    """An answer: which service's address, until when a cache may hold it."""

    service: str
    address: IPv4Address
    until: float


def a_lab(ttls: dict[str, int]) -> Lab:
    host = a_host("h1")
    few = replace(host.network, last=host.network.first)  # one address for two services
    return Lab(
        "lab",
        DnsSettings("edge.test"),
        hosts=(replace(host, network=few),),
        services=tuple(a_service(name, ttl_s=ttl_s) for name, ttl_s in ttls.items()),
    )


@dataclass(frozen=True)
class Life:
    """What becomes of a service: it wakes if it can, is answered for, and sleeps.

    The answer leaves `sent_s` after it was made. Before it sleeps it gets another TTL; after that,
    edgewake may restart, and some time goes by.
    """

    service: str
    sent_s: float
    ttl_s: int
    restart: bool
    wait_s: float


LIVES = st.builds(
    Life,
    st.sampled_from(("a", "b")),
    st.sampled_from((0.0, 0.5)),
    st.sampled_from((0, 1, 5, 60)),
    st.booleans(),
    st.sampled_from((0.25, 1.0, 4.75, 5.0, 59.0)),
)


@dataclass
class Clock:
    """Stands for the module `time`: both clocks show the same."""

    now: float = 1e9

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


@given(st.lists(LIVES, min_size=2, max_size=12))
@settings(max_examples=300)
def test_an_answer_never_leads_to_another_service(lives: list[Life]) -> None:
    with patch("orchestrator.fleet.time", Clock()) as clock:
        live_through(lives, clock)


def live_through(lives: list[Life], clock: Clock) -> None:
    ttls = {"a": 5, "b": 5}
    fleet = Fleet(a_lab(ttls))
    said: list[Said] = []
    rests: dict[str, Quarantine] = {}
    for life in lives:
        for instance in woken(fleet, life.service):
            where = instance.address
            wrong = [old for old in said if old.address == where and old.service != life.service]
            assert not [old for old in wrong if old.until > clock.now]
            (endpoint,) = fleet.answer(life.service)
            said.append(Said(life.service, where, clock.now + life.sent_s + endpoint.ttl_s))
            ttls[life.service] = life.ttl_s
            fleet.use(a_lab(ttls))
            fleet.withdraw(instance)
            assert fleet.answer(life.service) == ()
            until = clock.now + fleet.rest_s(life.service)
            fleet.drop(instance, rest_s=fleet.rest_s(life.service))
            kept = max(until, rests[str(where)].until if str(where) in rests else 0.0)
            rests[str(where)] = Quarantine(instance.host, where, life.service, kept)
        if life.restart:
            fleet = Fleet(a_lab(ttls), rests.values())
        clock.now += life.wait_s


def woken(fleet: Fleet, service: str) -> list[Instance]:
    """Return the instance that a service gets, if there is an address for it."""
    try:
        instance = fleet.reserve(service)
    except NoCapacity:
        return []
    ready = instance.step(InstanceState.READY, ready_at=instance.created_at)
    fleet.put(ready)
    return [ready]
