"""Names and texts become commands; what is wrong with them is said in a sentence."""

import json
from ipaddress import IPv4Address, IPv4Network

import pytest

from orchestrator.network import App, Network, Stub, StubKind, VirtualRouter
from orchestrator.programs import catalogue

WHERE = {"r3": "10.255.0.3"}


def made(program: str, **given: str) -> App:
    return catalogue.app("a", "r1", program, given, WHERE.__getitem__)


@pytest.mark.parametrize(
    ("program", "given", "argv"),
    [
        ("ping", {"to": "r3"}, "ping -n -O -i 1 -s 56 10.255.0.3"),
        (
            "ping",
            {"to": "::1", "count": "3", "every": "200 ms"},
            "ping -n -O -c 3 -i 0.2 -s 56 ::1",
        ),
        ("iperf3-server", {}, "iperf3 --server --port 5201 --forceflush"),
        (
            "iperf3-client",
            {"to": "r3", "seconds": "2", "udp": "10M"},
            "iperf3 --client 10.255.0.3 --port 5201 --time 2 --udp --bitrate 10M --json",
        ),
        ("command", {"line": "traceroute -n 'a b'"}, "traceroute -n a b"),
    ],
)
def test_a_program_of_debian(program: str, given: dict[str, str], argv: str) -> None:
    assert " ".join(made(program, **given).argv) == argv


@pytest.mark.parametrize(
    ("program", "given", "arguments"),
    [
        ("send", {"to": "r3"}, ["send", "10.255.0.3", "5001", "10", "200", "0"]),
        ("receive", {"every": "500 ms"}, ["receive", "5001", "0.5"]),
        ("echo", {"port": "9000"}, ["echo", "9000"]),
        ("cache", {"origin": "10.0.0.1:80"}, ["3128", "10.0.0.1:80"]),
    ],
)
def test_a_program_of_ours_is_read_from_standard_input(
    program: str, given: dict[str, str], arguments: list[str]
) -> None:
    app = made(program, **given)
    assert list(app.argv[1:]) == ["-I", "-S", "-", *arguments]
    assert app.rights == ()
    compile(app.input, program, "exec")
    assert "from orchestrator" not in app.input, "its user may read nothing of ours"


def test_a_python_function_gets_what_is_not_ours_by_name() -> None:
    app = made("python", function="sensors.air:send", path="/srv", to="r3", every="5")
    assert app.argv[3:5] == ("sensors.air:send", "/srv")
    assert json.loads(app.argv[5]) == {"to": "10.255.0.3", "every": "5"}


def test_a_firewall_drops_what_it_is_told_to_or_all_but_that() -> None:
    rule = "ip version 4 and tcp and dst port 22"
    match = "meta nfproto ipv4 ip protocol 6 ip frag-off & 0x1fff == 0 th dport 22"
    dropping = made("firewall", drop=rule, where="forward,input")
    assert dropping.rights == ("net_admin",)
    assert dropping.argv[4] == "edgewake-firewall"
    assert dropping.argv[5] == " ".join(
        f"chain {hook} {{ type filter hook {hook} priority 0; policy accept; "
        f"{match} counter drop; }};"
        for hook in ("forward", "input")
    )
    assert (
        made("firewall", allow=rule)
        .argv[5]
        .endswith(
            "policy accept; ct state established,related counter accept; "
            f"{match} counter accept; counter drop; }};"
        )
    )


@pytest.mark.parametrize(
    ("program", "given", "message"),
    [
        (
            "pnig",
            {},
            "there is no program 'pnig'; did you mean 'ping'? known: cache, command, echo",
        ),
        ("ping", {}, "ping needs to: a router, a stub, or an IP address"),
        ("ping", {"to": "r9"}, "to of ping must be a router, a stub or an IP address, not 'r9'"),
        (
            "ping",
            {"to": "r3", "cuont": "3"},
            "ping has no parameter 'cuont'; did you mean 'count'?",
        ),
        ("ping", {"to": "r3", "count": "-1"}, "count of ping must be a whole number, 0 to"),
        ("ping", {"to": "r3", "every": "1"}, "every of ping"),
        ("ping", {"to": "r3", "every": "0 s"}, "every of ping must be 1 ms to 1 day, not '0 s'"),
        ("echo", {"port": "80"}, "port of echo must be a whole number, 1024 to 65535, not '80'"),
        ("send", {"to": "r3", "rate": "nan"}, "rate of send must be a number per second"),
        ("python", {"function": "no"}, "function of python must be written package.module:name"),
        ("firewall", {"drop": "tcp dport 22"}, "drop of firewall cannot be read: "),
        ("firewall", {"where": "nat"}, "where of firewall must be of forward, input, output"),
        ("command", {"line": "'a"}, "line of command cannot be read: No closing quotation"),
        ("command", {"line": "a", "rights": "sys_admin"}, "rights of command has 'sys_admin'"),
        ("cache", {"origin": "there"}, "origin of cache must be written HOST:PORT, not 'there'"),
    ],
)
def test_what_is_wrong_is_said(program: str, given: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=r"^") as caught:
        made(program, **given)
    assert str(caught.value).startswith(message)


def test_every_program_says_what_it_is_for_and_what_its_parameters_are() -> None:
    for name, ready in catalogue.PROGRAMS.items():
        assert ready.about.endswith("."), name
        assert all(each.about for each in ready.parameters.values()), name


def test_routers_and_clients_have_addresses() -> None:
    subnet, gateway = IPv4Network("10.1.0.0/24"), IPv4Address("10.1.0.1")
    network = Network(
        "n",
        (VirtualRouter("r1", IPv4Address("10.255.0.1")),),
        stubs=(
            Stub("people", "r1", StubKind.CLIENTS, subnet, gateway),
            Stub("guests", "r1", StubKind.BRIDGE, subnet, gateway, bridge="br0"),
        ),
    )
    assert catalogue.addresses(network) == {
        "r1": "10.255.0.1",
        "people": "10.1.0.2",
        "guests": "10.1.0.1",
    }
