"""What is found on a host, and what is made of it: facts, an entry for a lab file, what is missing.

The recorded answers are real ones: of libvirt 9.0 with QEMU 7.2, and with Xen 4.17 on the test bed.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.facts import Architecture
from orchestrator import host_probe
from orchestrator.errors import HostUnreachable
from orchestrator.host_advice import (
    DOM0_MIB,
    entry_for,
    host_name,
    missing,
    reserve_mib,
    stanza,
)
from orchestrator.host_networks import CANDIDATES
from orchestrator.host_probe import Dom0, FoundNetwork, HostFacts, probe, read_facts, read_xml
from orchestrator.host_shell import Shell, ask_shell, here, read_shell
from orchestrator.hypervisors.kvm import KvmVerdict
from orchestrator.hypervisors.libvirt_probe import Answers, Described, ask
from orchestrator.labfile import parse_lab
from orchestrator.model import Host, Lab

RECORDED = Path(__file__).parent / "recorded"
XEN_URI, QEMU_URI = "xen+ssh://root@pc1.lab.test/system", "qemu+ssh://root@pc2/system"
BRIDGED = (
    """<network><name>xenbr0</name><forward mode='bridge'/><bridge name='xenbr0'/></network>"""
)
NAT = """\
<network><name>default</name><forward mode='nat'/><bridge name='virbr0' stp='on' delay='0'/>
<ip address='192.168.122.1' netmask='255.255.255.0'><dhcp><range start='192.168.122.2'
end='192.168.122.254'/></dhcp></ip></network>"""
POOL = "<pool type='dir'><name>images</name><target><path>/var/lib/images</path></target></pool>"
SAID = """\
clock 1795271785
address 1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever
address 3: xenbr0    inet 10.213.91.2/24 brd 10.213.91.255 scope global xenbr0\\  valid_lft forever
xenstore /usr/bin/xenstore-write
route default via 10.213.91.1 dev xenbr0 proto static
bridge /sys/class/net/xenbr0/bridge
end
"""
XEN = Answers(
    kind="Xen",
    version=4017000,
    libvirt=9000000,
    machine="x86_64",
    cores=2,
    numa_nodes=1,
    memory_mib=2047,
    free_mib=1512,
    capabilities=(RECORDED / "xen-capabilities.xml").read_text(),
    domain_capabilities=None,
    networks=(Described("xenbr0", True, BRIDGED),),
    interfaces=None,
    pools=(Described("images", True, POOL),),
    dom0=(512, 512, 1),
    guests_mib=0,
    streams=True,
)
QEMU = replace(
    XEN,
    kind="QEMU",
    version=7002022,
    cores=4,
    memory_mib=24105,
    free_mib=20000,
    capabilities=(RECORDED / "qemu-capabilities.xml").read_text(),
    networks=(Described("default", False, NAT),),
    interfaces=(
        Described("eth0", True, "<interface type='ethernet' name='eth0'/>"),
        Described("br0", True, "<interface type='bridge' name='br0'/>"),
        Described("$(reboot)", True, "<interface type='bridge' name='$(reboot)'/>"),
    ),
    pools=(),
    dom0=None,
)


@pytest.fixture
def xen() -> HostFacts:
    return read_facts(XEN_URI, XEN, read_shell(SAID, 1795271785.2))


@pytest.fixture
def qemu() -> HostFacts:
    return read_facts(QEMU_URI, QEMU, Shell())


def _lab(*entries: str) -> tuple[Host, ...]:
    text = "zone: t.test\nhosts:\n" + "".join(entries)
    return parse_lab(text, Path("lab.yaml")).hosts


# --- facts ------------------------------------------------------------------------------------


def test_a_xen_host(xen: HostFacts) -> None:
    assert (xen.version, xen.libvirt) == ("4.17.0", "9.0.0")
    assert (xen.pv, xen.pvh) == (True, True)
    assert xen.dom0 == Dom0(memory_mib=512, most_mib=512, cpus=1)
    assert xen.networks == (FoundNetwork("xenbr0", True, "bridge", "xenbr0", None, False),)
    assert xen.bridges == ("xenbr0",)
    assert xen.live_migration
    assert not xen.kvm_device
    assert xen.shell.dnsmasq is False
    assert xen.shell.clock_offset_s == 0


def test_a_qemu_host(qemu: HostFacts) -> None:
    assert qemu.version == "7.2.22"
    assert qemu.emulator == "/usr/bin/qemu-system-x86_64"
    assert {"microvm", "q35", "pc"} <= set(qemu.machines)
    assert qemu.kvm_device
    assert qemu.kvm_boots is None
    assert not qemu.pv
    assert qemu.networks == (
        FoundNetwork("default", False, "nat", "virbr0", IPv4Interface("192.168.122.1/24"), True),
    )
    assert qemu.bridges == ("br0",)


def test_what_drivers_do_not_offer_is_not_known() -> None:
    bare = replace(XEN, networks=None, pools=None, dom0=None, free_mib=None)
    facts = read_facts("xen+tcp://pc1/system", bare, Shell())
    assert (facts.networks, facts.pools, facts.bridges) == (None, None, None)


def test_a_xen_without_hardware_virtualization() -> None:
    pv_only = XEN.capabilities.replace("xenpvh", "linux").replace("hvm", "linux")
    facts = read_facts(XEN_URI, replace(XEN, capabilities=pv_only), Shell())
    assert (facts.pv, facts.pvh) == (True, False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no XML",
        "<capabilities>",
        "<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>",
        "<!doctype x><x/>",
        "<x>&undefined;</x>",
        f"<x>{'y' * host_probe.LARGEST_XML}</x>",
    ],
    ids=range(7),
)
def test_bad_xml_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="XML"):
        read_xml(text)


def test_a_host_that_talks_nonsense_is_as_good_as_unreachable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(host_probe, "ask", lambda *_: replace(XEN, capabilities="<x"))
    monkeypatch.setattr(host_probe, "ask_shell", lambda *_: Shell())
    with pytest.raises(HostUnreachable, match=r"host pc1: .* makes no sense"):
        probe(XEN_URI, name="pc1")


XML_PARTS = st.sampled_from(
    [
        *("<network>", "</network>", "<guest>", "</guest>", "<arch name='x86_64'>", "</arch>"),
        *("<ip address='10.0.0.1' prefix='99'/>", "<ip address='::1'/>", "<bridge/>", "<forward/>"),
        *("<os_type>", "xen", "</os_type>", "<machine/>", "<domain type='kvm'/>", "&lt;", "<!--"),
        *("<ip family='ipv4' address='' netmask='x'/>", "<host>", "</host>", "<![CDATA[", "]]>"),
    ]
)


@given(st.lists(XML_PARTS | st.text(max_size=5), max_size=12).map("".join))
def test_any_xml_gives_facts_or_one_kind_of_error(inside: str) -> None:
    xml = f"<x>{inside}</x>"
    answers = replace(
        XEN,
        capabilities=xml,
        networks=(Described("n", True, xml),),
        pools=(Described("p", True, xml),),
    )
    try:
        facts = read_facts(XEN_URI, answers, Shell())
    except ValueError:
        return
    assert parse_lab(_written(facts), Path("lab.yaml")).hosts


def _written(facts: HostFacts) -> str:
    return "zone: t.test\nhosts:\n" + stanza(entry_for(facts))


# --- what the host's commands say -------------------------------------------------------------


def test_commands_are_read() -> None:
    shell = read_shell(SAID, 1795271785.2)
    assert dict(shell.addresses)["xenbr0"] == IPv4Interface("10.213.91.2/24")
    assert shell.gateways == (("xenbr0", IPv4Address("10.213.91.1")),)
    assert (shell.xenstore, shell.dnsmasq) == (True, False)


@pytest.mark.parametrize(("now", "offset"), [(1795271786.0, 0.0), (1795271745.5, 40.0)])
def test_the_clock_is_compared_as_far_as_it_shows(now: float, offset: float) -> None:
    assert read_shell(SAID, now).clock_offset_s == offset


def test_an_answer_that_is_cut_off_is_none() -> None:
    assert read_shell(SAID.replace("end\n", ""), 0.0) == Shell()


def test_names_that_no_device_of_ours_has_are_left_out() -> None:
    """They come from another machine and end up in commands that are printed to be pasted."""
    said = SAID.replace("xenbr0", "a;reboot")
    shell = read_shell(said, 0.0)
    assert (shell.bridges, shell.gateways) == ((), ())
    assert [name for name, _ in shell.addresses] == ["lo"]


@given(st.text(), st.lists(st.sampled_from([*SAID.split(), "\n"]), max_size=60))
def test_any_answer_can_be_read(text: str, words: list[str]) -> None:
    read_shell(f"{text}\n{' '.join(words)}\nend\n", 0.0)


def test_this_machine_answers() -> None:
    shell = here()
    assert shell.clock_offset_s == 0
    assert "lo" in dict(shell.addresses)


def test_commands_that_hang_or_talk_for_ever_are_ended(tmp_path: Path) -> None:
    def uri(body: str) -> str:
        file = tmp_path / f"ssh{len(list(tmp_path.iterdir()))}"
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o755)
        return f"qemu+ssh://pc1/system?command={file}"

    assert ask_shell(uri("exec sleep 3600"), 0.2) == Shell()
    assert ask_shell(uri("sleep 3600 & wait"), 0.2) == Shell()
    assert ask_shell(uri("exec yes"), 20.0) == Shell()
    assert ask_shell(uri("exit 255"), 20.0) == Shell()
    assert ask_shell(f"qemu+ssh://pc1/system?command={tmp_path}/none", 20.0) == Shell()
    assert ask_shell(uri(f"cat <<'E'\n{SAID}E"), 20.0).bridges == ("xenbr0",)


def test_ssh_is_asked_as_the_uri_says(tmp_path: Path) -> None:
    """And never with a terminal, nor without looking at the host's key unless told so."""
    file, seen = tmp_path / "ssh", tmp_path / "seen"
    file.write_text(f'#!/bin/sh\nprintf "%s|" "$@" >{seen}\n')
    file.chmod(0o755)
    ask_shell(f"xen+ssh://me@pc1:2222/system?command={file}&keyfile=/k")
    asked = seen.read_text()
    assert asked.startswith("-T|-oBatchMode=yes|-oConnectTimeout=8|-oServerAliveInterval=5|")
    assert "|-i|/k|-p|2222|-l|me|--|pc1|" in asked
    ask_shell(f"xen+ssh://-oProxyCommand=reboot/system?command={file}&no_verify=1")
    assert "|-oStrictHostKeyChecking=no|--|-oproxycommand=reboot|" in seen.read_text()


def test_over_tls_nobody_asks_commands() -> None:
    assert ask_shell("xen+tls://pc1/system") == Shell()
    assert ask_shell("test:///default") == Shell()


# --- the entry for a lab file -----------------------------------------------------------------


def test_the_entry_of_a_xen_host_uses_its_bridge(xen: HostFacts) -> None:
    (host,) = _lab(stanza(entry_for(xen)))
    assert (host.name, host.uri) == ("pc1", XEN_URI)
    assert (host.capacity.memory_mib, host.reserve.memory_mib) == (2047, 576)
    assert dict(host.labels) == {"hypervisor": "xen", "pvh": "yes"}
    network = host.network
    assert (network.name, network.create, network.bridge) == ("xenbr0", False, "")
    assert network.subnet == IPv4Network("10.213.91.0/24")
    assert network.gateway == IPv4Address("10.213.91.1")
    assert network.first > IPv4Address("10.213.91.2")


def test_the_entry_says_what_the_processors_are_unless_they_are_the_usual_ones(
    xen: HostFacts,
) -> None:
    assert "arch" not in stanza(entry_for(xen))
    (host,) = _lab(stanza(entry_for(replace(xen, architecture="aarch64"))))
    assert host.architecture is Architecture.AARCH64


def test_a_host_behind_a_tunnel_says_where_other_hosts_reach_it(xen: HostFacts) -> None:
    assert "migration_address" not in stanza(entry_for(xen))
    tunnel = replace(xen, uri="xen+ssh://root@127.0.0.1:2222/system")
    (host,) = _lab(stanza(entry_for(tunnel)))
    assert host.migration_address == "10.213.91.2"
    unknown = replace(tunnel, shell=Shell())
    assert "migration_address" not in stanza(entry_for(unknown))


def test_the_entry_of_a_qemu_host_makes_a_network(qemu: HostFacts) -> None:
    """Its `default` is not used: it is for NAT, so nobody reaches guests there."""
    (host,) = _lab(stanza(entry_for(qemu, "my-box")))
    assert host.reserve.cpu == 0.5
    assert (host.network.name, host.network.bridge) == ("edgewake-my-box", "ew-my-box")
    assert host.network.create
    assert host.network.subnet == CANDIDATES[0]


def test_a_network_that_is_made_is_free_there_here_and_in_the_lab(qemu: HostFacts) -> None:
    lab = parse_lab(_written(qemu), Path("lab.yaml"))
    there = Shell(addresses=(("br0", IPv4Interface(f"{CANDIDATES[1][7]}/24")),))
    busy = [CANDIDATES[2]]
    entry = entry_for(replace(qemu, shell=there), "", lab, busy)
    assert entry.network is not None
    assert entry.network.subnet == CANDIDATES[3]
    assert entry.name == "pc2-2"
    assert len(_lab(stanza(entry_for(qemu)), stanza(entry))) == 2


def test_a_host_with_no_free_network_says_so(qemu: HostFacts) -> None:
    entry = entry_for(qemu, busy=[IPv4Network("10.213.0.0/16")])
    assert entry.network is None
    assert "# network: none is free" in stanza(entry)
    assert entry_for(replace(qemu, networks=None)).network is None


def _with_bridge(facts: HostFacts, address: str, *gateways: str) -> HostFacts:
    shell = Shell(
        bridges=("xenbr0",),
        addresses=(("xenbr0", IPv4Interface(address)),),
        gateways=tuple(("xenbr0", IPv4Address(each)) for each in gateways),
    )
    return replace(facts, shell=shell)


@pytest.mark.parametrize(
    ("address", "gateways", "pool"),
    [
        ("192.168.1.2/24", ["192.168.1.1"], "192.168.1.205-192.168.1.254"),
        ("192.168.1.2/24", [], "192.168.1.205-192.168.1.254"),
        ("192.168.1.254/24", ["192.168.1.253"], "192.168.1.203-192.168.1.252"),
        ("192.168.1.240/24", ["192.168.1.1"], "192.168.1.241-192.168.1.254"),
        ("192.168.1.2/29", ["192.168.1.1"], "192.168.1.3-192.168.1.6"),
        ("10.0.0.2/8", ["10.0.0.1"], "10.255.255.205-10.255.255.254"),
        ("192.168.1.2/24", ["10.9.9.9"], "192.168.1.205-192.168.1.254"),
    ],
)
def test_the_pool_leaves_the_hosts_own_addresses_out(
    xen: HostFacts, address: str, gateways: list[str], pool: str
) -> None:
    written = stanza(entry_for(_with_bridge(xen, address, *gateways)))
    assert f"pool: {pool}" in written
    assert _lab(written)


def _joining(facts: HostFacts, *pools: str) -> Lab:
    """Return a lab of which hosts have these pools on the network of `facts`."""
    written = stanza(entry_for(facts, "first"))
    usual = re.search(r"pool: (\S+)", written)
    assert usual
    entries = (
        written.replace("first:", f"host{at}:")
        .replace(usual[1], pool)
        .replace("@pc1.", f"@host{at}.")
        for at, pool in enumerate(pools)
    )
    return parse_lab("zone: t.test\nhosts:\n" + "".join(entries), Path("lab.yaml"))


@pytest.mark.parametrize(
    ("pools", "expected"),
    [
        (["192.168.1.205-192.168.1.254"], "192.168.1.155-192.168.1.204"),
        (["192.168.1.10-192.168.1.250"], "192.168.1.251-192.168.1.254"),
        (
            ["192.168.1.3-192.168.1.99", "192.168.1.120-192.168.1.254"],
            "192.168.1.100-192.168.1.119",
        ),
        (
            ["192.168.1.200-192.168.1.254", "192.168.1.180-192.168.1.189"],
            "192.168.1.190-192.168.1.199",
        ),
    ],
)
def test_the_pool_leaves_those_of_the_lab_out(
    xen: HostFacts, pools: list[str], expected: str
) -> None:
    facts = _with_bridge(xen, "192.168.1.2/24", "192.168.1.1")
    lab = _joining(facts, *pools)
    entry = entry_for(facts, "second", lab)
    assert f"pool: {expected}" in stanza(entry)
    assert not any("free" in each.what for each in missing(facts, entry, lab))


def test_the_address_of_a_host_of_the_lab_is_in_no_pool(xen: HostFacts) -> None:
    """It is known where the lab says that guests are migrated to it."""
    facts = _with_bridge(xen, "192.168.1.2/24", "192.168.1.1")
    lab = _joining(facts, "192.168.1.205-192.168.1.253")
    host = replace(lab.hosts[0], migration_address="192.168.1.254")
    entry = entry_for(facts, "second", replace(lab, hosts=(host,)))
    assert "pool: 192.168.1.155-192.168.1.204" in stanza(entry)


def test_a_subnet_that_the_lab_has_used_up_is_missing(xen: HostFacts) -> None:
    facts = _with_bridge(xen, "192.168.1.2/29", "192.168.1.1")
    lab = _joining(facts, "192.168.1.3-192.168.1.6")
    entry = entry_for(facts, "second", lab)
    assert entry.network is not None
    assert entry.network.bridge  # a network of its own, then
    first, *rest = [each.what for each in missing(facts, entry, lab)]
    assert first.startswith("the lab's pools leave no address of 192.168.1.0/29 free")
    assert not any("not known, or too small" in each for each in rest)


def test_a_subnet_too_small_for_guests_is_not_used(xen: HostFacts) -> None:
    entry = entry_for(_with_bridge(xen, "192.168.1.1/30"))
    assert entry.network is not None
    assert entry.network.bridge


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("qemu:///system", "box"),
        ("xen+ssh://root@PC1.lab.test/system", "pc1"),
        ("xen+ssh://root@192.0.2.7/system", "host-192-0-2-7"),
        ("xen+ssh://root@[2001:db8::7]/system", "host-2001-db8-7"),
        ("qemu+tls://9lives/system", "host-9lives"),
        (f"qemu+tls://{'x' * 60}/system", "x" * 26),
    ],
)
def test_a_host_is_named_after_its_uri(qemu: HostFacts, uri: str, name: str) -> None:
    assert host_name(uri) == name
    assert host_name(uri, [name]) == f"{name}-2"
    (host,) = _lab(stanza(entry_for(replace(qemu, uri=uri))))
    assert host.uri == uri


@pytest.mark.parametrize(
    ("change", "reserve"),
    [
        ({"free_mib": 1512}, 576),
        ({"free_mib": 512, "guests_mib": 1000}, 576),
        ({"memory_mib": 16384, "free_mib": 100, "dom0": Dom0(16000, 16384, 4)}, DOM0_MIB),
        ({"memory_mib": 2047, "free_mib": None}, 511),
        ({"memory_mib": 24105, "dom0": None}, 1024),
        ({"memory_mib": 300, "dom0": None}, 150),
    ],
)
def test_the_reserve_is_what_dom0_or_the_host_takes(
    xen: HostFacts, change: dict[str, object], reserve: int
) -> None:
    assert reserve_mib(replace(xen, **change)) == reserve  # type: ignore[arg-type]


@given(
    st.integers(1, 1 << 22),
    st.integers(0, 1 << 22) | st.none(),
    st.integers(0, 1 << 22),
    st.integers(0, 1 << 22) | st.none(),
)
def test_guests_are_always_left_something(
    total: int, free: int | None, guests: int, dom0: int | None
) -> None:
    facts = replace(
        read_facts(XEN_URI, XEN, Shell()),
        memory_mib=total,
        free_mib=free,
        guests_mib=guests,
        dom0=None if dom0 is None else Dom0(dom0, dom0, 1),
    )
    assert 0 <= reserve_mib(facts) < total


# --- what is missing --------------------------------------------------------------------------

Change = Callable[[HostFacts], HostFacts]


def _of(facts: HostFacts) -> dict[str, str]:
    return {each.what: " ".join(each.do) for each in missing(facts, entry_for(facts))}


def test_nothing_is_missing_on_the_bed_and_its_lack_of_dnsmasq_is_a_note(xen: HostFacts) -> None:
    (note,) = missing(xen, entry_for(xen))
    assert note.note
    assert note.what == "no dnsmasq, which only `dhcp: true` needs"
    assert note.do == ("there: apt install dnsmasq-base",)


def test_a_route_by_way_of_our_loopback_is_not_proposed(xen: HostFacts) -> None:
    for uri in ("xen+tcp://127.0.0.1:27001/system", "xen+ssh://root@localhost/system"):
        tunnel = replace(xen, uri=uri, networks=())
        assert entry_for(tunnel).network is not None
        assert not any("ip route add" in each for each in _of(tunnel).values())


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("xen+tcp://127.0.0.1:27001/system", True),
        ("xen+tls://pc1/system", True),
        (XEN_URI, False),
        ("xen:///system", False),
    ],
)
def test_over_ssh_more_could_be_seen(xen: HostFacts, uri: str, said: bool) -> None:
    found = _of(replace(xen, uri=uri, shell=Shell()))
    commands = [do for what, do in found.items() if "over ssh more could be seen" in what]
    assert commands == (["edgewake host add xen+ssh://root@HOST/system"] if said else [])


@pytest.mark.parametrize(
    ("uri", "known"),
    [
        (XEN_URI, True),
        (f"{XEN_URI}?keyfile=/k", True),
        (f"{XEN_URI}?socket=/run/other", False),
        ("xen+ssh://root@pc1.lab.test:2222/system", False),
    ],
)
def test_a_uri_that_the_lab_has_is_noted(xen: HostFacts, uri: str, known: bool) -> None:
    lab = parse_lab("zone: t.test\nhosts:\n" + stanza(entry_for(xen, "first")), Path("lab.yaml"))
    again = replace(xen, uri=uri)
    notes = [each.what for each in missing(again, entry_for(again, "", lab), lab) if each.note]
    assert ("the lab has this URI as host first already" in notes) is known


@pytest.mark.parametrize(
    ("change", "what", "cure"),
    [
        ({"pools": None}, "no storage driver", "apt install"),
        ({"networks": None}, "no network driver", "apt install"),
        ({"guest_types": ("xen",)}, "no PVH guests", "BIOS"),
        ({"dom0": Dom0(2000, 2047, 2)}, "dom0 has most of the memory", "dom0_mem=1024M"),
        ({"networks": (), "bridges": ()}, "no bridge on that Xen host", "/etc/network/interfaces"),
        ({"networks": ()}, "uses the bridge xenbr0", "net-define"),
        ({"networks": ()}, "needs a route", "ip route add 10.213.110.0/24 via pc1.lab.test"),
        ({"shell": Shell(clock_offset_s=-90.0)}, "90 s behind ours", "chrony"),
        ({"shell": Shell(xenstore=False)}, "no xenstore-write", "apt install xenstore-utils"),
        ({"shell": Shell()}, "subnet of its network xenbr0 is not known", "ip -4 address"),
        ({"architecture": "aarch64"}, "tested with x86_64 alone", ""),
        ({"architecture": "s390x"}, "a lab file may say x86_64, i686, aarch64, riscv64", ""),
        ({"uri": f"{XEN_URI}?no_verify=1"}, "key is not checked", ""),
    ],
)
def test_what_is_missing_comes_with_its_cure(
    xen: HostFacts, change: dict[str, object], what: str, cure: str
) -> None:
    found = _of(replace(xen, **change))  # type: ignore[arg-type]
    assert any(what in each and cure in found[each] for each in found), found


def test_kvm_that_does_not_boot_is_missing(qemu: HostFacts) -> None:
    assert not any("KVM" in each for each in _of(qemu))
    broken = replace(qemu, kvm_boots=KvmVerdict(False, "it said nothing", 5.0))
    assert any("no KVM (it said nothing)" in each for each in _of(broken))
    assert any("no KVM" in each for each in _of(replace(qemu, kvm_device=False)))


# --- for real ---------------------------------------------------------------------------------


def test_libvirts_own_test_driver_can_be_probed() -> None:
    facts = probe("test:///default")
    assert (facts.kind, facts.cores) == ("TEST", 16)
    assert facts.pools is not None
    assert _lab(stanza(entry_for(facts)))


def test_a_uri_that_is_none_is_told_before_anybody_is_asked() -> None:
    with pytest.raises(HostUnreachable, match=r"no libvirt URI: .*driver"):
        probe("root@pc1")


def test_a_libvirt_that_hangs_is_left_behind(tmp_path: Path) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\nexec sleep 20\n")
    ssh.chmod(0o755)
    with pytest.raises(HostUnreachable, match=r"no answer within 0\.2 s") as caught:
        ask("pc1", f"qemu+ssh://pc1/system?command={ssh}", 0.2)
    assert "ping" in caught.value.hint


@pytest.mark.real
def test_this_machines_qemu() -> None:
    facts = probe("qemu:///system")
    assert facts.kind == "QEMU"
    assert facts.memory_mib > 0
    assert facts.pools is not None
    assert facts.shell.clock_offset_s == 0
    assert _lab(stanza(entry_for(facts)))
