"""Which image a host boots for a service, and every reason why it boots none."""

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Network
from pathlib import Path
from typing import Any

import pytest

from images.bootspec import BootSpec, Disk, Image, Platform
from images.catalog import Fetched
from images.errors import ImageRefused
from images.facts import Architecture
from images.inspect import Inspector
from images.match import Match, match
from orchestrator import library as library_module
from orchestrator.digests import Digests
from orchestrator.errors import ImageUnusable
from orchestrator.library import Library, Place, example, traits_of
from orchestrator.model import (
    Capacity,
    DnsSettings,
    Host,
    Lab,
    OnCrash,
    Port,
    Probe,
    ProbeKind,
    Public,
    Service,
)
from tests.images.specimens import solo5
from tests.world import World, a_host, a_service, an_image

QEMU = a_host("q")
XEN = replace(a_host("x", 1), uri="xen:///system")


@dataclass
class Shelf:
    """A catalogue of one image in several flavours, some of which cannot be used."""

    flavours: tuple[Fetched, ...] = ()
    held: dict[str, tuple[Path, ...]] = field(default_factory=dict)

    def fetch(self, asked: Image) -> Sequence[Fetched]:
        return self.flavours if asked.catalog else (Fetched("", (), lambda: asked),)

    def hold(self, who: str, files: Iterable[Path]) -> None:
        self.held[who] = tuple(files)

    def release(self, who: str) -> None:
        self.held.pop(who, None)

    def holders(self) -> tuple[str, ...]:
        return tuple(self.held)


@pytest.fixture
def hello(tmp_path: Path) -> Image:
    """Return an image that boots by multiboot on QEMU, of a family that takes any template."""
    kernel = tmp_path / "kernel.elf"
    kernel.write_bytes(solo5(3))
    return Image("multi", "other", kernel, template="ip={cidr}")


def lab_of(*images: Image, hosts: Sequence[Host] = (QEMU,), service: Service | None = None) -> Lab:
    service = service or a_service(
        "web", images=tuple(image.name for image in images), resources=Capacity(0.1, 128)
    )
    return Lab("t", DnsSettings("edge.test"), tuple(hosts), images=images, services=(service,))


def place(host: Host = QEMU) -> Place:
    return Place(host, traits_of(host))


def test_the_first_image_that_the_host_can_run_is_taken(tmp_path: Path, hello: Image) -> None:
    linux = an_image(tmp_path)
    lab = lab_of(hello, linux)
    library = Library(Inspector())
    assert library.fit(lab, lab.services[0], place()).image is hello
    assert library.fit(lab, lab.services[0], place(XEN)).image is linux
    assert library.unfit(lab, lab.services[0], {"q": place(), "x": place(XEN)}) == {}


def test_whether_a_host_can_boot_an_image_is_worked_out_again_only_when_something_changed(
    hello: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[str] = []

    def counted(image: Image, *args: Any, **named: Any) -> Match:
        judged.append(image.name)
        return match(image, *args, **named)

    monkeypatch.setattr(library_module, "match", counted)
    lab, library = lab_of(hello), Library(Inspector())
    service = lab.services[0]
    more = replace(service, resources=Capacity(0.1, 256))
    there = replace(QEMU, network=replace(QEMU.network, name="other"))
    for asked, host in ((service, QEMU), (more, QEMU), (more, there)):
        before = len(judged)
        for _ in range(2):
            assert library.fit(lab, asked, place(host)).image is hello
        assert len(judged) == before + 1
    assert hello.kernel is not None
    hello.kernel.write_bytes(b"no kernel")
    with pytest.raises(ImageUnusable):
        library.fit(lab, more, place(there))


def test_a_block_device_is_not_read_for_a_digest(
    hello: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, library = lab_of(hello), Library(Inspector())
    fit = library.fit(lab, lab.services[0], place())
    by_bytes = library.digest(fit)
    monkeypatch.setattr(Path, "is_block_device", lambda _path: True)
    monkeypatch.setattr(Digests, "of", lambda _digests, _path: pytest.fail("it was read"))
    assert library.digest(fit) not in {"", by_bytes}


def test_a_host_with_other_processors_is_out(tmp_path: Path) -> None:
    lab = lab_of(an_image(tmp_path))
    arm = replace(QEMU, architecture=Architecture.AARCH64)
    assert Library(Inspector()).unfit(lab, lab.services[0], {"q": place(), "a": place(arm)}) == {
        "a": "image tiny: it was built for i686, and the host has aarch64 processors; build it "
        "for those"
    }


def test_a_service_that_wants_a_core_dump_goes_where_one_is_taken(tmp_path: Path) -> None:
    lab = lab_of(an_image(tmp_path))
    service = replace(lab.services[0], on_crash=OnCrash.COREDUMP)
    unfit = Library(Inspector()).unfit(lab, service, {"q": place(), "x": place(XEN)})
    assert "a QEMU host takes none" in unfit["q"]
    assert "it can be entered by Linux boot protocol" in unfit["x"]


@pytest.mark.parametrize(
    ("host", "disks", "asked"),
    [
        (QEMU, (), True),
        (XEN, (), False),
        (XEN, (Disk(Path("d.img")),), False),
        (XEN, (Disk(Path("d.img")), Disk(Path("e.img"), read_only=False)), True),
    ],
)
def test_on_xen_only_guests_that_have_something_to_lose_are_asked_to_end(
    tmp_path: Path, host: Host, disks: tuple[Disk, ...], asked: bool
) -> None:
    disks = tuple(replace(disk, path=tmp_path / disk.path.name) for disk in disks)
    for disk in disks:
        disk.path.write_bytes(bytes(4096))
    linux = replace(an_image(tmp_path), obeys_shutdown=True, disks=disks)
    for image, obeys in ((linux, True), (replace(linux, obeys_shutdown=False), False)):
        lab = lab_of(image, hosts=(host,))
        service = lab.services[0]
        guest = Library(Inspector()).guest(
            lab, service, example(lab.name, service, host), place(host), "us"
        )
        assert guest.mark.obeys_shutdown is (asked and obeys)


def test_a_command_runs_where_commands_run_and_what_is_in_its_tree_counts(tmp_path: Path) -> None:
    program = tmp_path / "tree/serve"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    image = Image("web", family="command", exec=("/serve",), tree=program.parent)
    box = replace(QEMU, name="p", uri="netns:///")
    lab = lab_of(image, hosts=(QEMU, box))
    library = Library(Inspector())
    service = replace(lab.services[0], ports=(Port(53, "udp"), Port(8080)))
    unfit = library.unfit(lab, service, {"q": place(), "p": place(box)})
    assert list(unfit) == ["q"]
    assert "it is a command, and a QEMU host runs none" in unfit["q"]
    fit = library.fit(lab, service, place(box))
    guest = library.guest(lab, service, example(lab.name, service, box), place(box), "us", fit=fit)
    assert guest.boot.command is not None
    assert ("PORT", "8080") in guest.boot.command.environment
    assert guest.mark.obeys_shutdown
    before = library.digest(fit), library.version(fit)
    (program.parent / "data").write_text("new")
    assert library.written_at(fit) > 0
    assert library.digest(fit) != before[0]
    assert library.version(fit) != before[1]
    program.unlink()
    assert library.version(fit) != before[1]
    with pytest.raises(ImageUnusable, match="correct 'exec:'"):
        library.fit(lab, service, place(box))


def test_what_the_family_refuses_to_say_leads_to_the_next_image(
    tmp_path: Path, hello: Image
) -> None:
    needs_six = replace(hello, template="ip={cidr} six={ip6}")
    lab = lab_of(needs_six, an_image(tmp_path))
    library = Library(Inspector())
    assert library.fit(lab, lab.services[0], place()).image.name == "tiny"


def test_hosts_that_cannot_be_said_what_the_template_wants_are_out(hello: Image) -> None:
    lab = lab_of(replace(hello, template="ip={cidr} six={ip6}"))
    network = replace(QEMU.network, subnet6=IPv6Network("fd00::/64"))
    dual = replace(QEMU, name="d", network=network)
    unfit = Library(Inspector()).unfit(lab, lab.services[0], {"q": place(), "d": place(dual)})
    assert list(unfit) == ["q"], unfit
    assert "ip6" in unfit["q"]


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("qemu:///system", "only guests of a Xen host"),
        ("qemu+ssh://pc1/system", "only guests of a Xen host"),
        ("spt:///", "only guests of a Xen host"),
        ("xen+tls://pc1/system", r"out of reach.* xen\+ssh"),
        ("xen+tcp://pc1/system", r"out of reach.* xen\+ssh"),
        ("xen://pc1/system", r"out of reach.* xen\+ssh"),
        ("xen:///system", ""),
        ("xen+unix:///system", ""),
        ("xen+ssh://root@pc1/system", ""),
    ],
)
def test_a_probe_of_a_xenstore_key_needs_a_host_that_has_one(
    tmp_path: Path, uri: str, why: str
) -> None:
    probe = Probe(ProbeKind.XENSTORE, key="data/ready")
    service = a_service("web", probe=probe, resources=Capacity(0.1, 128))
    lab = lab_of(an_image(tmp_path), service=service)
    library, there = Library(Inspector()), place(replace(QEMU, uri=uri))
    unfit = library.unfit(lab, service, {"q": there})
    if why:
        with pytest.raises(ImageUnusable, match=f"its probe waits for a Xenstore key, .*{why}"):
            library.fit(lab, service, there)
        assert "Xenstore" in unfit["q"]
    else:
        assert "Xenstore" not in unfit.get("q", "")


def test_an_image_that_wants_xenstore_keys_needs_a_host_where_they_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = lab_of(an_image(tmp_path))
    service, library = lab.services[0], Library(Inspector())
    told = library_module.boot_spec

    def with_keys(*asked: Any) -> BootSpec:
        return replace(told(*asked), xenstore=(("data/told", "x"),))

    monkeypatch.setattr(library_module, "boot_spec", with_keys)
    assert library.fit(lab, service, place(XEN)).image.name == "tiny"
    for uri in ("qemu:///system", "xen+tls://pc1/system"):
        with pytest.raises(ImageUnusable, match=r"it wants Xenstore keys \(data/told\)"):
            library.fit(lab, service, place(replace(QEMU, uri=uri)))


def test_a_guest_that_is_not_told_its_ipv6_address_has_none(tmp_path: Path) -> None:
    linux = an_image(tmp_path)
    host = replace(QEMU, network=replace(QEMU.network, subnet6=IPv6Network("fd00::/64")))
    for image, told in ((linux, True), (replace(linux, template="ip={cidr}"), False)):
        lab = lab_of(image, hosts=(host,))
        service = lab.services[0]
        guest = Library(Inspector()).guest(
            lab, service, example(lab.name, service, host), place(host), "us"
        )
        assert (guest.mark.address6 is not None) is told
        assert ("fd00::" in guest.boot.cmdline) is told


def test_a_guest_is_told_the_public_address_or_is_not_booted(tmp_path: Path, hello: Image) -> None:
    linux = an_image(tmp_path)
    public = Public(IPv4Address("203.0.113.10"), "eth1")
    for image, told in (
        (linux, "edgewake.own=203.0.113.10"),
        (replace(linux, template="ip={cidr} mine={own}"), "mine=203.0.113.10"),
        (replace(hello, template="ip={cidr}[ mine={own}]"), "mine=203.0.113.10"),
    ):
        service = replace(lab_of(image).services[0], public=public)
        lab = lab_of(image, service=service)
        instance = example(lab.name, service, QEMU)
        guest = Library(Inspector()).guest(lab, service, instance, place(), "us")
        assert told in guest.boot.cmdline
    lab = lab_of(hello, service=replace(lab_of(hello).services[0], public=public))
    unfit = Library(Inspector()).unfit(lab, lab.services[0], {"q": place()})
    assert (
        "not told to have the public address 203.0.113.10: its template does not say it"
        in unfit["q"]
    )


def test_a_damaged_flavour_does_not_disable_the_others(tmp_path: Path) -> None:
    good = an_image(tmp_path)

    def damaged() -> Image:
        raise ImageRefused("blob 12 should be 34")

    asked = Image("tiny", catalog="tiny:1")
    shelf = Shelf(
        (
            Fetched("bad", (), damaged),
            Fetched("xen", (Platform.XEN,), damaged),
            Fetched("good", (), lambda: good),
        )
    )
    lab = lab_of(asked)
    library = Library(Inspector(), shelf)
    assert library.fit(lab, lab.services[0], place()).image is good
    assert set(library.files(lab)) == set(good.files)
    only = Library(Inspector(), Shelf(shelf.flavours[:2]))
    with pytest.raises(ImageUnusable, match=r"blob 12 should be 34; .*its flavour xen is for xen"):
        only.fit(lab, lab.services[0], place())


def test_every_file_of_an_image_has_to_be_there(tmp_path: Path) -> None:
    image = an_image(tmp_path)
    assert image.initrd is not None
    image.initrd.unlink()
    lab = lab_of(image)
    with pytest.raises(ImageUnusable, match="initrd"):
        Library(Inspector()).fit(lab, lab.services[0], place())
    assert Library(Inspector()).unfit(lab, lab.services[0], {"q": place()}) == {}


def test_files_are_held_while_a_guest_needs_them(make_world: Callable[..., World]) -> None:
    world = make_world(start=False)
    shelf = Shelf(held={"left by a crash": ()})
    world.library = Library(Inspector(), shelf)
    control = world.start()
    (end,) = world.ask("web")
    assert list(shelf.held) == ["left by a crash", end.instance]
    control.apply(world.lab)
    world.eventually(lambda: list(shelf.held) == [end.instance])
    control.release("web")
    assert shelf.held == {}


def test_an_image_that_vanishes_is_told_once_however_many_hosts_there_are(
    make_world: Callable[..., World], image: Image
) -> None:
    hosts = [a_host(name, index) for index, name in enumerate("abc")]
    world = make_world(hosts=hosts)
    shutil.rmtree(image.main_file.parent)
    with pytest.raises(ImageUnusable) as caught:
        world.ask("web")
    assert str(caught.value).count("no such file") == 1


def test_explain_says_why_an_absent_image_boots_nowhere(
    make_world: Callable[..., World], image: Image
) -> None:
    world = make_world(a_service("web", resources=Capacity(0.1, 100)))
    image.main_file.unlink()
    (choice,) = world.control.explain("web")
    assert choice.rank is None
    assert "no such file" in choice.why_not
