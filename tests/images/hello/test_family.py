"""How hello is told its settings, and what cannot be told to it."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.bootspec import BootRequest, GuestAddress, Image, Nic, Platform
from images.errors import ImageRefused
from images.facts import Entry, ImageFacts
from images.families import family
from images.families.hello import HELLO, LIMIT

FACTS = ImageFacts(file_bytes=1)
IMAGE = Image("sample", "hello", Path("/images/kernel"))
REQUEST = BootRequest(
    name="ew-lab-web-0",
    service="web",
    host="edge1",
    address=GuestAddress(
        IPv4Interface("10.0.0.2/24"), IPv4Address("10.0.0.1"), IPv6Interface("fd00::2/64")
    ),
    nic=Nic("net", "02:ed:0a:00:00:02"),
    memory_mib=8,
    config=(("greeting", "Hello, <world> & 100% of \u03b1"),),
    entry=Entry.MULTIBOOT,
)


def words(request: BootRequest = REQUEST, image: Image = IMAGE) -> list[str]:
    return HELLO.boot_spec(image, FACTS, request).cmdline.split(" ")


def test_a_boot_spec() -> None:
    assert family("hello") is HELLO
    spec = HELLO.boot_spec(IMAGE, FACTS, REQUEST)
    assert (spec.kernel, spec.initrd, spec.memory_mib) == (IMAGE.kernel, None, 8)
    assert (spec.machine, spec.entry, spec.obeys_shutdown) == ("pc", Entry.MULTIBOOT, True)
    assert not spec.nics[0].transitional
    q35 = HELLO.boot_spec(replace(IMAGE, machine="q35"), FACTS, REQUEST)
    assert q35.nics[0].transitional


def test_the_command_line() -> None:
    assert words() == [
        "ip=10.0.0.2/24",
        "gw=10.0.0.1",
        "ip6=fd00::2/64",
        "name=ew-lab-web-0",
        "service=web",
        "host=edge1",
        "greeting=Hello%2C%20%3Cworld%3E%20%26%20100%25%20of%20%CE%B1",
    ]
    bare = replace(REQUEST, address=GuestAddress(IPv4Interface("10.0.0.2/24"), None), config=())
    assert words(replace(bare, name="", service="", host="")) == ["ip=10.0.0.2/24"]
    assert words(image=replace(IMAGE, cmdline="a=1 b"))[-2:] == ["a=1", "b"]


@given(st.text(max_size=60).filter(lambda text: "\0" not in text))
def test_no_value_can_add_a_word(value: str) -> None:
    got = words(replace(REQUEST, config=(("greeting", value),)))
    assert len(got) == len(words())
    assert unquote(got[-1].removeprefix("greeting=")) == value
    assert all(" " < char < "\x7f" for word in got for char in word)


REFUSED = [
    (replace(REQUEST, config=(("ip", "10.9.9.9/8"),)), IMAGE, "config key 'ip'"),
    (replace(REQUEST, config=(("a b", "1"),)), IMAGE, "config key 'a b'"),
    (replace(REQUEST, config=(("x", "y" * LIMIT.most),)), IMAGE, "hello reads 2047"),
    (REQUEST, replace(IMAGE, cmdline="a\nb"), "printable ASCII only"),
]


@pytest.mark.parametrize(("request_", "image", "why"), REFUSED)
def test_what_is_refused_says_why(request_: BootRequest, image: Image, why: str) -> None:
    with pytest.raises(ImageRefused, match=why):
        HELLO.boot_spec(image, FACTS, request_)


def test_it_takes_no_initrd() -> None:
    with pytest.raises(ImageRefused, match="takes no initrd"):
        HELLO.check(replace(IMAGE, initrd=Path("/initrd")), lambda _: FACTS)


def test_where_it_runs() -> None:
    assert HELLO.traits.entries[Platform.QEMU] == (Entry.MULTIBOOT, Entry.PVH)
    assert HELLO.traits.entries[Platform.XEN] == (Entry.PVH,)
    assert HELLO.traits.least(Platform.QEMU) <= HELLO.traits.default_memory_mib
