"""How the Linux family is booted, as a table of what it accepts and what it refuses."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.bootspec import BootRequest, GuestAddress, Image, Nic, Platform
from images.errors import ImageNotFound, ImageRefused
from images.facts import Container, Entry, Format, ImageFacts
from images.families import family
from images.families.linux import LINUX, MOST_CMDLINE, Linux

NIC = Nic("net", "02:ed:0a:00:00:02")
FACTS = ImageFacts(file_bytes=4096, format=Format.BZIMAGE)
IMAGE = Image("sample", "linux", Path("/images/kernel"), Path("/images/initrd"))
REQUEST = BootRequest(
    name="ew-lab-web-0",
    service="web",
    host="edge1",
    address=GuestAddress(
        IPv4Interface("10.0.0.2/24"), IPv4Address("10.0.0.1"), IPv6Interface("fd00::2/64")
    ),
    nic=NIC,
    memory_mib=96,
    config=(("greeting", "Hello, <world> & 100% of \u03b1"),),
)


def words(request: BootRequest = REQUEST, image: Image = IMAGE) -> list[str]:
    return LINUX.boot_spec(image, FACTS, request).cmdline.split(" ")


def test_it_is_found_by_name() -> None:
    assert isinstance(family("linux"), Linux)


def test_a_boot_spec() -> None:
    spec = LINUX.boot_spec(IMAGE, FACTS, REQUEST)
    assert (spec.kernel, spec.initrd) == (IMAGE.kernel, IMAGE.initrd)
    assert (spec.memory_mib, spec.vcpus, spec.nics, spec.machine) == (96, 1, (NIC,), "pc")
    assert spec.acpi
    assert not spec.obeys_shutdown


def test_the_settings_are_on_the_command_line() -> None:
    assert [word for word in words() if word.startswith("edgewake.")] == [
        "edgewake.ip=10.0.0.2/24",
        "edgewake.gw=10.0.0.1",
        "edgewake.ip6=fd00::2/64",
        "edgewake.name=ew-lab-web-0",
        "edgewake.service=web",
        "edgewake.host=edge1",
        "edgewake.greeting=Hello%2C%20%3Cworld%3E%20%26%20100%25%20of%20%CE%B1",
    ]


def test_what_is_not_there_is_not_said() -> None:
    request = replace(REQUEST, address=GuestAddress(IPv4Interface("10.0.0.2/24"), None), config=())
    said = {word.partition("=")[0] for word in words(request)}
    assert not said & {"edgewake.gw", "edgewake.ip6", "edgewake.greeting"}


def test_the_users_own_words_come_last() -> None:
    assert words(image=replace(IMAGE, cmdline="loglevel=7 quux"))[-2:] == ["loglevel=7", "quux"]


@pytest.mark.parametrize(
    ("platform", "console"), [(Platform.QEMU, "console=ttyS0"), (Platform.XEN, "console=hvc0")]
)
def test_the_console_is_the_platforms(platform: Platform, console: str) -> None:
    said = words(replace(REQUEST, platform=platform, entry=Entry.PVH))
    assert [word for word in said if word.startswith("console=")] == [console]


@given(st.text(max_size=60))
def test_no_value_can_add_a_word(value: str) -> None:
    request = replace(REQUEST, config=(("greeting", value),))
    got = words(request)
    assert len(got) == len(words()) - (not value)
    assert all(" " < char < "\x7f" for word in got for char in word)


REFUSED = [
    (replace(REQUEST, config=(("ip", "10.9.9.9/8"),)), IMAGE, "config key 'ip'"),
    (replace(REQUEST, config=(("a b", "1"),)), IMAGE, "config key 'a b'"),
    (replace(REQUEST, config=(("", "1"),)), IMAGE, "config key ''"),
    (replace(REQUEST, config=(("x", "y" * MOST_CMDLINE),)), IMAGE, "shorten the service's config"),
    (REQUEST, replace(IMAGE, cmdline="a\nb"), "printable ASCII only"),
]


@pytest.mark.parametrize(("request_", "image", "why"), REFUSED)
def test_what_is_refused_says_why(request_: BootRequest, image: Image, why: str) -> None:
    with pytest.raises(ImageRefused, match=why):
        LINUX.boot_spec(image, FACTS, request_)


@pytest.mark.parametrize("container", [Container.PLAIN, Container.GZIP])
def test_a_kernel_with_its_initramfs_passes(container: Container) -> None:
    LINUX.check(IMAGE, lambda _: replace(FACTS, format=Format.CPIO, container=container))


@pytest.mark.parametrize("format_", sorted(set(Format) - {Format.CPIO}))
def test_another_initrd_is_refused_with_what_it_is(format_: Format) -> None:
    with pytest.raises(ImageRefused, match=f"initrd is no such initrd.*it is {format_}"):
        LINUX.check(IMAGE, lambda _: replace(FACTS, format=format_))


def test_an_initrd_is_asked_for() -> None:
    with pytest.raises(ImageRefused, match="needs an initrd; add 'initrd:'"):
        LINUX.check(replace(IMAGE, initrd=None), lambda _: FACTS)


def test_a_missing_file_is_what_inspect_says() -> None:
    def missing(path: Path) -> ImageFacts:
        raise ImageNotFound(f"{path}: no such file")

    with pytest.raises(ImageNotFound, match="/images/initrd: no such file"):
        LINUX.check(IMAGE, missing)
