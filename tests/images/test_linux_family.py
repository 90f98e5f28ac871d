"""How the Linux family is booted, as a table of what it accepts and what it refuses."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.bootspec import BootRequest, GuestAddress, Image, Nic
from images.errors import ImageNotFound, ImageRefused
from images.families import family
from images.families.linux import LINUX, MOST_CMDLINE, Linux

NIC = Nic("net", "02:ed:0a:00:00:02")
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
    return LINUX.boot_spec(image, request).cmdline.split(" ")


def test_it_is_found_by_name() -> None:
    assert isinstance(family("linux"), Linux)


def test_a_boot_spec() -> None:
    spec = LINUX.boot_spec(IMAGE, REQUEST)
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


@given(st.text(max_size=60))
def test_no_value_can_add_a_word(value: str) -> None:
    request = replace(REQUEST, config=(("greeting", value),))
    got = words(request)
    assert len(got) == len(words()) - (not value)
    assert all(" " < char < "\x7f" for word in got for char in word)


REFUSED = [
    (replace(REQUEST, memory_mib=64), IMAGE, "at least 80 MiB"),
    (replace(REQUEST, config=(("ip", "10.9.9.9/8"),)), IMAGE, "config key 'ip'"),
    (replace(REQUEST, config=(("a b", "1"),)), IMAGE, "config key 'a b'"),
    (replace(REQUEST, config=(("", "1"),)), IMAGE, "config key ''"),
    (replace(REQUEST, config=(("x", "y" * MOST_CMDLINE),)), IMAGE, "shorten the service's config"),
    (REQUEST, replace(IMAGE, cmdline="a\nb"), "printable ASCII only"),
]


@pytest.mark.parametrize(("request_", "image", "why"), REFUSED)
def test_what_is_refused_says_why(request_: BootRequest, image: Image, why: str) -> None:
    with pytest.raises(ImageRefused, match=why):
        LINUX.boot_spec(image, request_)


def on_disk(tmp_path: Path, kernel: bytes, initrd: bytes | None) -> Image:
    image = replace(IMAGE, kernel=tmp_path / "kernel", initrd=None)
    image.kernel.write_bytes(kernel)
    if initrd is None:
        return image
    (tmp_path / "initrd").write_bytes(initrd)
    return replace(image, initrd=tmp_path / "initrd")


BZIMAGE = bytes(0x202) + b"HdrS" + bytes(100)


@pytest.mark.parametrize("initrd", [b"070701", b"\x1f\x8b\x08"])
def test_a_kernel_with_its_initramfs_passes(tmp_path: Path, initrd: bytes) -> None:
    LINUX.check(on_disk(tmp_path, BZIMAGE, initrd))


@pytest.mark.parametrize(
    ("kernel", "initrd", "why"),
    [
        (b"#!/bin/sh", b"070701", "kernel is no such file as family linux boots: a bzImage"),
        (b"\x7fELF" + bytes(80), b"070701", "ELF without a PVH entry point"),
        (BZIMAGE, b"hello", "initrd is no such file"),
        (BZIMAGE, None, "needs an initrd"),
    ],
)
def test_other_bytes_are_refused(
    tmp_path: Path, kernel: bytes, initrd: bytes | None, why: str
) -> None:
    with pytest.raises(ImageRefused, match=why):
        LINUX.check(on_disk(tmp_path, kernel, initrd))


def test_a_missing_kernel_is_named() -> None:
    with pytest.raises(ImageNotFound, match="/images/kernel: no such file"):
        LINUX.check(IMAGE)
