"""Where guests are sent: what is left to libvirt, and what a Xen host is made sure to have."""

import socket
from ipaddress import IPv4Network, ip_address
from pathlib import Path

import pytest

from orchestrator.errors import StartFailed
from orchestrator.hypervisors.migration_address import (
    address_of,
    own_address_of,
    read_addresses,
)
from orchestrator.model import Capacity, GuestNetwork, Host

TCP = "xen+tcp://127.0.0.1:99/system"
SAID = """\
1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever
3: xenbr0    inet 10.9.0.2/24 brd 10.9.0.255 scope global xenbr0\\       valid_lft forever
4: tun0    inet 10.8.0.1 peer 10.8.0.2/32 scope global tun0\\       valid_lft forever
3: xenbr0    inet6 fd00::2/64 scope global \\       valid_lft forever
3: xenbr0    inet6 fe80::5054:ff:fe12:3456/64 scope link \\       valid_lft forever
end
"""


def a_host(uri: str, named: str = "") -> Host:
    subnet = IPv4Network("10.9.0.0/24")
    network = GuestNetwork("n", subnet, subnet[1], subnet[2], subnet[3])
    return Host("pc2", uri, Capacity(1, 1), network, migration_address=named)


def over_ssh(folder: Path, said: str) -> str:
    """Return a URI whose ssh is a program that says so, whatever it is told."""
    (folder / "said").write_text(said)
    program = folder / "ssh"
    program.write_text(f"#!/bin/sh\nexec cat {folder}/said\n")
    program.chmod(0o755)
    return f"xen+ssh://root@pc2/system?command={program}"


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Make names known here, and no others; addresses stand for themselves."""
    known: dict[str, list[str]] = {"pc2": ["127.0.1.1", "10.9.0.2"]}
    asked = socket.getaddrinfo

    def found(name: str, *_: object, **__: object) -> object:
        if name in known:
            return [each for place in known[name] for each in asked(place, None)]
        return asked(name, None, flags=socket.AI_NUMERICHOST)

    monkeypatch.setattr(socket, "getaddrinfo", found)
    return known


@pytest.mark.parametrize(
    ("uri", "named", "address"),
    [
        ("qemu:///system", "", ""),
        ("qemu+tcp://127.0.0.1:99/system", "", ""),
        ("xen+ssh://root@pc1/system", "", "tcp://pc1"),
        ("xen+ssh://root@pc1/system", "10.0.0.2", "tcp://10.0.0.2"),
        ("qemu+tls://[fd00::2]/system", "", "tcp://[fd00::2]"),
    ],
)
def test_where_memory_is_sent_to(uri: str, named: str, address: str) -> None:
    assert address_of(a_host(uri, named)) == address


@pytest.mark.parametrize(
    ("named", "address"),
    [
        ("10.9.0.7", "tcp://10.9.0.7"),
        ("fd00::7", "tcp://[fd00::7]"),
        ("pc2", "tcp://10.9.0.2"),  # not what its own /etc/hosts, or ours, calls it, too
    ],
)
def test_where_a_host_has_no_shell_an_address_will_do(named: str, address: str) -> None:
    assert own_address_of(a_host(TCP, named)) == address


@pytest.mark.parametrize(
    ("uri", "named", "why"),
    [
        (TCP, "", "nothing says at which address"),
        ("xen:///system", "", "nothing says at which address"),
        (TCP, "nosuchname", "its name nosuchname leads to no address"),
        (TCP, "127.0.0.2", "its name 127.0.0.2 leads to no address"),
        (TCP, "0.0.0.0", "its name 0.0.0.0 leads to no address"),
        (TCP, "fe80::1", "its name fe80::1 leads to no address"),
        ("xen+ssh://root@alias/system", "", "its name alias leads to no address"),
    ],
)
def test_without_an_address_a_xen_host_is_asked_for_nothing(uri: str, named: str, why: str) -> None:
    with pytest.raises(StartFailed, match=why) as caught:
        own_address_of(a_host(uri, named))
    assert caught.value.hint == "set migration_address of pc2 to an address that pc2 itself has"


def test_a_host_with_a_shell_has_the_address_itself(
    tmp_path: Path, names: dict[str, list[str]]
) -> None:
    uri = over_ssh(tmp_path, SAID)
    assert own_address_of(a_host(uri)) == "tcp://10.9.0.2"
    names["pc2"] = ["10.9.0.99", "fd00::2"]
    assert own_address_of(a_host(uri)) == "tcp://[fd00::2]"
    with pytest.raises(StartFailed, match=r"no network device there has the address 10\.9\.0\.99"):
        own_address_of(a_host(uri, "10.9.0.99"))


def test_a_shell_that_does_not_answer_refuses_nothing(tmp_path: Path) -> None:
    uri = over_ssh(tmp_path, "sh: ip: not found\n")
    assert own_address_of(a_host(uri, "10.9.0.99")) == "tcp://10.9.0.99"
    missing = "xen+ssh://root@pc2/system?command=/no/such/ssh"
    assert own_address_of(a_host(missing, "10.9.0.99")) == "tcp://10.9.0.99"


def test_what_a_host_says_of_its_addresses() -> None:
    said = ("127.0.0.1", "10.9.0.2", "10.8.0.1", "fd00::2", "fe80::5054:ff:fe12:3456")
    assert read_addresses(SAID) == frozenset(map(ip_address, said))
    assert read_addresses("") is None
    assert read_addresses(SAID.removesuffix("end\n")) is None
