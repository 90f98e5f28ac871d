"""Which population a source address belongs to."""

from ipaddress import ip_network

import pytest

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
