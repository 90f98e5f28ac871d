"""Hello boots: by each way in, on each machine, with little memory; and it ends as it should."""

import re
import socket
import time
from pathlib import Path

import pytest

from tests.images.hello.conftest import ADDRESS, ADDRESS6, HOST, HOST6, SETTINGS, Fetch, Lan

pytestmark = pytest.mark.real

ETH_P_ALL = 3
ANY = b".."  # two bytes that a pattern does not care for: a checksum
MULTIBOOT_MAGIC = (0x1BADB002).to_bytes(4, "little")
BRIDGES = ("pcie-root-port,id=r,bus=pcie.0", "pcie-pci-bridge,id=b,bus=r")


@pytest.fixture
def tap(lan: Lan) -> Lan:
    lan.tap("tap0", f"{HOST}/24", f"{HOST6}/64")
    return lan


@pytest.fixture
def only_pvh(kernel: Path, tmp_path: Path) -> Path:
    """Make a copy of the kernel that QEMU does not take for a multiboot one."""
    data = kernel.read_bytes()
    assert data.count(MULTIBOOT_MAGIC) == 1
    copy = tmp_path / "pvh"
    copy.write_bytes(data.replace(MULTIBOOT_MAGIC, bytes(4)))
    return copy


@pytest.mark.parametrize("machine", ["pc", "q35", "pc,hpet=off", "pc,acpi=off"])
def test_it_answers_over_both_protocols(tap: Lan, fetch: Fetch, machine: str) -> None:
    guest = tap.boot(machine=machine)
    guest.says(f"hello: listening on {ADDRESS} port 80")
    guest.says(f"hello: listening on {ADDRESS6} port 80")
    assert fetch(address=ADDRESS).body == b"ok\n"
    assert fetch(address=ADDRESS6).body == b"ok\n"


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_it_boots_by_pvh(tap: Lan, fetch: Fetch, only_pvh: Path, machine: str) -> None:
    tap.boot(f"{SETTINGS} name=by-pvh", kernel=only_pvh, machine=machine).says("listening on 10.")
    assert fetch("/info").json["name"] == "by-pvh"


def test_a_card_behind_bridges_is_found(tap: Lan, fetch: Fetch) -> None:
    guest = tap.boot(machine="q35", devices=BRIDGES, card="virtio-net-pci-transitional,bus=b")
    guest.says("listening on 10.")
    assert fetch().status == 200


@pytest.mark.parametrize("memory", ["3M", "4M", "16M"])
def test_a_little_memory_is_enough(tap: Lan, fetch: Fetch, memory: str) -> None:
    tap.boot(memory=memory).says("listening on 10.")
    assert fetch("/").status == 200


def test_large_queues_are_taken_as_they_are(tap: Lan, fetch: Fetch) -> None:
    card = "virtio-net-pci,rx_queue_size=1024,tx_queue_size=256,mq=on"
    tap.boot(card=card).says("listening on 10.")
    assert fetch().status == 200


def test_time_is_told_from_start_and_from_the_calendar(tap: Lan, fetch: Fetch) -> None:
    tap.boot().says("listening on 10.")
    first, before = fetch("/info").json, time.time()
    time.sleep(1.5)
    second, after = fetch("/info").json, time.time()
    passed = second["uptime"] - first["uptime"]
    assert 0.7 * 1.5 < passed < 1.3 * (after - before + 0.5)
    assert abs(second["time"] - after) < 3
    assert first["started"] == second["started"] <= second["time"]


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_the_power_button_ends_it(tap: Lan, fetch: Fetch, machine: str) -> None:
    guest = tap.boot(machine=machine)
    guest.says("listening on 10.")
    fetch()
    guest.press_power_button()
    assert guest.ends() == 0
    assert "hello: asked to stop" in guest.console


SENTENCES = [
    ("ip=10.0.0.300/24", "ip=10.0.0.300/24 is not an IPv4 address with its prefix length"),
    ("ip=10.0.0.2", "ip=10.0.0.2 is not an IPv4 address with its prefix length"),
    ("ip=10.0.0.2/33", "ip=10.0.0.2/33 is not an IPv4 address with its prefix length"),
    (f"{SETTINGS} gw=10.0.0.1/24", "gw=10.0.0.1/24 is not an IPv4 address"),
    ("ip6=fd00:::2/64", "ip6=fd00:::2/64 is not an IPv6 address with its prefix length"),
    ("ip6=1:2:3:4:5:6:7:8:9/64", "is not an IPv6 address"),
    (f"{SETTINGS} x={'y' * 2047}", "at most 2047 are read"),
]


@pytest.mark.parametrize(("cmdline", "sentence"), SENTENCES)
def test_a_wrong_setting_ends_it_with_a_sentence(tap: Lan, cmdline: str, sentence: str) -> None:
    guest = tap.boot(cmdline)
    assert guest.ends() == 0
    assert sentence in guest.console


@pytest.mark.parametrize(
    ("card", "sentence"),
    [
        ("", "no network card that hello can use"),
        ("virtio-net-pci-non-transitional", "take machine pc, or model virtio-transitional"),
        ("e1000", "no network card that hello can use"),
    ],
)
def test_without_a_card_it_ends_with_a_sentence(tap: Lan, card: str, sentence: str) -> None:
    guest = tap.boot(card=card)
    assert guest.ends() == 0
    assert sentence in guest.console


def test_without_acpi_a_fatal_error_ends_it_too(tap: Lan) -> None:
    guest = tap.boot("ip=wrong", machine="pc,acpi=off")
    assert guest.ends() == 0


def test_two_guests_share_a_bridge(lan: Lan, fetch: Fetch) -> None:
    lan.ip("link", "add", "br0", "type", "bridge")
    for tap in ("tap0", "tap1"):
        lan.tap(tap)
        lan.ip("link", "set", tap, "master", "br0")
    lan.ip("addr", "add", f"{HOST}/24", "dev", "br0")
    lan.ip("link", "set", "br0", "up")
    for n in (2, 3):
        name = f"ip=10.0.0.{n}/24 name=guest{n}"
        lan.boot(name, tap=f"tap{n - 2}", mac=f"02:00:00:00:00:0{n}")
    for guest, n in zip(lan.guests, (2, 3), strict=True):
        guest.says(f"listening on 10.0.0.{n} port 80")
    for n in (2, 3, 2, 3):
        info = fetch("/info", address=f"10.0.0.{n}").json
        assert (info["name"], info["mac"]) == (f"guest{n}", f"02:00:00:00:00:0{n}")


def test_an_address_that_is_taken_is_noted(lan: Lan) -> None:
    lan.ip("link", "add", "br0", "type", "bridge")
    for tap in ("tap0", "tap1"):
        lan.tap(tap)
        lan.ip("link", "set", tap, "master", "br0")
    lan.ip("link", "set", "br0", "up")
    first = lan.boot(tap="tap0")
    first.says(f"listening on {ADDRESS} ")
    lan.boot(tap="tap1", mac="02:00:00:00:00:99")
    first.says(f"address conflict: {ADDRESS} is also used by 02:00:00:00:00:99")


def test_it_announces_its_addresses(tap: Lan) -> None:
    """A gratuitous ARP (RFC 5227, 2.3) and an unsolicited neighbour advertisement (RFC 4861)."""
    mac, address = bytes.fromhex("020000000002"), bytes([10, 0, 0, 2])
    arp = bytes.fromhex("0806 0001 0800 06 04 0001") + mac + address + mac + address
    advertisement = bytes.fromhex("8800") + ANY + bytes.fromhex("20000000 fd00") + bytes(13) + b"\2"
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as wire:
        wire.settimeout(10)
        wire.bind(("tap0", 0))
        tap.boot()
        wanted = [re.compile(text, re.DOTALL) for text in (re.escape(arp), advertisement)]
        while wanted:
            frame = wire.recv(2000)
            wanted = [pattern for pattern in wanted if not pattern.search(frame)]
