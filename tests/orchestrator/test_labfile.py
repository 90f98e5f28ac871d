"""The lab file: what it becomes, and that every mistake is named with file, line and key."""

import re
from collections.abc import Callable, Iterator
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from images.bootspec import Disk, Image
from images.facts import Architecture
from images.families.linux import LINUX
from orchestrator.errors import LabError
from orchestrator.hours import Hours
from orchestrator.lab_entry import Entry
from orchestrator.lab_schema import LabEntry, ServiceDefaults
from orchestrator.lab_yaml import LARGEST_FILE
from orchestrator.labfile import lab_schema, load_lab, parse_lab
from orchestrator.model import (
    AnswerOrder,
    Capacity,
    Constraints,
    DnsSettings,
    Energy,
    GuestNetwork,
    Host,
    IdlePolicy,
    Lab,
    Link,
    NetworkSettings,
    OnCrash,
    Population,
    Port,
    Price,
    Probe,
    ProbeKind,
    Public,
    RateLimit,
    RedirectBy,
    Reply,
    Router,
    RouterProgram,
    Scale,
    Secondary,
    Service,
    StaticRecord,
    TrafficSettings,
    Transfer,
    TsigKey,
    WakeBudget,
    WarmPlanning,
    WebSettings,
    apart,
)
from orchestrator.network import LinkEngine, Machine, Routing
from orchestrator.rules import tree

ROOT = Path(__file__).parents[2]
DEMO = (ROOT / "examples" / "demo.yaml").read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs" / "lab-file.md").read_text(encoding="utf-8")
FILE = Path("/labs/lab.yaml")

LAB = """\
name: full
zone: Lab.Test.
dns:
  {listen: "[::1]:5300", forward: ["9.9.9.9:53"], negative_ttl: 1 min, nameserver: ns.lab.test.,
  hostmaster: the.admin@Example.org, cookies: required, processes: 2, rate_limit: {slip: 1},
  wake_budget: {per_client: 30/min, burst: 5, total: 2/s, total_burst: 9, exempt: [10.0.0.0/24]},
  client_subnet: true, client_subnet_from: [10.0.0.9/32], nameserver_address: [192.0.2.1],
  keys: {copy: {algorithm: hmac-sha512, file: copy.key}}, mdns: br0, log: anonymous,
  transfer: {keys: [copy], allow: ["::1/128"], notify: [{address: "192.0.2.9:53", key: copy}]},
  records: [{name: "@", type: MX, value: 10 mail.example.org., ttl: 1 h},
    {name: _acme.web, type: TXT, value: hello}]}
hosts:
  pc1:
    uri: xen+ssh://root@pc1/system
    site: cellar
    router: r1
    capacity: {cpu: 4, memory: 8 GiB}
    reserve: {cpu: 0.5, memory: 512 MiB}
    labels: {rack: a, floor: 0}
    energy: {idle: 8 W, busy: 0.025 kW}
    price: {host_hour: 0.1, cpu_hour: 0.01, gib_hour: 0.002}
    network:
      name: lab1
      subnet: 10.1.0.0/24
      gateway: 10.1.0.1
      pool: 10.1.0.10 - 10.1.0.20
      create: true
      bridge: br1
      subnet6: fd00:1::/64
  pc2:
    uri: xen+ssh://root@pc2/system
    capacity: {cpu: 1, memory: 1 GiB}
    network: {name: lab2, subnet: 10.2.0.0/24, gateway: 10.2.0.1, pool: 10.2.0.10-10.2.0.20}
routers: {r1: {site: cellar}, r2: {}}
links:
  - {between: [r1, r2], latency: 6 ms, bandwidth: 1 Gbit/s, weight: 2.5}
  - {between: [pc2, r2], latency: 250 us, bandwidth: 100 Mbit/s}
clients:
  desk: {subnets: [127.0.0.0/8, "::1/128"], router: r1, rate: 30/min}
  yard: {subnets: [192.0.2.0/24], router: r2}
images:
  micro:
    {family: linux, kernel: built:linux-microvm/vmlinuz, initrd: ../boot/initrd, cmdline: quiet}
  other:
    family: linux
    kernel: /srv/vmlinuz
    disks: [{path: a.qcow2, format: qcow2, read_only: false}]
defaults:
  image: micro
  resources: {cpu: 0.5, memory: 96 MiB}
  ready: {icmp: {}}
  idle: {after: 15 s}
services:
  web:
    names: ["@", WWW, web.lab.test.]
    config: {greeting: hello, version: 1.10, debug: no}
    ports: [80/tcp, 443/udp]
    ready: {http: {port: 8080, path: /health, status: 204}}
    ttl: 5 s
    deadline: 1.5 s
    replicas: 2
    latency_bound: 20 ms
    alpn: [h2]
    ttl_waking: 1 s
    answer: rotated
    constraints: {apart_from: [db]}
    scale: {most: 2, cpu: 80 %, in_after: 1 min}
  db:
    image: other
    resources: {cpu: 2, memory: 1 GiB}
    ready: {console: "ready in [0-9]+ ms"}
    idle: never
    constraints: {hosts: [pc1], labels: {rack: a, floor: 0}}
"""


def parsed(text: str) -> Lab:
    return parse_lab(text, FILE, images_dir=Path("/built"))


def refused(text: str) -> LabError:
    with pytest.raises(LabError) as caught:
        parsed(text)
    assert caught.value.file == FILE
    return caught.value


# --- what a file becomes ----------------------------------------------------------------------


def test_a_rate_limit_says_how_much_and_for_whom_it_is_not() -> None:
    rules = 'rate_limit: {per_second: 50, slip: 0, exempt: [10.0.0.0/8, "fd00::/8"]}'
    lab = parsed(LAB.replace("rate_limit: {slip: 1}", rules))
    exempt = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert lab.dns.rate_limit == RateLimit(50, 0, exempt)


def test_everything_about_hosts_and_the_graph_becomes_nouns() -> None:
    lab = parsed(LAB)
    assert lab.name == "full"
    assert lab.dns == DnsSettings(
        zone="lab.test",
        listen="::1",
        port=5300,
        nameserver="ns.lab.test",
        hostmaster="the.admin@example.org",
        negative_ttl_s=60,
        forward_to=(("9.9.9.9", 53),),
        cookies="required",
        rate_limit=RateLimit(slip=1),
        processes=2,
        wake_budget=WakeBudget(0.5, 5, 2.0, 9, exempt=(ip_network("10.0.0.0/24"),)),
        client_subnet=True,
        client_subnet_from=(ip_network("10.0.0.9/32"),),
        nameserver_addresses=(ip_address("192.0.2.1"),),
        records=(
            StaticRecord("lab.test", "MX", "10 mail.example.org.", 3600),
            StaticRecord("_acme.web.lab.test", "TXT", "hello"),
        ),
        keys=(TsigKey("copy", "hmac-sha512", Path("/labs/copy.key")),),
        transfer=Transfer(
            ("copy",), (ip_network("::1/128"),), (Secondary("192.0.2.9", 53, key="copy"),)
        ),
        mdns="br0",
        log="anonymous",
    )
    assert lab.host("pc1") == Host(
        name="pc1",
        uri="xen+ssh://root@pc1/system",
        capacity=Capacity(4.0, 8192),
        reserve=Capacity(0.5, 512),
        site="cellar",
        router="r1",
        labels=(("rack", "a"), ("floor", "0")),
        energy=Energy(8.0, 25.0),
        price=Price(0.1, 0.01, 0.002),
        network=GuestNetwork(
            name="lab1",
            subnet=IPv4Network("10.1.0.0/24"),
            gateway=IPv4Address("10.1.0.1"),
            first=IPv4Address("10.1.0.10"),
            last=IPv4Address("10.1.0.20"),
            create=True,
            bridge="br1",
            subnet6=IPv6Network("fd00:1::/64"),
        ),
    )
    assert lab.routers == (Router("r1", "cellar"), Router("r2"))
    assert lab.links == (Link("r1", "r2", 6.0, 1000.0, 2.5), Link("pc2", "r2", 0.25, 100.0, 1.0))
    assert lab.populations == (
        Population("desk", (ip_network("127.0.0.0/8"), ip_network("::1/128")), "r1", 0.5),
        Population("yard", (ip_network("192.0.2.0/24"),), "r2", 0.0),
    )


@pytest.mark.parametrize(
    ("written", "cpus"), [("3", (3,)), ("1-3,5", (1, 2, 3, 5)), ("5,1-1,1-2", (1, 2, 5))]
)
def test_what_a_hosts_processors_are_for(written: str, cpus: tuple[int, ...]) -> None:
    lab = parsed(LAB.replace("    site: cellar", f"    arch: aarch64\n    guest_cpus: {written}"))
    assert lab.host("pc1").architecture is Architecture.AARCH64
    assert lab.host("pc1").guest_cpus == cpus
    assert lab.host("pc2").guest_cpus == ()


def test_a_service_may_want_a_core_dump() -> None:
    lab = parsed(LAB.replace("    idle: never\n", "    idle: never\n    on_crash: coredump\n"))
    assert lab.service("db").on_crash is OnCrash.COREDUMP
    assert lab.service("web").on_crash is OnCrash.DESTROY


def test_a_service_may_sleep_through_traffic_or_be_answered_early() -> None:
    more = "    idle: never\n    wake_on_traffic: false\n    reply: early\n"
    lab = parsed(LAB.replace("    idle: never\n", more))
    assert (lab.service("db").wake_on_traffic, lab.service("db").reply) == (False, Reply.EARLY)
    assert (lab.service("web").wake_on_traffic, lab.service("web").reply) == (True, Reply.HELD)


WEB = "web: {listen: %s, names: [Box.Example.org.]%s}\n"
TLS = ", tls: {certificate: pki/box.pem, key: /srv/key.pem}"


def test_the_dashboard_is_on_loopback_unless_something_else_is_written() -> None:
    assert parsed(LAB).web == WebSettings(("127.0.0.1", 8480), is_default=True)
    assert parsed(LAB + WEB % ('"[::]:443"', TLS)).web == WebSettings(
        ("::", 443),
        is_default=False,
        names=("box.example.org",),
        certificate=Path("/labs/pki/box.pem"),
        key=Path("/srv/key.pem"),
    )
    assert parsed(LAB + WEB % ("10.1.0.1:80", ", behind_proxy: true")).web.behind_proxy
    for off in ("off", '"off"'):
        assert parsed(LAB + WEB % (off, "")).web.port == 0


def test_beyond_loopback_the_dashboard_needs_tls() -> None:
    error = refused(LAB + WEB % ("0.0.0.0:8480", ""))
    assert error.field == "web.listen"
    for word in ("'tls'", "openssl req", "behind_proxy: true", "edgewake token create"):
        assert word in str(error)
    assert "or 'off'" in str(refused(LAB + WEB % ("none", "")))


PUBLIC = "    public: {address: 203.0.113.10, interface: eth1, rule: 80==dst_port && tcp}\n"


def test_a_service_may_have_a_public_address() -> None:
    lab = parsed(LAB.replace("    idle: never\n", f"    idle: never\n{PUBLIC}") + "redirect: nft\n")
    rule = tree.And((tree.Port(tree.Side.DST, 80, 80), tree.Protocol(6)))
    assert lab.service("db").public == Public(IPv4Address("203.0.113.10"), "eth1", rule)
    assert lab.redirect is RedirectBy.NFT
    assert lab.service("web").public is None
    assert parsed(LAB).redirect is RedirectBy.AUTO


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("80==dst_port", "80==port", "public.rule: is no traffic rule: column 5: expected one of"),
        ("eth1", "a/b", "public.interface: 'a/b' cannot be the name of a network interface"),
        ("203.0.113.10", "203.0.113.0/24", "public.address: .* is not an IP address"),
        ("address: 203.0.113.10, ", "", "public.address: is missing"),
    ],
)
def test_a_wrong_public_address(old: str, new: str, message: str) -> None:
    with pytest.raises(LabError, match=message):
        parsed(LAB.replace("    idle: never\n", f"    idle: never\n{PUBLIC.replace(old, new)}"))


def test_two_services_cannot_have_the_same_public_traffic() -> None:
    both = LAB.replace("    idle: never\n", f"    idle: never\n{PUBLIC}")
    with pytest.raises(LabError, match=r"db\.public: is the same as that of service 'web'"):
        parsed(both.replace("    ttl: 5 s\n", f"    ttl: 5 s\n{PUBLIC}"))


def test_a_guest_that_is_anonymous_has_no_public_address() -> None:
    both = LAB.replace("    idle: never\n", f"    idle: never\n{PUBLIC}")
    with pytest.raises(LabError, match="cannot be with image 'other': anonymous guests"):
        parsed(both.replace("  other:\n", "  other:\n    anonymous: true\n"))


def test_a_warm_plan_is_carried_out_if_the_lab_says_so() -> None:
    assert parsed(LAB).warm is WarmPlanning.OFF
    assert parsed(LAB + "warm: auto\n").warm is WarmPlanning.AUTO
    with pytest.raises(LabError, match="warm: unknown setting 'on'"):
        parsed(LAB + "warm: on\n")


def test_wakes_by_traffic_have_a_budget() -> None:
    assert parsed(LAB).traffic == TrafficSettings(5.0, 20.0)
    lab = parsed(LAB + "traffic: {wakes_per_host: 60/min, wakes: 0/s}\n")
    assert lab.traffic == TrafficSettings(1.0, 0.0)


def test_a_service_may_be_capped() -> None:
    lab = parsed(LAB.replace("{cpu: 2, mem", "{cpu_cap: 2.5, cpu: 2, mem"))
    assert lab.service("db").cpu_cap == 2.5
    assert lab.service("web").cpu_cap is None


RUN = """\
name: run
zone: run.test
network: {run: true, routing: ospf, links: user, subnet: 10.250.0.0/24, subnet6: "fd00:250::/64",
  machines: {pc1: 192.0.2.1, pc2: "2001:db8::2"}}
hosts:
  pc1:
    uri: qemu:///system
    router: r1
    capacity: {cpu: 4, memory: 8 GiB}
    network: {name: net1, subnet: 10.1.0.0/24, gateway: 10.1.0.1, pool: 10.1.0.10-10.1.0.254,
      create: true, bridge: br1, subnet6: "fd00:1::/64"}
  pc2:
    uri: xen+ssh://root@pc2/system
    router: r2
    capacity: {cpu: 1, memory: 1 GiB}
    network: {name: "bridge:br2", subnet: 10.2.0.0/24, gateway: 10.2.0.254,
      pool: 10.2.0.10-10.2.0.20}
routers:
  r1: {host: pc1, address: 10.250.0.1, address6: "fd00:9::1"}
  r2: {host: pc2}
links:
  - {between: [r2, r1], latency: 6 ms, bandwidth: 1 Gbit/s, jitter: 2 ms, loss: 0.5 %, up: false}
clients:
  desk: {subnets: [127.0.0.0/8, 198.51.100.0/24, "fd00:7::/64"], router: r1}
"""


def test_a_network_is_run_if_the_lab_says_so() -> None:
    assert parsed(LAB).network == NetworkSettings()
    lab = parsed(RUN.replace("pool: 10.1.0.10-10.1.0.254", "pool: 10.1.0.10-10.1.0.99"))
    assert lab.network == NetworkSettings(
        run=True,
        routing=Routing.OSPF,
        engine=LinkEngine.USER,
        subnet=IPv4Network("10.250.0.0/24"),
        subnet6=IPv6Network("fd00:250::/64"),
        machines=(
            Machine("pc1", ip_address("192.0.2.1")),
            Machine("pc2", ip_address("2001:db8::2")),
        ),
    )
    address, address6 = IPv4Address("10.250.0.1"), IPv6Address("fd00:9::1")
    assert lab.routers[0] == Router("r1", host="pc1", address=address, address6=address6)
    assert lab.links == (Link("r2", "r1", 6.0, 1000.0, jitter_ms=2.0, loss=0.005, up=False),)


def test_a_network_that_is_not_run_need_not_be_one_that_can() -> None:
    assert not parsed(LAB).network.run
    for old, _, _, _ in RUN_MISTAKES:
        assert old in RUN
    assert parsed(RUN.replace("run: true", "run: false")).routers


RUN_MISTAKES = [
    ("run: true", "run: yes", "network.run", "must be true or false"),
    ("ospf", "rip", "network.routing", "unknown routing 'rip'; known: static, ospf"),
    ("links: user", "links: fast", "network.links", "known: auto, none, shaper, netem, user"),
    ("10.250.0.0/24", "10.250.0.0/31", "network.subnet", "of /30 or larger"),
    ("10.250.0.0/24", "10.1.0.0/16", "hosts.pc1.network.subnet", "overlaps 10.1.0.0/16 of the r"),
    ("address: 10.250.0.1", "address: 10.1.0.5", "routers.r1.address", "overlaps 10.1.0.0/24 of h"),
    ("fd00:250::/64", "fd00:7::/64", "clients.desk.subnets.2", "overlaps fd00:7::/64 of the"),
    ("198.51.100.0/24", "10.2.0.0/16", "hosts.pc2.network.subnet", "overlaps 10.2.0.0/16 of cl"),
    ("198.51.100.0/24", "198.51.100.9/32", "clients.desk.subnets", "of /30 or larger"),
    ("198.51.100.0/24", "224.0.0.0/8", "clients.desk.subnets", "not loopback"),
    ("  desk:", "  pc1:", "clients.pc1", "also the name of a router or host"),
    ("  desk:", "  r1:", "clients.r1", "also the name of a router or host"),
    ("[r2, r1]", "[pc2, r1]", "links.0.between", "'pc2' is a host, and does not forward"),
    ("jitter: 2 ms", "jitter: 7 ms", "links.0", "more 'jitter' than 'latency'"),
    ("loss: 0.5 %", "loss: 101 %", "links.0.loss", "at most 100 %"),
    ("loss: 0.5 %", "loss: 0.5", "links.0.loss", "has no unit"),
    ("up: false", "up: down", "links.0.up", "must be true or false"),
    ("machines: {pc1", "machines: {pc3", "network.machines.pc3", "unknown host 'pc3'"),
    (', pc2: "2001:db8::2"', "", "routers.r2.host", "is not in network.machines"),
    ("r2: {host: pc2}", "r2: {host: pc3}", "routers.r2.host", "unknown host 'pc3'"),
    ("r2: {host: pc2}", "r2: {}", "routers.r2", "has no 'host', but 'r1' has"),
    ("r2: {host: pc2}", "r2: {host: pc1}", "hosts.pc2.router", "of their own machine"),
    (
        "r2: {host: pc2}",
        "r2: {host: pc2, address: 10.250.0.1}",
        "routers.r2.address",
        "also the address of router 'r1'",
    ),
    ('address6: "fd00:9::1"', "address6: 1.2.3.4", "routers.r1.address6", "not an IPv6 address"),
    ('"bridge:br2"', "net2", "hosts.pc2.network.name", "only libvirt knows the bridge"),
    ("10.1.0.10-10.1.0.254", "10.1.0.2-10.1.0.254", "hosts.pc1.network.pool", "leaves no address"),
]


@pytest.mark.parametrize(("old", "new", "field", "message"), RUN_MISTAKES)
def test_each_mistake_in_a_network_that_is_run_is_named(
    old: str, new: str, field: str, message: str
) -> None:
    text = RUN.replace(old, new, 1)
    error = refused(text)
    assert message in str(error)
    assert error.field == field
    assert error.line == expected_line(text, field)


def test_a_network_has_an_address_for_each_router() -> None:
    routers = "".join(f"  n{number}: {{host: pc1}}\n" for number in range(2))
    text = RUN.replace("10.250.0.0/24", "10.250.0.0/30").replace("links:\n", f"{routers}links:\n")
    error = refused(text)
    assert error.field == "network.subnet"
    assert "has 2 addresses for routers, and 3 need one" in str(error)


def test_a_router_may_have_programs() -> None:
    written = "{host: pc1, apps: {probe: {run: ping, parameters: {to: r2, count: 3}}}}"
    text = re.sub("{host: pc1, .*}", written, RUN.replace(".10-10.1.0.254", ".10-10.1.0.99"))
    assert parsed(text).routers[0].apps == (
        RouterProgram("probe", "ping", (("to", "r2"), ("count", "3"))),
    )
    for old, new, message in (
        ("run: ping", "run: pnig", "there is no program 'pnig'; did you mean 'ping'?"),
        ("to: r2", "to: r7", "to of ping must be a router, a stub or an IP address, not 'r7'"),
    ):
        error = refused(text.replace(old, new))
        assert message in str(error)
        assert error.field == "routers.r1.apps.probe"
        assert error.line == expected_line(text, "routers.r1")


def test_everything_about_services_becomes_nouns() -> None:
    lab = parsed(LAB)
    assert lab.service("web") == Service(
        name="web",
        names=("lab.test", "www.lab.test", "web.lab.test"),
        images=("micro",),
        resources=Capacity(0.5, 96),
        probe=Probe(ProbeKind.HTTP, port=8080, path="/health", status=204),
        config=(("greeting", "hello"), ("version", "1.10"), ("debug", "no")),
        ports=(Port(80), Port(443, "udp")),
        ttl_s=5,
        idle=IdlePolicy(after_s=15.0),
        deadline_s=1.5,
        replicas=2,
        latency_bound_ms=20.0,
        alpn=("h2",),
        constraints=Constraints(apart_from=frozenset({"db"})),
        ttl_waking_s=1,
        answer=AnswerOrder.ROTATED,
        scale=Scale(most=2, cpu=0.8, in_after_s=60.0),
    )
    assert lab.service("db") == Service(
        name="db",
        names=("db.lab.test",),
        images=("other",),
        resources=Capacity(2.0, 1024),
        probe=Probe(ProbeKind.CONSOLE, pattern="ready in [0-9]+ ms"),
        idle=IdlePolicy(after_s=None),
        constraints=Constraints(hosts=frozenset({"pc1"}), labels=(("rack", "a"), ("floor", "0"))),
    )


def test_a_service_may_have_to_be_awake() -> None:
    warm, weekend = "* 8-17 * * mon-fri", "0-29 10 * * sat,sun"
    idle = f'{{keep_warm: ["{warm}", "{weekend}"], timezone: Europe/London}}'
    policy = parsed(LAB.replace("idle: never", f"idle: {idle}")).service("db").idle
    hours = (Hours.parse(warm), Hours.parse(weekend))
    assert policy == IdlePolicy(keep_warm=hours, timezone="Europe/London")
    one = parsed(LAB.replace("idle: never", f'idle: {{keep_warm: "{warm}", pin: true}}'))
    assert one.service("db").idle == IdlePolicy(keep_warm=hours[:1], pin=True)


def test_image_files_are_beside_the_lab_file_or_among_the_built_ones() -> None:
    lab = parsed(LAB)
    assert lab.image("micro") == Image(
        name="micro",
        family="linux",
        kernel=Path("/built/linux-microvm/vmlinuz"),
        initrd=Path("/boot/initrd"),
        cmdline="quiet",
    )
    assert lab.image("other").kernel == Path("/srv/vmlinuz")
    assert lab.image("other").disks == (Disk(Path("/labs/a.qcow2"), "qcow2", read_only=False),)


@pytest.mark.parametrize(
    ("written", "probe"),
    [
        ("{tcp: 53}", Probe(ProbeKind.TCP, port=53)),
        ("{http: {}}", Probe(ProbeKind.HTTP, port=80, path="/", status=200)),
        ("{icmp: {}}", Probe(ProbeKind.ICMP)),
        ("{arp: {}}", Probe(ProbeKind.ARP)),
        ("{console: up}", Probe(ProbeKind.CONSOLE, pattern="up")),
        ("{xenstore: {}}", Probe(ProbeKind.XENSTORE, key="data/ready")),
        ("{xenstore: data/up}", Probe(ProbeKind.XENSTORE, key="data/up")),
        (
            "{xenstore: {key: data/up, value: ^ok$}}",
            Probe(ProbeKind.XENSTORE, key="data/up", pattern="^ok$"),
        ),
    ],
)
def test_each_kind_of_probe(written: str, probe: Probe) -> None:
    lab = parsed(
        LAB.replace("  ready: {icmp: {}}", f"  ready: {written}").replace(
            "    ready: {http: {port: 8080, path: /health, status: 204}}\n", ""
        )
    )
    assert lab.service("web").probe == probe


def test_the_lab_is_named_after_its_file_unless_it_says_otherwise(tmp_path: Path) -> None:
    (tmp_path / "North-1.yaml").write_text(LAB.replace("name: full\n", ""), encoding="utf-8")
    assert load_lab(tmp_path / "North-1.yaml").name == "north-1"


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + LAB.replace("\n", "\r\n").encode())
    assert load_lab(path).hosts == parsed(LAB).hosts


# --- what is refused --------------------------------------------------------------------------

MISTAKES: list[tuple[str, str, str, str]] = [
    # what is replaced, by what, the key that is named, what the message says
    ("zone: Lab.Test.\n", "", "zone", "is missing, and required"),
    ("zone: Lab.Test.", "zone: lab..test", "zone", "'' must be 1 to 63 letters"),
    ("name: full", "name: Not a name", "name", "1 to 30 of a-z"),
    ("name: full", "nome: full", "nome", "did you mean 'name'? known: name, zone"),
    ("  pc2:", "  PC2:", "hosts.PC2", "1 to 30 of a-z"),
    ("    site: cellar", "    sites: cellar", "hosts.pc1.sites", "did you mean 'site'?"),
    (
        "    site: cellar",
        "    migration_address: 10.0.0.2:49152",
        "hosts.pc1.migration_address",
        "without a port",
    ),
    (
        "    idle: never",
        "    on_crash: core",
        "services.db.on_crash",
        "did you mean 'coredump'? known: destroy, coredump",
    ),
    (
        "    idle: never",
        "    reply: soon",
        "services.db.reply",
        "unknown time to reply 'soon'",
    ),
    ("create: true", "create: yes", "hosts.pc1.network.create", "must be true or false"),
    ("    site: cellar", "    arch: sparc", "hosts.pc1.arch", "unknown architecture 'sparc'"),
    ("    site: cellar", "    guest_cpus: 1-", "hosts.pc1.guest_cpus", "numbers of processors"),
    ("    site: cellar", "    guest_cpus: 1,5-3", "hosts.pc1.guest_cpus", "ends before it begins"),
    ("{cpu: 2, mem", "{cpu_cap: 1, cpu: 2, mem", "services.db.resources.cpu_cap", "at least `cpu`"),
    ("{cpu: 2, mem", "{cpu_cap: 0.001, cpu: 2, mem", "services.db.resources.cpu_cap", "0.01 cores"),
    ("cpu: 4,", "cpu: four,", "hosts.pc1.capacity.cpu", "a number of cores"),
    ("cpu: 4,", "cpu: 0,", "hosts.pc1.capacity.cpu", "greater than 0"),
    ("memory: 8 GiB", "memory: 8", "hosts.pc1.capacity.memory", "has no unit: write a number"),
    ("memory: 8 GiB", "memory: 8 GB", "hosts.pc1.capacity.memory", "units: MiB, GiB, TiB"),
    ("memory: 8 GiB", "memory: 0.3 MiB", "hosts.pc1.capacity.memory", "whole number of MiB"),
    ("uri: xen+ssh://root@pc1/system", "uri: pc1", "hosts.pc1.uri", "libvirt URI such as"),
    ("cpu: 0.5, memory: 512", "cpu: 4, memory: 512", "hosts.pc1.reserve.cpu", "less than"),
    ("memory: 512 MiB", "memory: 8 GiB", "hosts.pc1.reserve.memory", "less than the host's 8 GiB"),
    ("busy: 0.025 kW", "busy: 7 W", "hosts.pc1.energy.busy", "at least the idle power, 8 W"),
    ("router: r1\n", "router: r9\n", "hosts.pc1.router", "unknown router 'r9'; known: r1, r2"),
    ("10.1.0.0/24", "10.1.0.7/24", "hosts.pc1.network.subnet", "host bits set"),
    ("10.1.0.0/24", "fd00::/64", "hosts.pc1.network.subnet", "not an IPv4 subnet"),
    ("gateway: 10.1.0.1\n", "gateway: 10.9.0.1\n", "hosts.pc1.network.gateway", "10.1.0.0/24"),
    ("10.1.0.10 - 10.1.0.20", "10.1.0.10", "hosts.pc1.network.pool", "must be two addresses"),
    ("10.1.0.10 - 10.1.0.20", "10.1.0.9-10.1.0.8", "hosts.pc1.network.pool", "comes after"),
    ("10.1.0.10 - 10.1.0.20", "10.1.0.1-10.1.0.9", "hosts.pc1.network.pool", "10.1.0.1 in it"),
    ("10.1.0.10 - 10.1.0.20", "10.1.0.9-10.1.0.255", "hosts.pc1.network.pool", ".255 in it"),
    ("10.1.0.10 - 10.1.0.20", "10.3.0.9-10.3.0.10", "hosts.pc1.network.pool", "not inside"),
    ("bridge: br1\n", "bridge: a-bridge-of-16ch\n", "hosts.pc1.network.bridge", "1 to 15"),
    ("      bridge: br1\n", "", "hosts.pc1.network.bridge", "required with 'create: true'"),
    ("create: true", "create: false", "hosts.pc1.network.bridge", "no meaning without"),
    ("fd00:1::/64", "fd00::/48", "hosts.pc1.network.subnet6", "must be /64 to /120"),
    ("fd00:1::/64", "fd00::/121", "hosts.pc1.network.subnet6", "must be /64 to /120"),
    ("[r1, r2]", "[r1]", "links.0.between", "at least 2"),
    ("[r1, r2]", "[r1, r1]", "links.0.between", "to itself"),
    ("[r1, r2]", "[r1, r3]", "links.0.between.1", "unknown router or host 'r3'"),
    ("[pc2, r2]", "[r2, r1]", "links.1.between", "joined already, in line 36"),
    ("latency: 6 ms", "latency: 6", "links.0.latency", "units: us, ms, s, min, h"),
    ("bandwidth: 1 Gbit/s", "bandwidth: 1 Gbps", "links.0.bandwidth", "units: kbit/s, Mbit/s"),
    ("bandwidth: 1 Gbit/s", "bandwidth: 0 Gbit/s", "links.0.bandwidth", "greater than 0"),
    ("r2: {}}", "r2: {}, pc1: {}}", "hosts.pc1", "also the name of a router (line 34)"),
    ("[192.0.2.0/24]", "[]", "clients.yard.subnets", "at least 1"),
    ("[192.0.2.0/24]", "192.0.2.0/24", "clients.yard.subnets", "must be a list"),
    ("[192.0.2.0/24]", "[127.0.0.0/8]", "clients.yard.subnets.0", "already belongs to 'desk'"),
    ("rate: 30/min", "rate: 30", "clients.desk.rate", "units: /h, /min, /s"),
    ("{family: linux", "{family: lynx", "images.micro.family", "mean 'linux'?"),
    ("built:linux-microvm/vmlinuz", "built:../x", "images.micro.kernel", "built:NAME/FILE"),
    ("format: qcow2", "format: vmdk", "images.other.disks.0.format", "known: raw, qcow2"),
    ("    image: other", "    image: oter", "services.db.image", "did you mean 'other'?"),
    ("names: [\"@\", WWW", "names: [\"@\", w_w", "services.web.names.1", "not a DNS name"),
    ("web.lab.test.]", "web.example.org.]", "services.web.names.2", "not in the zone lab.test"),
    ("web.lab.test.]", "db]", "services.db.names.0", "already a name of 'web', in line 55"),
    ("ports: [80/tcp", "ports: [80", "services.web.ports.0", "such as 80/tcp"),
    ("443/udp]", "80/tcp]", "services.web.ports", "has a port twice"),
    ("port: 8080,", "port: 0,", "services.web.ready.http.port", "from 1 to 65535"),
    ("status: 204}}", "status: 204}, tcp: 80}", "services.web.ready", "exactly one of: http, tcp"),
    ("{console: \"ready in [0-9]+ ms\"}", "{}", "services.db.ready", "exactly one of"),
    ("ready in [0-9]+ ms", "ready (in", "services.db.ready.console", "not a regular expression"),
    (
        "{console: \"ready in [0-9]+ ms\"}",
        "{xenstore: /local/x}",
        "services.db.ready.xenstore.key",
        "below the guest's own path, such as data/ready",
    ),
    (
        "{console: \"ready in [0-9]+ ms\"}",
        "{xenstore: {value: (}}",
        "services.db.ready.xenstore.value",
        "not a regular expression",
    ),
    ("ttl: 5 s", "ttl: 5", "services.web.ttl", "such as '5 s'"),
    ("ttl: 5 s", "ttl: 1500 ms", "services.web.ttl", "whole seconds"),
    ("ttl: 5 s", "ttl: 25 h", "services.web.ttl", "86400 s"),
    ("idle: never", "idle: sometimes", "services.db.idle", "must be 'never' or a mapping"),
    ("idle: never", 'idle: {keep_warm: "* 8-17 * *"}', "services.db.idle.keep_warm", "4 fields"),
    ("idle: never", 'idle: {timezone: Europe}', "services.db.idle.timezone", "as Europe/London"),
    ("idle: never", 'idle: {timezone: Mars/X}', "services.db.idle.timezone", "no such time zone"),
    ("idle: never", "idle: {pin: yes}", "services.db.idle.pin", "must be true or false"),
    ("most: 2, cpu", "most: 3, cpu", "services.web.scale.most", "can run on 2: pc1, pc2"),
    ("most: 2, cpu", "most: 1, cpu", "services.web.scale.most", "at least `replicas`, the 2"),
    ("most: 2, cpu: 80 %", "most: 2", "services.web.scale", "must say by what"),
    ("most: 2, cpu: 80 %", "most: 2, cpu: 0 %", "services.web.scale.cpu", "greater than 0"),
    ("most: 2, cpu: 80 %", "most: 2, cpu: 0.8", "services.web.scale.cpu", "such as '80 %'"),
    ("most: 2, cpu: 80 %", "most: 2, packets: 5", "services.web.scale.packets", "has no unit"),
    ("deadline: 1.5 s", "deadline: 0 s", "services.web.deadline", "greater than 0"),
    ("replicas: 2", "replicas: 0", "services.web.replicas", "from 1 to 1000"),
    ("replicas: 2", "replicas: 3", "services.web.replicas", "can run on 2: pc1, pc2"),
    ("cpu: 2, memory: 1 GiB", "cpu: 2, memory: 8 GiB", "services.db.resources", "7680 MiB"),
    ("labels: {rack: a, floor: 0}}\n", "labels: {rack: b}}\n", "services.db.constraints", "leave"),
    ("hosts: [pc1]", "hosts: [pc3]", "services.db.constraints.hosts.0", "known: pc1, pc2"),
    (
        "hosts: [pc1]",
        "hosts: [pc1, pc2], avoid_hosts: [pc2]",
        "services.db.constraints.avoid_hosts",
        "'pc2' is also in 'hosts'",
    ),
    ("apart_from: [db]", "apart_from: [web]", "services.web.constraints.apart_from", "itself"),
    (
        "apart_from: [db]",
        "apart_from: [db], together_with: [db]",
        "services.web.constraints.apart_from",
        "must share a host",
    ),
    (
        "apart_from: [db]",
        "together_with: [db]",
        "services.web.constraints.together_with",
        "2 copies cannot each be beside one of 'db', which has 1",
    ),
    ("image: micro", "image: macro", "defaults.image", "unknown image 'macro'"),
    ("  image: micro\n", "", "services.web.image", "is missing"),
    ("memory: 96 MiB", "memory: 96", "defaults.resources.memory", "has no unit"),
    ("kernel: /srv/vmlinuz", "catalog: web", "images.other", "both files and 'catalog'"),
    ("kernel: /srv/vmlinuz", "catalog: We b", "images.other.catalog", "write NAME or NAME:TAG"),
    ("idle: {after: 15 s}", "names: [x]", "defaults.names", "unknown key"),
    ("alpn: [h2]", "alpn: h2", "services.web.alpn", "must be a list, such as"),
    ("routers: {r1: {site: cellar}, r2: {}}", "routers: [r1, r2]", "routers", "must be a mapping"),
    ("site: cellar\n", "site:\n", "hosts.pc1.site", "has no value"),
    ("site: cellar\n", "site: [a]\n", "hosts.pc1.site", "a single value, not a list"),
    ("site: cellar\n", 'site: "\\uD800"\n', "hosts.pc1.site", "not text"),
    ("site: cellar\n", "uri: x:y\n", "hosts.pc1.uri", "is written twice; the first is in line 14"),
    ("listen: \"[::1]:5300\"", "listen: \"localhost:53\"", "dns.listen", "an IP address"),
    ("the.admin@", "the.admin.", "dns.hostmaster", "write a mail address"),
    ("cookies: required", "cookies: yes", "dns.cookies", "known: off, on, required"),
    ("log: anonymous", "log: some", "dns.log", "known: off, on, anonymous"),
    ("processes: 2", "processes: 0", "dns.processes", "a whole number from 1 to 64"),
    ("slip: 1", "slip: 11", "dns.rate_limit.slip", "a whole number from 0 to 10"),
    ("slip: 1", "exempt: [10.0.0.1/8]", "dns.rate_limit.exempt.0", "has host bits set"),
    ("30/min, burst", "30, burst", "dns.wake_budget.per_client", "units: /h, /min, /s"),
    ("burst: 5", "burst: 0", "dns.wake_budget.burst", "from 1 to 1000000"),
    ("client_subnet: true", "client_subnet: on", "dns.client_subnet", "must be true or false"),
    ("[192.0.2.1]", "[ns]", "dns.nameserver_address.0", "not an IP address"),
    ("ns.lab.test.", "ns.example.org", "dns.nameserver_address", "outside of the zone lab.test"),
    ("hmac-sha512", "hmac-md5", "dns.keys.copy.algorithm", "known: hmac-sha256, hmac-sha512"),
    ("keys: [copy]", "keys: [kopy]", "dns.transfer.keys.0", "did you mean 'copy'?"),
    ("key: copy}]", "key: no}]", "dns.transfer.notify.0.key", "unknown key 'no'"),
    ("type: MX", "type: SPF", "dns.records.0.type", "unknown type 'SPF'"),
    ("10 mail.", "mail.", "dns.records.0", "such as '10 mail.example.org'"),
    ("10 mail.", "70000 mail.", "dns.records.0", "at most 65535"),
    ("10 mail.example.org.", "10 m_x.", "dns.records.0", "not a DNS name"),
    ("type: MX, value: 10", "type: CNAME, value:", "dns.records.0", "cannot have a CNAME"),
    ("type: MX, value: 10 mail.", "type: A, value: ", "dns.records.0", "A record is wrong"),
    ("@\", type: MX, value: 10", "x\", type: NS, value:", "dns.records.0", "only the zone itself"),
    ("type: TXT, value: hello", "type: TXT, value: ''", "dns.records.1", "1 to 1024 bytes"),
    ("_acme.web, t", "_acme.example.org., t", "dns.records.1", "not in the zone lab.test"),
    (
        "_acme.web, type: TXT, value: hello",
        "web, type: A, value: 192.0.2.5",
        "dns.records.1",
        "belongs to service 'web'",
    ),
    (
        "_acme.web, type: TXT, value: hello",
        "ns, type: A, value: 192.0.2.5",
        "dns.records.1",
        "'nameserver_address'",
    ),
    (
        "_acme.web, type: TXT, value: hello",
        "alias, type: CNAME, value: web.lab.test",
        "dns.records.1",
        "to the names of that service",
    ),
    ("listen: \"[::1]:5300\"", "listen: 127.0.0.1:0", "dns.listen", "an IP address"),
]  # fmt: skip


@pytest.mark.parametrize(
    "uri", ["qemu:///system", "xen+tls://pc1/system", "xen+tcp://pc1/system", "spt:///"]
)
def test_a_xenstore_key_is_waited_for_only_where_it_can_be(uri: str) -> None:
    text = LAB.replace('{console: "ready in [0-9]+ ms"}', "{xenstore: {}}")
    assert parsed(text).service("db").probe.key == "data/ready"
    error = refused(text.replace("xen+ssh://root@pc1/system", uri))
    assert error.field == "services.db.ready.xenstore"
    assert f"(pc1: {uri})" in error.message
    assert "xen+ssh" in error.message


def test_memory_left_out_is_the_familys() -> None:
    text = LAB.replace("cpu: 0.5, memory: 96 MiB", "cpu: 0.5")
    assert parsed(text).service("web").resources.memory_mib == LINUX.traits.default_memory_mib
    error = refused(text.replace("{family: linux, kernel", "{kernel"))
    assert "defaults.resources.memory: is missing" in str(error)
    assert "does not name the family" in str(error)


COMMAND = '    exec: [/usr/bin/python3, -m, http.server, 8080, ""]\n'
OTHER = """    family: linux
    kernel: /srv/vmlinuz
    disks: [{path: a.qcow2, format: qcow2, read_only: false}]
"""


def test_an_image_may_be_a_command() -> None:
    written = f"{COMMAND}    tree: root\n    seccomp: false\n"
    image = parsed(LAB.replace(OTHER, written)).image("other")
    assert image.exec == ("/usr/bin/python3", "-m", "http.server", "8080", "")
    assert (image.family, image.filtered) == ("command", False)
    assert image.tree is not None
    assert image.tree.is_absolute()
    assert image.tree.name == "root"


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("    exec: [python3]\n", "must begin with the path of a program"),
        ("    exec: [/]\n", "must begin with the path of a program"),
        ('    exec: [/bin/sh, "a\\0b"]\n', "characters that are not text"),
        (f"{COMMAND}    kernel: a\n", "has 'exec' and 'kernel'"),
        (f"{COMMAND}    catalog: web\n", "has 'exec' and 'catalog'"),
        (f"{COMMAND}    cmdline: a\n", "has 'exec' and 'cmdline'"),
        (f"{COMMAND}    family: linux\n", "not of family 'linux'"),
        (f"{OTHER}    tree: a\n", "it needs 'exec', too"),
    ],
)
def test_a_command_is_its_exec_alone(written: str, words: str) -> None:
    assert OTHER in LAB
    error = refused(LAB.replace(OTHER, written))
    assert words in str(error)


def test_guests_of_an_image_are_told_their_service_unless_it_is_anonymous() -> None:
    assert not parsed(LAB).image("micro").anonymous
    text = LAB.replace("{family: linux,", "{family: linux, anonymous: true,")
    assert parsed(text).image("micro").anonymous


def test_an_image_needs_something_to_boot() -> None:
    files = (
        "    kernel: /srv/vmlinuz\n    disks: [{path: a.qcow2, format: qcow2, read_only: false}]\n"
    )
    assert files in LAB
    error = refused(LAB.replace(files, ""))
    assert "images.other: needs 'kernel', 'disks', 'exec' or 'catalog'" in str(error)


def test_a_service_may_have_several_images() -> None:
    lab = parsed(LAB.replace("    image: other", "    image: [other, micro]"))
    assert lab.service("db").images == ("other", "micro")
    assert lab.service("web").images == ("micro",)
    error = refused(LAB.replace("    image: other", "    image: [other, mikro]"))
    assert "services.db.image.1: unknown image 'mikro'; did you mean 'micro'?" in str(error)


@pytest.mark.parametrize(("old", "new", "field", "message"), MISTAKES)
def test_each_mistake_is_named_with_its_key_and_line(
    old: str, new: str, field: str, message: str
) -> None:
    assert LAB.count(old) >= 1
    text = LAB.replace(old, new, 1)
    error = refused(text)
    assert error.field == field
    assert message in str(error)
    assert str(error).startswith(f"{FILE}:{error.line}: {field}: ")
    assert error.line == expected_line(text, field)


def expected_line(text: str, field: str) -> int:
    """Return the line of a dotted key, or of what is around it, found by PyYAML's own composer."""
    node, line = yaml.compose(text, yaml.BaseLoader), 1
    for part in field.split("."):
        if isinstance(node, yaml.SequenceNode):
            node = node.value[int(part)]
            line = node.start_mark.line + 1
            continue
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        found = [pair for pair in pairs if pair[0].value == part]
        if not found:
            break
        line = found[-1][0].start_mark.line + 1
        node = found[-1][1]
    return line


def test_addresses_are_in_one_pool_only() -> None:
    error = refused(
        LAB.replace(
            "10.2.0.0/24, gateway: 10.2.0.1, pool: 10.2.0.10-10.2.0.20",
            "10.1.0.0/24, gateway: 10.1.0.1, pool: 10.1.0.20-10.1.0.30",
        )
    )
    assert error.field == "hosts.pc2.network.pool"
    assert "overlaps the pool of host 'pc1', 10.1.0.10-10.1.0.20 in line 26" in str(error)


def test_one_libvirt_network_is_described_in_one_way() -> None:
    error = refused(LAB.replace("root@pc2", "root@pc1").replace("name: lab2", "name: lab1"))
    assert error.field == "hosts.pc2.network.name"


def test_two_networks_of_one_libvirt_have_two_bridges() -> None:
    error = refused(
        LAB.replace("root@pc2", "root@pc1").replace(
            "pool: 10.2.0.10-10.2.0.20", "pool: 10.2.0.10-10.2.0.20, create: true, bridge: br1"
        )
    )
    assert error.field == "hosts.pc2.network.bridge"
    assert "also the bridge of 'lab1', of host 'pc1'" in str(error)


def test_services_that_cannot_be_apart_are_refused_also_when_it_is_said_indirectly() -> None:
    alone = "    resources: {cpu: 0.1, memory: 1 MiB}\n    constraints: "
    text = (
        LAB
        + f"  a:\n{alone}{{together_with: [b, c]}}\n  b:\n{alone}{{apart_from: [c]}}\n  c: {{}}\n"
    )
    error = refused(text)
    assert error.field == "services.b.constraints.apart_from"
    assert "'together_with' of 'a'" in str(error)


def test_services_with_one_and_the_same_host_cannot_be_apart() -> None:
    error = refused(
        LAB.replace("replicas: 2", "replicas: 1").replace(
            "apart_from: [db]", "apart_from: [db], hosts: [pc1]"
        )
    )
    assert error.field == "services.web.constraints.apart_from"
    assert "same single host" in str(error)


def test_instances_have_names_that_fit_in_a_dns_label() -> None:
    long = "x" * 30
    error = refused(LAB.replace("name: full", f"name: {long}").replace("  db:", f"  {long}:")
                    .replace("[db]", f"[{long}]"))  # fmt: skip
    assert error.field == f"services.{long}"
    assert "longer than 63" in str(error)


def test_all_mistakes_are_reported_together_in_the_order_of_the_file() -> None:
    text = LAB.replace("router: r1\n", "router: r9\n").replace("  image: micro", "  image: macro")
    error = refused(text.replace("busy: 0.025 kW", "busy: 1 W"))
    assert [line.split(": ")[:2] for line in str(error).splitlines()] == [
        ["/labs/lab.yaml:16", "hosts.pc1.router"],
        ["/labs/lab.yaml:20", "hosts.pc1.energy.busy"],
        ["/labs/lab.yaml:49", "defaults.image"],
    ]
    assert (error.line, error.field) == (16, "hosts.pc1.router")


def test_a_mistake_in_the_defaults_is_reported_once() -> None:
    error = refused(LAB.replace("resources: {cpu: 0.5, memory: 96 MiB}", "resuorces: {}"))
    assert str(error).count("unknown key") == 1
    assert error.field == "defaults.resuorces"


def test_a_long_list_of_mistakes_is_cut(tmp_path: Path) -> None:
    lines = str(refused(LAB + "".join(f"x{number}: y\n" for number in range(80)))).splitlines()
    assert len(lines) == 51
    assert lines[-1] == "and 30 more"


def test_a_file_whose_name_is_no_lab_name_is_told_to_say_one(tmp_path: Path) -> None:
    path = tmp_path / "my lab.yaml"
    path.write_text(LAB.replace("name: full\n", ""), encoding="utf-8")
    with pytest.raises(LabError, match="'my lab' is not right") as caught:
        load_lab(path)
    assert caught.value.field == "name"
    assert "does not set 'name'" in str(caught.value)


# --- files that are not YAML, or mean harm ----------------------------------------------------

BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcd", "bcde"))  # noqa: B905


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "is empty"),
        ("# only a comment\n", 1, "is empty"),
        ("\n- a\n", 2, "must be a mapping"),
        ("zone", 1, "must be a mapping"),
        ("zone: x\nhosts:\n\tbox: 1\n", 3, "indent with spaces, not tabs"),
        ("zone: x\nnames: [@]\n", 2, "put the text in quotes"),
        ("zone: x\nhosts: {a: [}\n", 2, "not valid YAML"),
        ("zone: x\n  hosts: y\n", 2, "not valid YAML"),
        ("zone: x\n---\nzone: y\n", 2, "not valid YAML"),
        ("zone: x\nname: a\x07b\n", 2, "U+0007 is not allowed"),
        ('zone: x\n"\\uD800": y\n', 2, "a key must be a plain word"),
        (BOMB, 1, "anchors and aliases"),
        ("zone: x\n<<: *base\n", 2, "anchors and aliases"),
        ("zone: !!python/object/apply:os.getcwd []\n", 1, "tags are not supported"),
        ("zone: x\nname: !env HOME\n", 2, "tags are not supported"),
        ("zone: x\n? [a, b]\n: c\n", 2, "a key must be a plain word"),
        ("a: " + "[" * 5000 + "]" * 5000, 1, "nested more than 16 levels"),
        ("a: " + "{a: " * 5000, 1, "nested more than 16 levels"),
        ('zone: "\\UFFFFFFFF"\n', None, "not valid YAML"),
        (f"%YAML {'1' * 5000}.1\n---\na: b\n", None, "not valid YAML"),
        ("zone: " + "x" * LARGEST_FILE, None, "larger than 1 MiB"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_not_a_mapping_of_plain_yaml_is_refused(
    text: str, line: int | None, message: str
) -> None:
    error = refused(text)
    assert message in str(error)
    assert error.line == line
    assert len(str(error)) < 1000


def test_bytes_that_are_not_utf8_are_refused_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_bytes(b"zone: x\nname: caf\xe9\n")
    with pytest.raises(LabError, match="is not UTF-8 text") as caught:
        load_lab(path)
    assert (caught.value.file, caught.value.line) == (path, 2)


def test_a_file_that_is_too_large_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: takes no room, and would not fit in memory
    with pytest.raises(LabError, match="larger than 1 MiB"):
        load_lab(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"nowhere\.yaml: cannot be read: No such file"):
        load_lab(tmp_path / "nowhere.yaml")


# --- properties -------------------------------------------------------------------------------


def parses_or_is_refused(text: str) -> None:
    try:
        parse_lab(text, FILE)
    except LabError as error:
        str(error).encode()  # it can be printed, whatever was in the file


@settings(deadline=None)
@given(st.text(alphabet=st.characters(), max_size=60))
def test_no_text_raises_anything_but_a_lab_error(text: str) -> None:
    parses_or_is_refused(text)


@settings(deadline=None)
@given(st.lists(st.sampled_from([*"{}[]:,-&*!%|>'\"?#@ \n\ta1\\", "\n  ", "<<", "---\n", "\\u"])))
def test_no_text_of_yaml_signs_raises_anything_but_a_lab_error(parts: list[str]) -> None:
    parses_or_is_refused("".join(parts))


@st.composite
def mutations(draw: st.DrawFn) -> str:
    """Return the demo with a few stretches of it cut, doubled or replaced by something else."""
    text = DEMO
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        other = draw(
            st.sampled_from(
                ["", text[start:end] * 2, "\n", "0", "-1", "[", "{}", ": ", "99999999999"]
            )
            | st.text(max_size=5)
        )
        text = text[:start] + other + text[end:]
    return text


@settings(deadline=None)
@given(mutations())
def test_no_mutation_of_the_demo_raises_anything_but_a_lab_error(text: str) -> None:
    parses_or_is_refused(text)


@st.composite
def values(draw: st.DrawFn) -> str:
    """Return the demo with one scalar replaced by one of another kind."""
    scalars = [node for node in walked(yaml.compose(DEMO, yaml.BaseLoader)) if is_scalar(node)]
    node = draw(st.sampled_from(scalars))
    other = draw(
        st.sampled_from(
            ["0", "-1", "1e999", ".inf", "true", "[]", "{}", "[[[]]]", "null", '""', "x" * 300]
        )
        | st.from_regex(r"[0-9]{1,6} ?(MiB|GiB|ms|s|/s|/min|W|Gbit/s)", fullmatch=True)
    )
    return DEMO[: node.start_mark.index] + other + DEMO[node.end_mark.index :]


@settings(deadline=None)
@given(values())
def test_no_value_in_the_demo_raises_anything_but_a_lab_error(text: str) -> None:
    parses_or_is_refused(text)


def walked(node: yaml.Node | None) -> Iterator[yaml.Node]:
    assert node is not None
    yield node
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            for child in pair:
                yield from walked(child)
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from walked(child)


def is_scalar(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode)


def our_keys(node: yaml.Node | None, chosen_by_user: bool = False) -> Iterator[yaml.Node]:
    """Yield the keys that the schema knows, not those that the user makes up."""
    for child in node.value if isinstance(node, yaml.SequenceNode) else ():
        yield from our_keys(child)
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if not chosen_by_user:
            yield key
        made_up = {"hosts", "routers", "clients", "images", "services", "labels", "config"}
        yield from our_keys(value, not chosen_by_user and key.value in made_up)


@settings(deadline=None)
@given(
    st.sampled_from(list(our_keys(yaml.compose(DEMO, yaml.BaseLoader)))),
    st.from_regex(r"[a-z_]{1,12}", fullmatch=True),
)
def test_a_key_with_another_name_gives_an_error_in_its_line(key: Any, name: str) -> None:
    assume(name not in ALL_KEYS)
    text = DEMO[: key.start_mark.index] + name + DEMO[key.end_mark.index :]
    error = refused(text)
    assert f"{FILE}:{key.start_mark.line + 1}: " in str(error)
    assert f"{name}: unknown key" in str(error)


# --- the schema and the reference -------------------------------------------------------------


def mappings(model: type[Entry], where: str = "") -> Iterator[tuple[str, type[Entry]]]:
    """Yield each kind of mapping of the file, with the place where it is written."""
    yield where, model
    for key, info in model.model_fields.items():
        place = f"{where}.{key}".removeprefix(".")
        if model is LabEntry and key == "defaults":
            continue
        for kind in leaves(info.annotation):
            if isinstance(kind, type) and issubclass(kind, Entry) and kind.model_fields:
                in_dict = "dict" in str(info.annotation)
                yield from mappings(kind, f"{place}.NAME" if in_dict else place)


def leaves(kind: Any) -> Iterator[Any]:
    yield kind
    for part in get_args(kind):
        yield from leaves(part)


MAPPINGS: dict[str, type[Entry]] = dict(mappings(LabEntry))
ALL_KEYS = {key for model in MAPPINGS.values() for key in model.model_fields}


def tables() -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the tables of keys in the reference: place → key → (value, default, meaning)."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for section in re.split(r"^##+ ", REFERENCE, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \| (.*) \|$", body, flags=re.MULTILINE)
        if rows:
            place = "" if title == "Top level" else title.strip("`")
            found[place] = {key: tuple(rest) for key, *rest in rows}
    return found


def test_the_reference_has_a_table_for_each_mapping() -> None:
    assert set(tables()) == set(MAPPINGS)


@pytest.mark.parametrize("place", MAPPINGS, ids=lambda place: place or "top")
def test_the_reference_has_each_key_with_its_default(place: str) -> None:
    model, rows = MAPPINGS[place], tables()[place]
    assert list(rows) == list(model.model_fields)
    for key, info in model.model_fields.items():
        _, default, meaning = rows[key]
        assert (default == "required") == info.is_required(), key
        assert meaning.endswith("."), key
        written = default_of(model, key)
        if written is not None:
            assert default == written, key


def default_of(model: type[Entry], key: str) -> str | None:
    """Return a default as the reference has to write it; None if it may use words."""
    definition = schema_of(model)["properties"][key]
    match definition.get("default"):
        case bool() as value:
            return f"`{str(value).lower()}`"
        case int() | float() as value:
            return f"`{value:g}`"
        case str() as value if value:
            return f"`{value}`"
        case [] if definition.get("type", "array") == "array" and model is not LabEntry:
            return "`[]`"
    return None


def schema_of(model: type[Entry]) -> dict[str, Any]:
    schema: dict[str, Any] = lab_schema()
    if model is LabEntry:
        return schema
    definition: dict[str, Any] = schema["$defs"][model.__name__]
    return definition["anyOf"][-1] if "anyOf" in definition else definition


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", REFERENCE, flags=re.DOTALL))
def test_the_labs_in_the_reference_load(text: str) -> None:
    assert parsed(text).services


def test_the_schema_names_its_dialect_and_describes_every_key() -> None:
    schema = lab_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    models: list[type[Entry]] = [*MAPPINGS.values(), ServiceDefaults]
    for model in models:
        properties = schema_of(model)["properties"]
        assert set(properties) == set(model.model_fields)
        assert all(definition["description"] for definition in properties.values())
        assert schema_of(model)["additionalProperties"] is False


@pytest.mark.parametrize("name", ["demo", "nine-mini-pcs", "four-mecs"])
def test_the_examples_satisfy_the_schema(name: str) -> None:
    text = (ROOT / "examples" / f"{name}.yaml").read_text(encoding="utf-8")
    assert list(violations(yaml.safe_load(text), lab_schema(), "")) == []


def test_the_schema_refuses_what_the_program_refuses() -> None:
    wrong = yaml.safe_load(DEMO.replace("6 ms", "6").replace("capacity", "capacty"))
    assert {place for place, _ in violations(wrong, lab_schema(), "")} == {
        ".hosts.box.capacty",
        ".hosts.box.capacity",
        ".links.0.latency",
    }


def violations(value: Any, schema: Any, place: str) -> Iterator[tuple[str, str]]:
    """Yield what breaks a JSON Schema, as far as ours uses the language."""
    if "$ref" in schema:
        schema = lab_schema()["$defs"][schema["$ref"].rpartition("/")[2]]  # type: ignore[index]
    if "anyOf" in schema:
        if all(any(violations(value, option, place)) for option in schema["anyOf"]):
            yield place, "none of the choices"
        return
    for word, holds in CHECKS.items():
        if word in schema and not holds(value, schema[word]):
            yield place, f"{word} {schema[word]}"
    if isinstance(value, dict):
        yield from properties_violated(value, schema, place)
    for index, item in enumerate(value if isinstance(value, list) else ()):
        yield from violations(item, schema["items"], f"{place}.{index}")


def properties_violated(value: Any, schema: Any, place: str) -> Iterator[tuple[str, str]]:
    for key in schema.get("required", ()):
        if key not in value:
            yield f"{place}.{key}", "missing"
    for key, item in value.items():
        patterns = [s for p, s in schema.get("patternProperties", {}).items() if re.search(p, key)]
        more = schema.get("additionalProperties", False)
        wanted = schema.get("properties", {}).get(key) or next(iter(patterns), more)
        if wanted is False:
            yield f"{place}.{key}", "unknown"
        elif wanted is not True:
            yield from violations(item, wanted, f"{place}.{key}")


KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}
CHECKS: dict[str, Callable[[Any, Any], bool]] = {
    "type": lambda value, kinds: any(
        isinstance(value, KINDS[kind]) for kind in ([kinds] if isinstance(kinds, str) else kinds)
    ),
    "enum": lambda value, choices: value in choices,
    "const": lambda value, only: value == only,
    "pattern": lambda value, pattern: bool(re.search(pattern, str(value))),
    "maxLength": lambda value, most: len(str(value)) <= most,
    "minimum": lambda value, least: value >= least,
    "exclusiveMinimum": lambda value, least: value > least,
    "minItems": lambda value, least: len(value) >= least,
}


def test_two_hosts_may_share_a_network_with_a_pool_each(tmp_path: Path) -> None:
    """Which is what live migration needs, and all that it needs of the lab file."""
    hosts = "".join(
        f"""
  {name}:
    uri: xen+ssh://root@{name}/system
    capacity: {{cpu: 4, memory: 8 GiB}}
    migration_address: 10.9.9.{number}
    network: {{name: "bridge:br0", subnet: 10.0.0.0/24, gateway: 10.0.0.1,
      pool: 10.0.0.{number}0-10.0.0.{number}9}}"""
        for number, name in ((2, "pc1"), (3, "pc2"))
    )
    lab = parse_lab(f"zone: lab.test\nhosts:{hosts}\n", tmp_path / "lab.yaml")
    assert apart(*lab.hosts) == ""
    assert [host.migration_address for host in lab.hosts] == ["10.9.9.2", "10.9.9.3"]
