"""What tc, ip and nft are told, word for word; flower as in the Viscum slides."""

from orchestrator.rules.nft import to_nft
from orchestrator.rules.parse import parse
from orchestrator.steering.redirect.base import Redirect, Rung
from orchestrator.steering.redirect.nft import added_chain, added_ways, removed_ways
from orchestrator.steering.redirect.tc import added, compiled

MAC = "02:00:00:00:00:07"
VISCUM = "ip and dst 203.0.113.10"
RACS = "<4==ip_version && proto==TCP && (80==dst_port || 8080==dst_port)>"


def lines(rung: Rung, rule: str, mac: str) -> list[str]:
    redirect = Redirect("web", parse(rule), "eth1", "veth0", mac)
    return added(redirect, 60672, "c00c1e", compiled(rung, redirect.rule))


def test_the_line_of_the_viscum_slides() -> None:
    assert lines(Rung.FLOWER, VISCUM, MAC) == [
        "filter add dev eth1 ingress protocol ip pref 60672 flower dst_ip 203.0.113.10/32 "
        "action skbmod set dmac 02:00:00:00:00:07 pipe "
        "action mirred egress redirect dev veth0 cookie c00c1e"
    ]


def test_flower_says_the_racs_rule_in_two_filters() -> None:
    action = "action mirred egress redirect dev veth0 cookie c00c1e"
    place = "filter add dev eth1 ingress protocol ip pref 60672"
    assert lines(Rung.FLOWER, RACS, "") == [
        f"{place} flower ip_proto tcp ip_flags nofrag dst_port {port} {action}"
        for port in (80, 8080)
    ]


def test_u32() -> None:
    assert lines(Rung.U32, VISCUM, "") == [
        "filter add dev eth1 ingress protocol ip pref 60672 "
        "u32 match u32 0xcb00710a 0xffffffff at 16 "
        "action mirred egress redirect dev veth0 cookie c00c1e"
    ]


def test_classic_bpf_has_a_program_for_each_version() -> None:
    four, six = lines(Rung.BPF, "dst port 80", "")
    assert "protocol ip pref 60672 bpf bytecode" in four
    assert "protocol ipv6 pref 60673 bpf bytecode" in six
    (racs,) = lines(Rung.BPF, RACS, "")
    assert (
        'bpf bytecode "12,40 0 0 12,21 0 9 2048,48 0 0 23,21 0 7 6,40 0 0 20,69 5 0 8191,'
        '177 0 0 14,72 0 0 16,21 1 0 80,21 0 1 8080,6 0 0 65535,6 0 0 0" action' in racs
    )


def test_nftables() -> None:
    redirect = Redirect("web", parse(VISCUM), "eth1", "veth0", MAC)
    said = added_chain("edgewake-x", "r4-name", 0xE1234001, redirect, to_nft(redirect.rule))
    assert (
        said
        == """\
table netdev edgewake-x {
  chain r4-name {
    type filter hook ingress device "eth1" priority -10;
    ether type ip ip daddr 203.0.113.10 meta mark set 0xe1234001 fib daddr . mark oif "veth0" \
meta mark set 0 ether daddr set 02:00:00:00:00:07 counter fwd to "veth0"
    meta mark 0xe1234001 meta mark set 0
  }
}
"""
    )


def test_the_way_that_goes_with_the_device() -> None:
    assert added_ways(0xE1234001, "veth0") == [
        "rule add pref 23757 fwmark 0xe1234001 lookup 3777183745 protocol 238",
        "route replace default dev veth0 table 3777183745 protocol 238",
    ]
    assert [line.split()[1] for line in removed_ways(1)] == ["del", "del"]
