"""Which population a source address belongs to."""

from ipaddress import IPv4Address, IPv4Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dns_boot.clients import Clients
from orchestrator.model import Population

POPULATIONS = (
    Population("everyone", (ip_network("0.0.0.0/0"),), "core"),
    Population("campus", (ip_network("10.1.0.0/16"), ip_network("2001:db8::/32")), "r1"),
    Population("lecture-hall", (ip_network("10.1.7.0/24"), ip_network("2001:db8:7::/48")), "r2"),
    Population("one-machine", (ip_network("10.1.7.9/32"),), "r3"),
)


@pytest.mark.parametrize(
    ("source", "population"),
    [
        ("192.0.2.1", "everyone"),
        ("10.1.255.255", "campus"),
        ("10.1.7.8", "lecture-hall"),
        ("10.1.7.9", "one-machine"),
        ("::ffff:10.1.7.9", "one-machine"),
        ("2001:db8::1", "campus"),
        ("2001:db8:7::1", "lecture-hall"),
        ("2001:db9::1", ""),
        ("fe80::1%eth0", ""),
        ("::1", ""),
    ],
)
def test_the_longest_prefix_wins(source: str, population: str) -> None:
    client = Clients(POPULATIONS).of(source)
    assert client.population == population
    assert str(client.address) == source.removeprefix("::ffff:").partition("%")[0]


def test_the_first_of_two_equal_subnets_wins() -> None:
    twice = (
        Population("a", (ip_network("10.0.0.0/8"),), "r"),
        Population("b", (ip_network("10.0.0.0/8"),), "r"),
    )
    assert Clients(twice).of("10.2.3.4").population == "a"


def test_a_source_that_is_no_address_is_nobody() -> None:
    client = Clients(POPULATIONS).of("/run/socket")
    assert client.address is None
    assert client.population == ""


def test_a_source_is_looked_up_once() -> None:
    clients = Clients(POPULATIONS)
    assert clients.of("10.1.7.9") is clients.of("10.1.7.9")


def _prefix(byte: int, length: int) -> IPv4Network:
    return IPv4Network(((byte >> 8 - length << 8 - length) << 24, length))


PREFIXES = st.builds(_prefix, st.integers(0, 255), st.integers(0, 8))


@given(st.lists(PREFIXES, max_size=6, unique=True), PREFIXES)
def test_an_answer_is_never_believed_where_another_would_be_given(
    subnets: list[IPv4Network], asked: IPv4Network
) -> None:
    """Within the scope of an answer, no address belongs to another population (RFC 7871, 7.2.1).

    Where the resolver told too few bits for that, the scope is longer than what it told.
    """
    populations = [Population(f"p{n % 3}", (net,), "r") for n, net in enumerate(subnets)]
    clients = Clients(populations)
    name, scope = clients.within(asked)
    assert 0 <= scope <= 32
    if scope > asked.prefixlen:
        others = [net for n, net in enumerate(subnets) if f"p{n % 3}" != name]
        assert any(net.subnet_of(asked) and net != asked for net in others)
        return
    scoped = IPv4Network((asked.network_address, scope), strict=False)
    assert {clients.of(str(address)).population for address in _some(scoped)} == {name}


def _some(network: IPv4Network) -> list[IPv4Address]:
    """Return an address of each /8 of a network (all subnets here are /8 or larger)."""
    count = max(1, 1 << 8 - network.prefixlen)
    return [network.network_address + (n << 24) for n in range(count)]
