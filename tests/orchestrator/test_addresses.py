"""The address pools: their rules as properties, their order of preference as sentences."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from orchestrator.addresses import AddressGone, AddressPools, PoolExhausted, PoolUsage
from orchestrator.model import Capacity, GuestNetwork, Host, Instance, InstanceState, mac_of
from orchestrator.store.base import Quarantine


def host_of(first: str, last: str, *, name: str = "edge1", gateway: str = "10.0.0.1") -> Host:
    network = GuestNetwork(
        name="lab",
        subnet=IPv4Network("10.0.0.0/16"),
        gateway=IPv4Address(gateway),
        first=IPv4Address(first),
        last=IPv4Address(last),
    )
    return Host(name=name, uri="test:///", capacity=Capacity(4, 4096), network=network)


def instance_at(address: IPv4Address, service: str = "web", host: str = "edge1") -> Instance:
    return Instance(
        name=f"ew-lab-{service}-0",
        service=service,
        host=host,
        address=address,
        mac=mac_of(address),
        state=InstanceState.READY,
        created_at=0.0,
    )


FOUR = host_of("10.0.0.10", "10.0.0.13")
ALL_FOUR = {IPv4Address("10.0.0.10") + number for number in range(4)}


# --- sentences ------------------------------------------------------------------------------------


def test_a_service_gets_its_last_address_back_even_while_it_rests() -> None:
    pools = AddressPools()
    had = pools.take(FOUR, "web", 0.0)
    pools.give_back(had, "web", rest_until=1000.0)
    assert pools.take(FOUR, "web", 1.0) == had


def test_the_most_recent_of_several_comes_back_first() -> None:
    pools = AddressPools()
    one, two = pools.take(FOUR, "web", 0.0), pools.take(FOUR, "web", 0.0)
    pools.give_back(two, "web", 0.0)
    pools.give_back(one, "web", 0.0)
    assert [pools.take(FOUR, "web", 1.0) for _ in range(2)] == [one, two]


def test_what_is_no_services_yet_takes_an_address_that_nobody_is_missed_at() -> None:
    pools = AddressPools()
    old, new = pools.take(FOUR, "web", 0.0), pools.take(FOUR, "web", 0.0)
    for address in (old, new):
        pools.give_back(address, "web", 5.0)
    fresh = {pools.take_spare(FOUR, f"spare.{number}", 9.0) for number in range(2)}
    assert fresh == ALL_FOUR - {old, new}
    with pytest.raises(PoolExhausted):
        pools.take_spare(FOUR, "spare.2", 4.0)  # both rest still
    assert pools.take_spare(FOUR, "spare.2", 9.0) == old, "the one it would not get back"
    assert pools.last_had(FOUR) == {"web": new}
    with pytest.raises(PoolExhausted):
        pools.take_spare(FOUR, "spare.3", 9.0)
    assert pools.take(FOUR, "web", 9.0) == new


def test_an_address_that_was_handed_over_is_the_new_holders() -> None:
    pools = AddressPools()
    address = pools.take_spare(FOUR, "spare.0", 0.0)
    pools.hand_over(address, "spare.0", "web")
    assert (pools.keeps(FOUR, "web"), pools.rests("web", 0.0)) == (False, False), "it has it"
    pools.give_back(address, "spare.0", 9.0)  # it is not its own any more
    assert not pools.keeps(FOUR, "spare.0")
    pools.give_back(address, "web", 9.0)
    assert (pools.keeps(FOUR, "web"), pools.rests("web", 8.0)) == (True, True)
    assert not pools.rests("web", 9.0)
    assert pools.take(FOUR, "web", 1.0) == address


def test_the_first_choice_is_the_same_after_all_state_was_lost() -> None:
    wide = host_of("10.0.1.0", "10.0.255.254")
    names = [f"service-{number}" for number in range(50)]
    first = {name: AddressPools().take(wide, name, 0.0) for name in names}
    pools = AddressPools()
    later = {name: pools.take(wide, name, 0.0) for name in reversed(names)}
    same = [name for name in names if later[name] == first[name]]
    assert len(same) > 45  # a few share their first choice


def test_never_used_addresses_go_before_rested_ones() -> None:
    pools = AddressPools()
    had = pools.take(FOUR, "a", 0.0)
    pools.give_back(had, "a", 0.0)
    others = {pools.take(FOUR, name, 10.0) for name in "bcd"}
    assert others == ALL_FOUR - {had}
    assert pools.take(FOUR, "e", 10.0) == had


def test_a_service_may_take_back_the_address_it_had_and_no_other() -> None:
    pools = AddressPools()
    had = pools.take(FOUR, "web", 0.0)
    with pytest.raises(AddressGone, match=f"{had} is not web's any more"):
        pools.take_back(FOUR, "web", had)
    pools.give_back(had, "web", 50.0)
    assert pools.last_had(FOUR) == {"web": had}
    with pytest.raises(AddressGone):
        pools.take_back(FOUR, "other", had)
    pools.take_back(FOUR, "web", had)
    assert pools.last_had(FOUR) == {}
    with pytest.raises(AddressGone):
        pools.take_back(FOUR, "web", had)


def test_an_address_that_another_got_is_not_the_last_one_any_more() -> None:
    one = host_of("10.0.0.10", "10.0.0.10")
    pools = AddressPools()
    had = pools.take(one, "web", 0.0)
    pools.give_back(had, "web", 1.0)
    assert pools.last_had(host_of("10.0.0.11", "10.0.0.12")) == {}
    assert pools.last_had(one) == {"web": had}
    pools.take(one, "other", 2.0)
    pools.give_back(had, "other", 3.0)
    assert pools.last_had(one) == {"other": had}
    with pytest.raises(AddressGone):
        pools.take_back(one, "web", had)


def test_the_one_that_rested_longest_goes_first() -> None:
    pools = AddressPools()
    had = {name: pools.take(FOUR, name, 0.0) for name in "abcd"}
    for name, until in (("a", 30.0), ("b", 10.0), ("c", 40.0), ("d", 20.0)):
        pools.give_back(had[name], name, until)
    order = [pools.take(FOUR, f"new-{number}", 100.0) for number in range(4)]
    assert order == [had["b"], had["d"], had["a"], had["c"]]


def test_a_rest_ends_exactly_when_it_was_said_to() -> None:
    one = host_of("10.0.0.10", "10.0.0.10")
    pools = AddressPools()
    pools.give_back(pools.take(one, "web", 0.0), "web", rest_until=50.0)
    with pytest.raises(PoolExhausted):
        pools.take(one, "other", 49.999)
    assert pools.take(one, "other", 50.0) == IPv4Address("10.0.0.10")


def test_a_promised_rest_is_not_shortened_by_a_later_give_back() -> None:
    one = host_of("10.0.0.10", "10.0.0.10")
    pools = AddressPools()
    for until in (50.0, 5.0):
        pools.give_back(pools.take(one, "web", 0.0), "web", until)
    with pytest.raises(PoolExhausted):
        pools.take(one, "other", 49.0)


def test_giving_back_twice_or_what_another_has_does_nothing() -> None:
    one = host_of("10.0.0.10", "10.0.0.10")
    pools = AddressPools()
    address = pools.take(one, "web", 0.0)
    pools.give_back(address, "web", 0.0)
    pools.give_back(address, "web", 999.0)
    assert pools.take(one, "other", 1.0) == address
    pools.give_back(address, "web", 0.0)
    with pytest.raises(PoolExhausted):
        pools.take(one, "third", 1.0)


def test_an_exhausted_pool_says_how_many_and_until_when() -> None:
    pools = AddressPools()
    had = {name: pools.take(FOUR, name, 0.0) for name in "abcd"}
    pools.give_back(had["a"], "a", 130.0)
    pools.give_back(had["b"], "b", 112.5)
    with pytest.raises(PoolExhausted) as caught:
        pools.take(FOUR, "e", 100.0)
    assert str(caught.value) == (
        "no free address in 10.0.0.10-10.0.0.13 on host edge1: of 4, 2 are in use and 2 rest; "
        "the next becomes free in 12.5 s"
    )
    assert caught.value.usage == PoolUsage(total=4, in_use=2, resting=2, next_free_at=112.5)


def test_a_pool_all_in_use_promises_nothing() -> None:
    pools = AddressPools()
    for name in "abcd":
        pools.take(FOUR, name, 0.0)
    with pytest.raises(PoolExhausted, match=r"of 4, 4 are in use and 0 rest$"):
        pools.take(FOUR, "e", 0.0)


@pytest.mark.parametrize(
    ("first", "last", "gateway", "expected"),
    [
        ("10.0.0.0", "10.0.0.3", "10.0.0.1", {"10.0.0.2", "10.0.0.3"}),
        ("10.0.255.253", "10.0.255.255", "10.0.0.1", {"10.0.255.253", "10.0.255.254"}),
        ("10.0.0.1", "10.0.0.1", "10.0.0.1", set()),
    ],
)
def test_gateway_network_and_broadcast_addresses_are_never_given(
    first: str, last: str, gateway: str, expected: set[str]
) -> None:
    host = host_of(first, last, gateway=gateway)
    pools = AddressPools()
    assert {str(pools.take(host, f"s{n}", 0.0)) for n in range(len(expected))} == expected
    with pytest.raises(PoolExhausted, match=f"of {len(expected)}, {len(expected)} are in use"):
        pools.take(host, "one-more", 0.0)


def test_two_hosts_on_one_subnet_have_pools_of_their_own() -> None:
    left = host_of("10.0.0.10", "10.0.0.11", name="left")
    right = host_of("10.0.0.12", "10.0.0.13", name="right")
    pools = AddressPools()
    taken = {host.name: {pools.take(host, s, 0.0) for s in "ab"} for host in (left, right)}
    assert taken["left"] | taken["right"] == ALL_FOUR
    with pytest.raises(PoolExhausted):
        pools.take(left, "c", 0.0)


def test_an_address_that_went_along_to_another_host_is_neither_hosts_to_give() -> None:
    left = host_of("10.0.0.10", "10.0.0.10", name="left")
    right = host_of("10.0.0.11", "10.0.0.11", name="right")
    moved = IPv4Address("10.0.0.10")
    pools = AddressPools([Quarantine("left", moved, "old", 5.0)])
    pools.adopt(instance_at(moved, "web", "right"))
    assert pools.take(right, "other", 0.0) == IPv4Address("10.0.0.11")
    with pytest.raises(PoolExhausted):
        pools.take(left, "other", 10.0)
    pools.give_back(moved, "web", rest_until=30.0)
    with pytest.raises(PoolExhausted):
        pools.take(left, "other", 20.0)
    assert pools.take(left, "other", 30.0) == moved
    assert pools.usage(right, 30.0).in_use == 1


def test_of_two_hosts_that_had_an_address_the_last_to_have_it_counts() -> None:
    address = IPv4Address("10.0.0.10")
    rests = [Quarantine("b", address, "new", 20.0), Quarantine("a", address, "old", 10.0)]
    assert AddressPools(rests).take(FOUR, "new", 0.0) == address


def test_what_was_stored_is_respected() -> None:
    rests, held = IPv4Address("10.0.0.10"), IPv4Address("10.0.0.11")
    pools = AddressPools([Quarantine("edge1", rests, "web", 50.0)])
    pools.adopt(instance_at(held, "video"))
    others = {pools.take(FOUR, name, 0.0) for name in "ab"}
    assert others == ALL_FOUR - {rests, held}
    with pytest.raises(PoolExhausted):
        pools.take(FOUR, "c", 0.0)
    assert pools.take(FOUR, "web", 0.0) == rests


def test_an_address_found_with_two_guests_is_free_when_both_are_gone() -> None:
    address = IPv4Address("10.0.0.10")
    one = host_of("10.0.0.10", "10.0.0.10")
    pools = AddressPools()
    pools.adopt(instance_at(address, "a"))
    pools.adopt(instance_at(address, "b"))
    pools.give_back(address, "a", 0.0)
    with pytest.raises(PoolExhausted):
        pools.take(one, "c", 1.0)
    pools.give_back(address, "b", 0.0)
    assert pools.take(one, "c", 1.0) == address


def test_a_lab_with_another_range_uses_it_and_remembers_the_old_one() -> None:
    pools = AddressPools()
    had = {name: pools.take(FOUR, name, 0.0) for name in "abcd"}
    pools.give_back(had["a"], "a", 0.0)
    moved = host_of("10.0.0.20", "10.0.0.20")
    assert pools.take(moved, "a", 1.0) == IPv4Address("10.0.0.20")
    with pytest.raises(PoolExhausted, match="of 1, 1 are in use and 0 rest"):
        pools.take(moved, "b", 1.0)
    assert pools.take(FOUR, "e", 1.0) == had["a"]


def test_a_large_pool_costs_no_more_than_a_small_one() -> None:
    """A scan per query would make the full /16 thousands of times slower, not a few times."""

    def seconds(host: Host, fill: int) -> float:
        pools = AddressPools()
        for number in range(fill):
            address = pools.take(host, f"s{number}", 0.0)
            pools.give_back(address, f"s{number}", 1.0)
        start = time.perf_counter()
        for number in range(2000):
            address = pools.take(host, f"new{number}", 2.0)
            pools.give_back(address, f"new{number}", 2.0)
        return time.perf_counter() - start

    small = seconds(host_of("10.0.0.10", "10.0.0.73"), 64)
    large = seconds(host_of("10.0.0.2", "10.0.255.254"), 65533)
    assert large < 50 * small


def test_the_bookkeeping_does_not_grow_with_every_wake() -> None:
    pools = AddressPools()
    for number in range(5000):
        address = pools.take(FOUR, "web", float(number))
        pools.give_back(address, "web", float(number))
    assert len(pools._pools["edge1"]._by_rest) < 200


def test_threads_never_share_an_address() -> None:
    host = host_of("10.0.0.10", "10.0.0.59")
    pools = AddressPools()
    held: Counter[IPv4Address] = Counter()
    lock = threading.Lock()
    twice: list[IPv4Address] = []

    def work(thread: int) -> None:
        for number in range(300):
            address = pools.take(host, f"s{thread}-{number % 3}", float(number))
            with lock:
                held[address] += 1
                if held[address] > 1:
                    twice.append(address)
            with lock:
                held[address] -= 1
            pools.give_back(address, f"s{thread}-{number % 3}", 0.0)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert twice == []


# --- properties -----------------------------------------------------------------------------------

SERVICES = st.sampled_from(["a", "b", "c", "d", "e", "f"])
HOSTS = {
    "left": host_of("10.0.0.10", "10.0.0.13", name="left"),
    "right": host_of("10.0.0.14", "10.0.0.17", name="right", gateway="10.0.0.15"),
}


class Pools(RuleBasedStateMachine):
    """A naive model beside the real thing: sets, and a list of promises."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.pools = AddressPools()
        self.now = 0.0
        self.in_use: dict[tuple[str, IPv4Address], str] = {}
        self.last: dict[tuple[str, IPv4Address], tuple[str, float]] = {}

    @rule(target=held, host=st.sampled_from(sorted(HOSTS)), service=SERVICES)
    def take(self, host: str, service: str) -> object:
        free = self._free_for(host, service)
        try:
            address = self.pools.take(HOSTS[host], service, self.now)
        except PoolExhausted as error:
            assert free == set()
            self._check_usage(host, error.usage)
            return multiple()
        assert address in free
        own = {each for each in free if self.last.get((host, each), ("",))[0] == service}
        assert not own or address in own
        self.in_use[host, address] = service  # `free` has shown that nobody else has it
        return (host, address, service)

    @rule(taken=consumes(held), rest_s=st.floats(0, 100))
    def give_back(self, taken: tuple[str, IPv4Address, str], rest_s: float) -> None:
        host, address, service = taken
        until = self.now + rest_s
        if (host, address) in self.last:
            until = max(until, self.last[host, address][1])
        self.pools.give_back(address, service, self.now + rest_s)
        del self.in_use[host, address]
        self.last[host, address] = (service, until)

    @rule(taken=held)
    def give_back_in_the_name_of_another(self, taken: tuple[str, IPv4Address, str]) -> None:
        _host, address, _ = taken
        self.pools.give_back(address, "stranger", self.now)

    @rule(seconds=st.floats(0, 60))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def restart(self) -> None:
        """Build the pools anew from what a store would have kept."""
        rests = [Quarantine(host, a, s, until) for (host, a), (s, until) in self.last.items()]
        self.pools = AddressPools(rests)
        for (host, address), service in self.in_use.items():
            self.pools.adopt(instance_at(address, service, f"not {host}"))  # as one that moved

    @invariant()
    def usage_is_right(self) -> None:
        for name, host in HOSTS.items():
            self._check_usage(name, self.pools.usage(host, self.now))

    def _free_for(self, host: str, service: str) -> set[IPv4Address]:
        network = HOSTS[host].network
        numbers = range(int(network.first), int(network.last) + 1)
        all_of_it = {IPv4Address(number) for number in numbers} - {network.gateway}
        return {
            address
            for address in all_of_it
            if (host, address) not in self.in_use and self._may_have(host, address, service)
        }

    def _may_have(self, host: str, address: IPv4Address, service: str) -> bool:
        who, until = self.last.get((host, address), (service, 0.0))
        return who == service or until <= self.now

    def _check_usage(self, host: str, usage: PoolUsage) -> None:
        in_use = sum(1 for each, _ in self.in_use if each == host)
        rests = [
            until
            for (each, address), (_, until) in self.last.items()
            if each == host and until > self.now and (each, address) not in self.in_use
        ]
        assert (usage.in_use, usage.resting) == (in_use, len(rests))
        assert usage.next_free_at == min(rests, default=None)


TestPools = Pools.TestCase
TestPools.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
