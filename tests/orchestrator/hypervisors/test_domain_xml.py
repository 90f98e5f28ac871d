"""Domain and network XML against golden files; marks survive the way there and back.

`UPDATE_GOLDEN=1 pytest …` rewrites the files; read the difference before you commit it.
"""

import os
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.bootspec import BootSpec, Disk, Nic
from images.facts import Architecture, Entry
from orchestrator.hypervisors.domain_xml import (
    SLOW_CPU_CHECK,
    domain_xml,
    network_uuid,
    network_xml,
    parse_cap,
    parse_mark,
    same_network,
    xen_domain_xml,
)
from orchestrator.model import Guest, GuestNetwork, Mark, cpu_ranges, guest_uuid

GOLDEN = Path(__file__).parents[2] / "golden" / "domain_xml"

MARK = Mark("edge1/demo", "ew-demo-web-0", "web", "edge1", IPv4Address("10.77.2.10"))
PLAIN = Guest(
    name="ew-demo-web-0",
    mark=MARK,
    boot=BootSpec(
        kernel=Path("/var/lib/edgewake/images/vmlinuz"),
        initrd=Path("/var/lib/edgewake/images/initrd.gz"),
        memory_mib=96,
        cmdline="console=ttyS0 ew.ip=10.77.2.10/24",
        nics=(Nic("ew-demo", "02:ed:0a:4d:02:0a"),),
    ),
)
CONSOLE = Path("/var/lib/edgewake/console/ew-demo-web-0.log")
UNIKERNEL = replace(
    PLAIN,
    boot=BootSpec(
        kernel=Path("/images/hello.virtio"),
        memory_mib=16,
        vcpus=2,
        acpi=False,
        cmdline='{"net":{"if":"vioif0","addr":"10.77.2.10"}} <&> \'quoted\'',
        nics=(Nic("one", "02:ed:00:00:00:01"), Nic("two", "02:ed:00:00:00:02")),
        disks=(Disk(Path("/images/a.qcow2"), format="qcow2"), Disk(Path("/images/b & c.img"))),
    ),
)
DUAL_STACK = replace(PLAIN, mark=replace(MARK, address6=IPv6Address("fd77::a")))
WRITABLE = replace(
    PLAIN, boot=replace(PLAIN.boot, disks=(Disk(Path("/data/own.img"), read_only=False),))
)
TRANSITIONAL = replace(
    PLAIN,
    boot=BootSpec(
        kernel=Path("/images/mirage.virtio"),
        memory_mib=32,
        machine="q35",
        entry=Entry.MULTIBOOT,
        nics=(Nic("bridge:br0", "02:ed:0a:4d:02:0a", transitional=True),),
        disks=(Disk(Path("/images/htdocs.img")),),
    ),
)
FROM_DISK = replace(
    PLAIN,
    boot=BootSpec(
        kernel=None,
        memory_mib=64,
        entry=Entry.BIOS,
        nics=(Nic("ew-demo", "02:ed:0a:4d:02:0a"),),
        disks=(Disk(Path("/images/nanos.img"), read_only=False),),
    ),
)
XEN_PVH = replace(
    PLAIN,
    boot=replace(
        PLAIN.boot,
        entry=Entry.PVH,
        disks=(
            Disk(Path("/images/own.img"), read_only=False),
            Disk(Path("/images/usr.qcow2"), "qcow2"),
        ),
    ),
)
XEN_PV = replace(
    PLAIN,
    boot=BootSpec(
        kernel=Path("/images/unikraft"),
        memory_mib=8,
        cmdline="web netdev.ip=10.77.2.10/24 --",
        entry=Entry.XEN_PV,
        nics=(
            Nic(
                "bridge:xenbr0",
                "02:ed:0a:4d:02:0a",
                xenstore_ip="10.77.2.10 255.255.255.0 10.77.2.1",
            ),
        ),
    ),
)
DUMPING = replace(MARK, dumps_core=True)
TUNED = replace(PLAIN, cpu=0.5, cpu_cap=1.5, boot=replace(PLAIN.boot, vcpus=2))
NETWORK = GuestNetwork(
    name="ew-demo",
    subnet=IPv4Network("10.77.2.0/24"),
    gateway=IPv4Address("10.77.2.1"),
    first=IPv4Address("10.77.2.10"),
    last=IPv4Address("10.77.2.99"),
    create=True,
    bridge="ew-demo0",
)
SMALL_POOL = replace(NETWORK, last=IPv4Address("10.77.2.12"), dhcp=True)
NETWORK6 = replace(NETWORK, subnet6=IPv6Network("fd77::/64"), bridge="")

PICTURES = {
    "linux": domain_xml(PLAIN, console_log=CONSOLE),
    "linux-kvm": domain_xml(PLAIN, virt="kvm", console_log=CONSOLE),
    "linux-dual-stack": domain_xml(DUAL_STACK, console_log=CONSOLE),
    "linux-remote": domain_xml(PLAIN, emulator="/opt/qemu", keep_owners=False),
    "linux-writable-disk": domain_xml(WRITABLE, console_log=CONSOLE),
    "unikernel-two-cards-two-disks": domain_xml(UNIKERNEL, console_log=CONSOLE),
    "transitional": domain_xml(TRANSITIONAL, console_log=CONSOLE),
    "from-disk": domain_xml(FROM_DISK, console_log=CONSOLE),
    "xen-pvh": xen_domain_xml(XEN_PVH),
    "xen-pv": xen_domain_xml(XEN_PV, vif_script="/etc/xen/scripts/vif-quick"),
    "xen-core-dump": xen_domain_xml(replace(XEN_PV, mark=DUMPING)),
    "linux-pinned": domain_xml(TUNED, cpus=(1, 2, 3, 5)),
    "xen-pinned": xen_domain_xml(
        replace(TUNED, boot=replace(TUNED.boot, entry=Entry.PVH)), cpus=(1, 2, 3, 5)
    ),
    "network": network_xml("edge1/demo", NETWORK),
    "network-dual-stack": network_xml("edge1/demo", NETWORK6),
    "network-dhcp": network_xml("edge1/demo", SMALL_POOL),
}


@pytest.mark.parametrize("name", PICTURES)
def test_xml_is_as_the_golden_file_shows(name: str) -> None:
    golden = GOLDEN / f"{name}.xml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(PICTURES[name])
    assert PICTURES[name] == golden.read_text()


def test_no_golden_file_is_left_over() -> None:
    assert {file.stem for file in GOLDEN.glob("*.xml")} == set(PICTURES)


def test_the_domains_uuid_is_that_of_the_instance() -> None:
    uuid = ET.fromstring(PICTURES["linux"]).findtext("uuid")  # noqa: S314 - our own XML
    assert uuid == guest_uuid("edge1/demo", "ew-demo-web-0")


@pytest.mark.parametrize("entry", sorted(Entry))
def test_xen_starts_what_it_can_and_nothing_else(entry: Entry) -> None:
    guest = replace(PLAIN, boot=replace(PLAIN.boot, entry=entry))
    if entry in {Entry.LINUX, Entry.PVH, Entry.PVH_SECTION, Entry.XEN_PV}:
        machine = "xenpv" if entry is Entry.XEN_PV else "xenpvh"
        assert f'machine="{machine}"' in xen_domain_xml(guest)
        return
    with pytest.raises(ValueError, match=f"ew-demo-web-0: Xen starts no guest by {entry}"):
        xen_domain_xml(guest)


def test_xen_starts_no_disk_alone() -> None:
    with pytest.raises(ValueError, match="ew-demo-web-0"):
        xen_domain_xml(replace(PLAIN, boot=replace(PLAIN.boot, kernel=None)))


def test_no_disk_is_left_out() -> None:
    disks = tuple(Disk(Path(f"/images/{number}.img")) for number in range(26 + 26 * 26 + 1))
    guest = replace(XEN_PVH, boot=replace(XEN_PVH.boot, disks=disks))
    for prefix, xml in (("vd", domain_xml(guest)), ("xvd", xen_domain_xml(guest))):
        targets = ET.fromstring(xml).iterfind("devices/disk/target")  # noqa: S314 - our own XML
        named = [target.get("dev", "").removeprefix(prefix) for target in targets]
        assert len(named) == len(disks)
        assert [named[at] for at in (0, 25, 26, 27, 51, 52, 701, 702)] == [
            "a", "z", "aa", "ab", "az", "ba", "zz", "aaa",
        ]  # fmt: skip


def test_a_guest_on_xen_is_marked_like_any_other() -> None:
    assert parse_mark(PICTURES["xen-pv"]) == MARK


def test_the_cap_is_read_back_from_beside_the_mark() -> None:
    assert parse_cap(BARE.replace("/>", ' cpu_cap="1.5"/>')) == 1.5
    assert parse_mark(PICTURES["xen-pinned"]) == MARK
    assert parse_mark(PICTURES["xen-core-dump"]) == DUMPING
    for none in (BARE, BARE.replace("/>", ' cpu_cap="much"/>'), "", "no xml"):
        assert parse_cap(none) is None


@pytest.mark.parametrize("architecture", [Architecture.X86_64, Architecture.AARCH64])
def test_a_domain_is_of_its_hosts_architecture(architecture: Architecture) -> None:
    for xml in (
        domain_xml(PLAIN, architecture=architecture),
        xen_domain_xml(XEN_PV, architecture=architecture),
    ):
        assert f'<type arch="{architecture}"' in xml


def test_only_for_x86_is_there_a_quicker_check_of_the_processor() -> None:
    assert SLOW_CPU_CHECK in domain_xml(PLAIN)
    assert SLOW_CPU_CHECK not in domain_xml(PLAIN, architecture=Architecture.AARCH64)


@given(st.frozensets(st.integers(0, 200), min_size=1))
def test_numbers_of_processors_are_written_and_read(cpus: frozenset[int]) -> None:
    written = cpu_ranges(cpus)
    assert "," not in written or len(cpus) > 1
    read: set[int] = set()
    for each in written.split(","):
        first, _, last = each.partition("-")
        read.update(range(int(first), int(last or first) + 1))
    assert read == cpus
    assert cpu_ranges((5, 1, 2, 3)) == "1-3,5"


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")))


@given(owner=TEXTS, service=TEXTS, address6=st.none() | st.ip_addresses(v=6), cmdline=TEXTS)
def test_whatever_is_in_it_comes_back(
    owner: str, service: str, address6: IPv6Address | None, cmdline: str
) -> None:
    if address6 is not None:
        address6 = IPv6Address(int(address6))
    mark = replace(MARK, owner=owner, service=service, address6=address6)
    xml = domain_xml(replace(PLAIN, mark=mark, boot=replace(PLAIN.boot, cmdline=cmdline)))
    assert parse_mark(xml) == mark
    parsed = ET.fromstring(xml)  # noqa: S314 - our own XML
    assert (parsed.findtext("os/cmdline") or "") == cmdline


BARE = (
    '<guest owner="edge1/demo" instance="ew-demo-web-0" service="web" host="edge1"'
    ' address="10.77.2.10"/>'
)


def test_the_bare_element_is_a_mark() -> None:
    assert parse_mark(BARE) == MARK


BILLION_LAUGHS = (
    '<!DOCTYPE d [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>'
    f"<domain><metadata>{BARE}</metadata><title>&b;</title></domain>"
)


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "not xml",
        "<domain",
        "<domain/>",
        "<domain><metadata/></domain>",
        f"<domain><metadata>{BARE}</metadata></domain>",
        f'<domain xmlns="urn:x"><metadata>{BARE}</metadata></domain>',
        BARE.replace('service="web"', ""),
        BARE.replace("10.77.2.10", "10.77.2.999"),
        BARE.replace("10.77.2.10", "fd77::1"),
        BARE.replace("/>", ' address6="10.77.2.10"/>'),
        BILLION_LAUGHS,
        f"<!DOCTYPE guest>{BARE}",
    ],
)
def test_foreign_or_damaged_xml_has_no_mark(xml: str) -> None:
    assert parse_mark(xml) is None


@given(st.text())
def test_no_text_makes_parsing_fail(xml: str) -> None:
    parse_mark(xml)
    same_network(xml, xml)


def test_networks_of_different_owners_have_different_uuids() -> None:
    assert network_uuid("a", "lab0") == network_uuid("a", "lab0")
    assert len({network_uuid("a", "lab0"), network_uuid("b", "lab0"), network_uuid("a", "x")}) == 3


def reported(xml: str) -> str:
    """Return a network's XML as libvirt tells it: with additions, and always a bridge."""
    return (
        xml.replace('<bridge stp="off"', '<bridge name="virbr7" stp="off"')
        .replace("<dns", '<mac address="52:54:00:00:00:01"/><dns')
        .replace("<network>", "<network connections='1'>")
    )


@pytest.mark.parametrize("network", [NETWORK, NETWORK6, SMALL_POOL])
def test_a_network_is_recognised_as_libvirt_reports_it(network: GuestNetwork) -> None:
    wanted = network_xml("o", network)
    assert same_network(reported(wanted), wanted)
    netmask = wanted.replace('prefix="24"', 'netmask="255.255.255.0"')
    assert same_network(reported(netmask), wanted)


@pytest.mark.parametrize(
    "changed",
    [
        replace(NETWORK, bridge="other0"),
        replace(NETWORK, gateway=IPv4Address("10.77.2.2")),
        replace(NETWORK, subnet=IPv4Network("10.77.2.0/25")),
        replace(NETWORK, subnet6=IPv6Network("fd77::/64")),
        replace(NETWORK, dhcp=True),
    ],
)
def test_a_network_that_differs_is_another(changed: GuestNetwork) -> None:
    assert not same_network(network_xml("o", changed), network_xml("o", NETWORK))
