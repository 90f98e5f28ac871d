"""Whatever happens, an answer never leads to another service while a cache may still hold it."""

from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from orchestrator.errors import NoCapacity
from orchestrator.fleet import Fleet
from orchestrator.model import AnswerOrder, DnsSettings, Instance, InstanceState, Lab
from orchestrator.store.base import Quarantine
from tests.world import a_host, a_service

NAMES = ("a", "b", "c", "d")
TTLS = st.sampled_from((0, 1, 5, 60))


@dataclass(frozen=True)
class Said:
    """An answer: which service's address, until when a cache may hold it."""

    service: str
    address: IPv4Address
    until: float


def a_lab(ttls: dict[str, int]) -> Lab:
    host = a_host("h1")
    few = replace(host.network, last=host.network.first)  # one address for four services
    return Lab(
        "lab",
        DnsSettings("edge.test"),
        hosts=(replace(host, network=few),),
        services=tuple(
            a_service(name, ttl_s=ttl_s, answer=AnswerOrder.ROTATED) for name, ttl_s in ttls.items()
        ),
    )


class Answers(RuleBasedStateMachine):
    """Services wake, are answered for, sleep, get other TTLs; edgewake restarts; time goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1e9
        self.ttls = dict.fromkeys(NAMES, 5)
        self.fleet = Fleet(a_lab(self.ttls))
        self.said: list[Said] = []
        self.quarantines: dict[IPv4Address, Quarantine] = {}

    @rule(seconds=st.sampled_from((0.1, 0.25, 1.0, 4.75, 5.0, 59.0)))
    def time_goes_on(self, seconds: float) -> None:
        self.now += seconds
        self.said = [said for said in self.said if said.until > self.now]

    @rule(name=st.sampled_from(NAMES))
    def wakes(self, name: str) -> None:
        if not self.fleet.of(name):
            try:
                instance = self.fleet.reserve(name, now=self.now)
            except NoCapacity:
                return
            self.fleet.put(instance.step(InstanceState.READY, ready_at=self.now))

    @rule(name=st.sampled_from(NAMES), delay_s=st.sampled_from((0.0, 0.5)))
    def is_answered_for(self, name: str, delay_s: float) -> None:
        """Have an answer made now and sent a little later."""
        for endpoint in self.fleet.answer(name):
            until = self.now + delay_s + endpoint.ttl_s
            self.said.append(Said(name, endpoint.address, until))

    @rule(name=st.sampled_from(NAMES))
    def sleeps(self, name: str) -> None:
        for instance in self.fleet.of(name):
            self.fleet.withdraw(instance)
            assert self.fleet.answer(name) == ()
            self.end(instance)

    def end(self, instance: Instance) -> None:
        until = self.fleet.rest_until(instance.service, self.now)
        before = self.quarantines.get(instance.address)
        kept = max(until, before.until) if before else until
        self.quarantines[instance.address] = Quarantine(
            instance.host, instance.address, instance.service, kept
        )
        self.fleet.drop(instance, rest_until=until)

    @rule(name=st.sampled_from(NAMES), ttl_s=TTLS)
    def gets_another_ttl(self, name: str, ttl_s: int) -> None:
        self.ttls[name] = ttl_s
        self.fleet.use(a_lab(self.ttls))

    @rule()
    def edgewake_restarts_while_all_sleep(self) -> None:
        for name in NAMES:
            self.sleeps(name)
        self.fleet = Fleet(a_lab(self.ttls), self.quarantines.values())

    @invariant()
    def no_cached_answer_leads_to_another_service(self) -> None:
        for instance in self.fleet.instances():
            wrong = [
                said
                for said in self.said
                if said.address == instance.address
                and said.service != instance.service
                and said.until > self.now
            ]
            assert not wrong


TestAnswers = Answers.TestCase
TestAnswers.settings = settings(max_examples=150, stateful_step_count=40)
