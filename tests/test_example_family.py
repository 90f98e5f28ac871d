"""The family of examples/family_example, found the way an installed package is found."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from images.bootspec import Image, Platform
from images.errors import ImageError, ImageRefused
from images.facts import Entry, Format, ImageFacts
from images.families import GROUP, Family, family, known_families
from images.match import resolve
from tests.images.guests import ALONE, request
from tests.plug_in import lay_out

EXAMPLE = Path(__file__).parents[1] / "examples" / "family_example"
IMAGE = Image("ipxe", "ipxe", Path("/boot/ipxe.lkrn"))
FACTS = ImageFacts(300_000, format=Format.BZIMAGE, family="linux", evidence="HdrS")
HEAD = "ifopen net0 && set net0/ip 10.0.0.2 && set net0/netmask 255.255.255.0"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    lay_out(EXAMPLE, GROUP, tmp_path, monkeypatch)
    known_families.cache_clear()
    yield
    known_families.cache_clear()
    sys.modules.pop("edgewake_family_ipxe", None)


@pytest.fixture
def ipxe(installed: None) -> Family:
    return family("ipxe")


def test_without_the_package_there_is_no_such_family() -> None:
    with pytest.raises(
        ImageError, match="unknown image family 'ipxe'; known families: command, hello"
    ):
        family("ipxe")


def test_it_is_found_by_its_entry_point(ipxe: Family) -> None:
    assert ipxe.traits.title == "iPXE"
    assert "ipxe" in known_families()


def test_its_word_wins_over_what_the_bytes_look_like(ipxe: Family) -> None:
    assert resolve(IMAGE, FACTS) == "ipxe"


def test_a_script_of_commands(ipxe: Family) -> None:
    spec = ipxe.boot_spec(
        IMAGE, FACTS, request(Entry.LINUX, config=(("user", "x"), ("tries", "3")))
    )
    gateway = "set net0/gateway 10.0.0.1"
    assert spec.cmdline == f"{HEAD} && {gateway} && set user x && set tries 3 && shell"
    assert (spec.entry, spec.machine) == (Entry.LINUX, "pc")


def test_what_is_not_there_is_not_said(ipxe: Family) -> None:
    image = replace(IMAGE, cmdline="sanboot")
    spec = ipxe.boot_spec(image, FACTS, request(Entry.LINUX, address=ALONE))
    assert spec.cmdline == f"{HEAD} && sanboot"


def test_a_template_of_the_user_is_used_as_it_is(ipxe: Family) -> None:
    image = replace(IMAGE, template="dhcp net0 && shell")
    assert ipxe.boot_spec(image, FACTS, request(Entry.LINUX)).cmdline == "dhcp net0 && shell"


@pytest.mark.parametrize("value", ["a b", "${net0/mac}", "a&&reboot", "", "\u03b1"])
def test_what_would_be_a_command_is_refused(ipxe: Family, value: str) -> None:
    with pytest.raises(ImageRefused, match="config 'user' of service web must be one plain word"):
        ipxe.boot_spec(IMAGE, FACTS, request(Entry.LINUX, config=(("user", value),)))


def test_an_initrd_is_refused(ipxe: Family) -> None:
    with pytest.raises(ImageRefused, match="would run it as a script"):
        ipxe.check(replace(IMAGE, initrd=Path("/x")), lambda _: FACTS)
    ipxe.check(IMAGE, lambda _: FACTS)


def test_it_runs_on_qemu_only(ipxe: Family) -> None:
    assert set(ipxe.traits.entries) == {Platform.QEMU}
