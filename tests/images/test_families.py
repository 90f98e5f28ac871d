"""How each family is booted, against golden files; what it refuses; and that nothing gets out.

`UPDATE_GOLDEN=1 pytest …` rewrites the files; read the difference before you commit it. The readers
of command lines below are written after the guests' own (each names its source), so that what a
family writes is read back the way its guest would read it.
"""

import json
import os
import re
import shlex
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.bootspec import BootRequest, BootSpec, Disk, Image, Platform
from images.errors import ImageRefused
from images.facts import Container, Device, DeviceKind, Entry, Format, ImageFacts
from images.families import (
    FAMILIES,
    Family,
    family,
    hello,
    hermit,
    linux,
    mini_os,
    mirage,
    osv,
    other,
    rumprun,
    solo5,
    unikraft,
)
from images.families.cmdline import q35
from images.families.template import WORDS, parse
from orchestrator.labfile import parse_lab
from tests.images.guests import ELF, GUESTS, Guest, request

GOLDEN = Path(__file__).parents[1] / "golden" / "families"
OURS = sorted(set(FAMILIES) - {"hello", "command"})  # these two have tests of their own


def picture(spec: BootSpec) -> str:
    lines = [
        f"kernel: {spec.kernel}",
        f"initrd: {spec.initrd}",
        f"entry: {spec.entry}",
        f"machine: {spec.machine}",
        f"memory: {spec.memory_mib} MiB, {spec.vcpus} vCPU, ACPI {spec.acpi}",
        *(f"disk: {disk}" for disk in spec.disks),
        *(f"card: {nic}" for nic in spec.nics),
        *(f"xenstore: {name} = {value}" for name, value in spec.xenstore),
        f"end pattern: {spec.end_pattern or None}",
        f"obeys shutdown: {spec.obeys_shutdown}",
        f"command line: {spec.cmdline}",
    ]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", GUESTS)
def test_it_is_booted_as_the_golden_file_shows(name: str) -> None:
    golden = GOLDEN / f"{name}.txt"
    drawn = picture(GUESTS[name].spec)
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(drawn)
    assert drawn == golden.read_text()


def test_no_golden_file_is_left_over() -> None:
    assert {file.stem for file in GOLDEN.glob("*.txt")} == set(GUESTS)


def test_every_family_and_platform_is_drawn() -> None:
    drawn = {(guest.family, guest.request.platform) for guest in GUESTS.values()}
    runs_on = {(name, platform) for name in OURS for platform in family(name).traits.entries}
    assert runs_on - drawn == {("other", Platform.SPT)}


# --- what holds for all -----------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_traits_make_sense(name: str) -> None:
    traits = family(name).traits
    assert traits.name == name
    assert traits.title
    assert set(traits.address) == set(traits.entries)
    assert set(traits.entries).isdisjoint(traits.elsewhere)
    machines = set(Platform) - {Platform.NETNS}  # which boots none of them: `images.match` says so
    assert set(traits.entries) | set(traits.elsewhere) == machines
    assert all(1 <= traits.least(platform) <= traits.default_memory_mib for platform in Platform)
    re.compile(traits.end_pattern)


@pytest.mark.parametrize("guest", GUESTS.values(), ids=GUESTS)
def test_the_users_word_wins(guest: Guest) -> None:
    image = replace(guest.image, machine="pc", end_pattern="bye", obeys_shutdown=True)
    spec = replace(guest, image=image).spec
    assert (spec.machine, spec.end_pattern, spec.obeys_shutdown) == ("pc", "bye", True)
    assert not spec.nics[0].transitional
    assert not replace(guest, image=replace(image, obeys_shutdown=False)).spec.obeys_shutdown


@pytest.mark.parametrize("guest", GUESTS.values(), ids=GUESTS)
def test_a_template_replaces_the_familys_own(guest: Guest) -> None:
    image = replace(guest.image, template="mac={mac} gw={gw}", cmdline="")
    asked = replace(guest.request, config=(), address=request().address)
    told = replace(guest, image=image, request=asked)
    if asked.entry is Entry.BIOS:
        with pytest.raises(ImageRefused, match=r"boots from its disk.*there is a template"):
            _ = told.spec
    else:
        assert told.spec.cmdline == "mac=02:ed:0a:00:00:02 gw=10.0.0.1"


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("ip={ip}[ service={service}][ name={name}]", "ip=10.0.0.2 name=NAME"),
        ("{service} ip={ip}", "IMAGE ip=10.0.0.2"),
    ],
)
def test_guests_of_an_anonymous_image_are_not_told_their_service(template: str, told: str) -> None:
    guest = GUESTS["linux-qemu"]
    image = replace(guest.image, template=template, cmdline="", anonymous=True)
    asked = replace(guest.request, config=(), service=image.name)  # as `orchestrator.library` asks
    line = replace(guest, image=image, request=asked).spec.cmdline
    assert line == told.replace("NAME", asked.name).replace("IMAGE", image.name)


@pytest.mark.parametrize(
    ("image", "config", "why"),
    [
        ({"template": "{ip}"}, (("a", "b"),), r"has config, and its template has no \{config\}"),
        ({"template": "{ip}", "cmdline": "x"}, (), r"has a cmdline, and its template has no"),
        ({"template": "{nope}"}, (), r"unknown word \{nope\}"),
        ({"template": "a\nb"}, (), "a template may have printable ASCII only"),
        ({"cmdline": "a\tb"}, (), "its cmdline may have printable ASCII only"),
    ],
)
@pytest.mark.parametrize("name", sorted(set(OURS) - {"nanos"}))
def test_what_would_be_lost_is_refused(
    name: str, image: dict[str, str], config: tuple[tuple[str, str], ...], why: str
) -> None:
    guest = next(
        each
        for each in GUESTS.values()
        if each.family == name and each.image.kernel and not each.image.template
    )
    bad = replace(guest.image, **{"cmdline": "", **image})  # type: ignore[arg-type]
    with pytest.raises(ImageRefused, match=why):
        family(name).boot_spec(bad, guest.facts, replace(guest.request, config=config))


# --- what each refuses ------------------------------------------------------------------------

KERNEL = Image("web", kernel=Path("/images/web"))


def told(*pairs: tuple[str, str], entry: Entry = Entry.MULTIBOOT) -> BootRequest:
    return request(entry, config=pairs)


REFUSED = [
    ("hermit", KERNEL, told(("a-b", "1")), "config key 'a-b'.*environment variable"),
    ("linux", KERNEL, told(("ip", "1")), "config key 'ip' of service web.*none of gw, host, ip"),
    ("mini-os", KERNEL, told(("a", "1")), "has config, and what a Mini-OS program understands"),
    ("mirage", KERNEL, told(("ipv4", "1")), "config key 'ipv4'.*none of ipv4, ipv4-gateway"),
    ("mirage", KERNEL, told(("a", "\u03b1")), "config 'a' of service web may have printable ASCII"),
    ("mirage", KERNEL, told(("a", "x" * 9000)), "characters and Solo5 reads 8191"),
    ("nanos", replace(KERNEL, cmdline="x"), told(), "boots from its disk.*there is a cmdline"),
    ("nanos", KERNEL, told(("a", "1")), "boots from its disk.*there is a config"),
    ("osv", KERNEL, told(("A", "1"), entry=Entry.BIOS), "boots from its disk.*there is a config"),
    ("other", KERNEL, told(("a", "1")), "has config, and what an image of family other"),
    (
        "other",
        replace(KERNEL, template="{config}"),
        told(("a", "b c")),
        "config 'a' of service web must be one word",
    ),
    ("rumprun", KERNEL, told(("A", 'say "x"')), "config 'A'.*no double quotes or backslashes"),
    ("rumprun", replace(KERNEL, cmdline="a\\b"), told(), "its cmdline may have no double quotes"),
    ("rumprun", KERNEL, told(("A", "_RUMPRUN_ROOTFSCFG=/x")), "may not contain _RUMPRUN_ROOTFSCFG"),
    ("rumprun", KERNEL, told(("A", "x" * 4000)), "and Rumprun reads 4083"),
    ("solo5", KERNEL, told(("a", "1")), "has config, and what a bare Solo5 program understands"),
    ("unikraft", KERNEL, told(("A", "x" * 4096)), "and Unikraft reads 4083"),
]


@pytest.mark.parametrize(("name", "image", "asked", "why"), REFUSED)
def test_what_is_refused_says_why(name: str, image: Image, asked: BootRequest, why: str) -> None:
    with pytest.raises(ImageRefused, match=why):
        family(name).boot_spec(image, ELF, asked)


@pytest.mark.parametrize("name", ["mini-os", "unikraft", "linux", "other", "rumprun"])
def test_the_short_command_line_of_a_pv_guest_is_kept(name: str) -> None:
    image = replace(KERNEL, cmdline="x" * 1024)
    with pytest.raises(ImageRefused, match="a Xen PV guest reads 1023"):
        family(name).boot_spec(image, ELF, request(Entry.XEN_PV, Platform.XEN))


# --- files and manifests ----------------------------------------------------------------------

CARD = Device(DeviceKind.NET, "service")
CERTS, HTDOCS = Device(DeviceKind.BLOCK, "certs"), Device(DeviceKind.BLOCK, "htdocs")
ONE_DISK = replace(KERNEL, disks=(Disk(Path("/a.img")),))

MANIFESTS = [
    (KERNEL, (CERTS,), "declares no network card"),
    (KERNEL, (CARD, Device(DeviceKind.NET, "private")), r"2 network cards \(service, private\)"),
    (KERNEL, (CARD, CERTS), r"declares 1 disk \(certs\), and the image has no disk; list them"),
    (ONE_DISK, (CARD, CERTS, HTDOCS), r"declares 2 disks \(certs, htdocs\).*has 1 disk"),
    (ONE_DISK, (CARD,), "declares no disk, and the image has 1 disk"),
    (
        replace(KERNEL, disks=(Disk(Path("/a.img"), name="cert"),)),
        (CARD, CERTS),
        "declares no disk cert; it has certs",
    ),
    (replace(KERNEL, initrd=Path("/x")), (CARD,), "takes no initrd.*take 'initrd:' away"),
]


@pytest.mark.parametrize("name", ["mirage", "solo5"])
@pytest.mark.parametrize(("image", "devices", "why"), MANIFESTS)
def test_a_manifest_must_be_met(
    name: str, image: Image, devices: tuple[Device, ...], why: str
) -> None:
    facts = replace(ELF, devices=devices)
    with pytest.raises(ImageRefused, match=why):
        family(name).check(image, lambda _: facts)
    if image.initrd is None:
        with pytest.raises(ImageRefused, match=why):
            family(name).boot_spec(image, facts, request())


def inspected(**formats: ImageFacts) -> Callable[[Path], ImageFacts]:
    return lambda path: formats.get(path.name, ELF)


CPIO = replace(ELF, format=Format.CPIO)
CHECKS = [
    ("hermit", KERNEL, "name the loader as 'kernel:'"),
    ("hermit", replace(KERNEL, initrd=Path("/cpio")), "no Hermit application: an ELF file"),
    ("hermit", replace(KERNEL, initrd=Path("/app")), None),
    ("linux", KERNEL, "needs an initrd"),
    ("linux", replace(KERNEL, initrd=Path("/app")), "/app is no such initrd.*it is ELF"),
    ("linux", replace(KERNEL, initrd=Path("/cpio")), None),
    ("linux", replace(KERNEL, initrd=Path("/gz")), None),
    ("mini-os", replace(KERNEL, initrd=Path("/cpio")), "takes no initrd"),
    ("mini-os", KERNEL, None),
    ("mirage", KERNEL, None),
    ("nanos", KERNEL, "its kernel alone resets for ever"),
    ("nanos", replace(ONE_DISK, kernel=None), None),
    ("osv", KERNEL, "add a cmdline such as"),
    ("osv", replace(KERNEL, cmdline="/prog"), None),
    ("osv", replace(ONE_DISK, kernel=None), None),
    ("other", KERNEL, None),
    ("rumprun", replace(KERNEL, initrd=Path("/cpio")), "read in place of the configuration"),
    ("rumprun", KERNEL, None),
    ("solo5", KERNEL, None),
    ("unikraft", replace(KERNEL, initrd=Path("/cpio")), None),
]


@pytest.mark.parametrize(("name", "image", "why"), CHECKS)
def test_the_files_of_an_image_are_checked(name: str, image: Image, why: str | None) -> None:
    inspect = inspected(cpio=CPIO, gz=replace(CPIO, container=Container.GZIP))
    if why is None:
        family(name).check(image, inspect)
        return
    with pytest.raises(ImageRefused, match=why):
        family(name).check(image, inspect)


@pytest.mark.parametrize(
    ("machine", "is_q35"), [("q35", True), ("pc-q35-7.2", True), ("pc", False), ("", False)]
)
def test_q35_is_known_by_its_versions(machine: str, is_q35: bool) -> None:
    assert q35(machine) is is_q35


# --- nothing gets out of its place ------------------------------------------------------------


def parse_argv(line: str) -> list[str]:
    """Split as OCaml's parse-argv does (mirage/parse-argv src/parse_argv.ml)."""
    words: list[str] = []
    word = ""
    quoted = False
    characters = iter(line)
    for character in characters:
        if character == "\\":
            word += next(characters)
        elif character == '"':
            quoted = not quoted
        elif character == " " and not quoted:
            words += [word] if word else []
            word = ""
        else:
            word += character
    assert not quoted
    return [*words, word] if word else words


def uk_argparse(line: str) -> list[str]:
    """Split as Unikraft does (lib/ukargparse/argparse.c)."""
    words: list[str] = []
    word: str | None = None
    quote = ""
    at = 0
    while at < len(line):
        character = line[at]
        if character == quote:
            quote = ""
        elif not quote and character in "'\"":
            quote, word = character, word or ""
        elif character == "\\" and (not quote or (quote == '"' and line[at + 1] in '"\\')):
            at += 1
            word = (word or "") + line[at]
        elif character == " " and not quote:
            words += [] if word is None else [word]
            word = None
        else:
            word = (word or "") + character
        at += 1
    assert not quote
    return words if word is None else [*words, word]


def osv_options(line: str) -> list[str]:
    """Split as OSv's loader does: at blanks, a backslash keeps one (core/commands.cc)."""
    words = [""]
    characters = iter(line)
    for character in characters:
        if character == "\\":
            words[-1] += next(characters)
        elif character == " ":
            words.append("")
        else:
            words[-1] += character
    return words


def rumprun_env(line: str) -> list[str]:
    r"""Return the env entries, taken raw from between the quotes as jsmn's user does."""
    return re.findall(r'"env":"([^"]*)"', line)


READERS: dict[str, tuple[Callable[[str], list[str]], str]] = {
    "hermit": (shlex.split, "env=KEY={}"),
    "mirage": (parse_argv, "--KEY={}"),
    "osv": (osv_options, "--env=KEY={}"),
    "rumprun": (rumprun_env, "KEY={}"),
    "unikraft": (uk_argparse, "env.vars=KEY={}"),
}
ANYTHING = st.text(st.sampled_from(" '\"\\[]{}()<>&;:,=-#$!x/\t\n\u03b1"), max_size=12) | st.text()


def line_of(how: Family, image: Image, asked: BootRequest) -> str:
    return how.boot_spec(image, ELF, asked).cmdline


@pytest.mark.parametrize("name", READERS)
@given(value=ANYTHING)
def test_a_config_value_stays_one_word_or_is_refused(name: str, value: str) -> None:
    read, written = READERS[name]
    plain = read(line_of(family(name), KERNEL, told(("KEY", "1"))))
    try:
        line = line_of(family(name), KERNEL, told(("KEY", value)))
    except ImageRefused:
        assert not (value.isascii() and value.isprintable()) or name == "rumprun"
        return
    expected = [written.format(value) if word == written.format(1) else word for word in plain]
    assert read(line) == expected


@given(value=ANYTHING, cmdline=ANYTHING)
def test_rumpruns_object_stays_an_object(value: str, cmdline: str) -> None:
    image = replace(KERNEL, cmdline=cmdline)
    try:
        line = line_of(family("rumprun"), image, told(("KEY", value), ("KEY2", "2")))
    except ImageRefused:
        return
    read = json.loads(line, object_pairs_hook=list)
    assert [name for name, _ in read] == ["env", "env", "cmdline", "hostname", "net"]
    assert dict(read)["cmdline"] == (f"web {cmdline}" if cmdline else "web")
    assert read[0] == ("env", f"KEY={value}")


@pytest.mark.parametrize("name", ["hermit", "mirage", "osv", "unikraft"])
@given(cmdline=ANYTHING)
def test_the_programs_arguments_come_last_and_as_they_are(name: str, cmdline: str) -> None:
    bare = line_of(family(name), KERNEL, request())
    try:
        line = line_of(family(name), replace(KERNEL, cmdline=cmdline), request())
    except ImageRefused:
        assert not (cmdline.isascii() and cmdline.isprintable())
        return
    assert line == (f"{bare} {cmdline}" if cmdline else bare)


@given(name=ANYTHING)
def test_names_stay_in_their_place(name: str) -> None:
    asked = replace(request(), name=name, service="web")
    try:
        line = line_of(family("rumprun"), KERNEL, asked)
    except ImageRefused:
        return
    assert dict(json.loads(line))["hostname"] == name


def test_unikraft_has_its_stop_mark_also_without_arguments() -> None:
    line = line_of(family("unikraft"), KERNEL, request())
    assert line.split(" ")[-1] == "--"


def test_what_a_family_says_by_itself_is_a_template() -> None:
    for guest in GUESTS.values():
        parse(guest.image.template)
        assert "{" not in guest.spec.cmdline or guest.family == "rumprun"


# --- the page about them ----------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs" / "images.md").read_text()
STANZAS = re.findall(r"^( *)```yaml\n(.*?)^ *```", PAGE, re.MULTILINE | re.DOTALL)
LAB = """
zone: test.edgewake.test
hosts:
  box:
    uri: qemu:///system
    capacity: {cpu: 2, memory: 2 GiB}
    network: {name: n, subnet: 10.0.0.0/24, gateway: 10.0.0.1, pool: 10.0.0.10-10.0.0.20}
"""


@pytest.mark.parametrize("stanza", [textwrap.dedent(text) for _, text in STANZAS])
def test_a_stanza_of_the_page_is_one_of_a_lab(stanza: str) -> None:
    assert parse_lab(LAB + stanza, Path("page.yaml")).images


def test_the_page_shows_every_familys_own_template() -> None:
    own = [
        *(linux.SETTINGS, mirage.IPV4, mirage.BOTH, solo5.TEMPLATE, osv.TEMPLATE, hermit.TEMPLATE),
        *(rumprun.TEMPLATES[Platform.QEMU], unikraft.TEMPLATES[Platform.QEMU]),
        *(mini_os.TEMPLATE, other.TEMPLATE, hello.TEMPLATE),
    ]
    lines = set(PAGE.splitlines())
    assert [template for template in own if template not in lines] == []


def test_the_page_has_a_section_and_a_word_for_everything() -> None:
    for name in FAMILIES:
        assert f"### `{name}`" in PAGE
    for word in WORDS:
        assert f"`{{{word}}}`" in PAGE
