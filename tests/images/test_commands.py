"""Images that are commands: what they are, when they change, and how they are told things."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.bootspec import BootRequest, BootSpec, GuestAddress, HostTraits, Image, Nic, Platform
from images.commands import command_facts, digest, executable, version, written_at
from images.errors import ImageNotFound, ImageRefused
from images.facts import Architecture, Entry, ImageFacts
from images.families import family
from images.families.command import COMMAND
from images.inspect import inspect
from images.match import match, resolve
from orchestrator.digests import Digests

COMMAND_FACTS = ImageFacts(1, entries=frozenset({Entry.COMMAND}), family="command")
REQUEST = BootRequest(
    name="ew-lab-web-0",
    service="web",
    host="box",
    address=GuestAddress(
        IPv4Interface("10.0.0.2/24"), IPv4Address("10.0.0.1"), IPv6Interface("fd00::2/64")
    ),
    nic=Nic("lab", "02:ed:0a:00:00:02"),
    memory_mib=32,
    config=(("greeting", "good day, \U0001f600"), ("DEBUG", "")),
    platform=Platform.NETNS,
    entry=Entry.COMMAND,
    port=8080,
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "usr/bin").mkdir(parents=True)
    program = tree / "usr/bin/serve"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (tree / "bin").symlink_to("usr/bin")
    (tree / "usr/bin/absolute").symlink_to("/bin/serve")
    (tree / "usr/bin/up").symlink_to("../../../../../../usr/bin/serve")
    (tree / "usr/bin/round").symlink_to("round")
    (tree / "usr/bin/out").symlink_to("/etc/passwd")
    (tree / "usr/bin/text").write_text("no program")
    return tree


def of(tree: Path | None, *argv: str) -> Image:
    return Image("web", family="command", exec=argv, tree=tree)


def spec(image: Image, **changes: object) -> BootSpec:
    return COMMAND.boot_spec(image, COMMAND_FACTS, replace(REQUEST, **changes))  # type: ignore[arg-type]


# --- where its program is -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["/usr/bin/serve", "/bin/serve", "/bin/absolute", "/bin/up"])
def test_links_lead_where_they_do_for_who_has_the_tree_as_root(tree: Path, name: str) -> None:
    assert executable(of(tree, name)) == tree / "usr/bin/serve"


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("/bin/none", ImageNotFound, "No such file"),
        ("/bin/out", ImageNotFound, "No such file"),
        ("/bin/serve/x", ImageNotFound, "Not a directory"),
        ("/bin/round", ImageRefused, "without end"),
        ("/bin/text", ImageRefused, r"chmod a\+rx"),
        ("/bin", ImageRefused, "no program"),
        ("/" + "x" * 5000, ImageNotFound, "File name too long"),
    ],
)
def test_a_program_that_nobody_could_start_is_named(
    tree: Path, name: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        executable(of(tree, name))


@given(
    st.lists(st.sampled_from(["..", ".", "usr", "bin", "up", "absolute", "out", "x"]), max_size=9)
)
def test_no_path_leads_out_of_a_tree(parts: list[str]) -> None:
    tree = Path(__file__).parent  # its files are no programs for everybody
    with suppress(ImageNotFound, ImageRefused):
        assert executable(of(tree, "/" + "/".join(parts))).is_relative_to(tree)


def test_what_a_command_is(tree: Path) -> None:
    facts = command_facts(of(tree, "/bin/serve"), inspect)
    assert (facts.entries, facts.family, facts.unusable) == ({Entry.COMMAND}, "command", "")
    assert resolve(of(tree, "/bin/serve"), facts) == "command"
    own = command_facts(of(None, "/bin/sh"), inspect)
    assert own.architecture is not None
    with pytest.raises(ImageNotFound, match=r"is no folder; correct 'tree:'"):
        command_facts(of(tree / "none", "/bin/serve"), inspect)


# --- when it changes ------------------------------------------------------------------------------


def written(tree: Path) -> None:
    (tree / "usr/bin/serve").write_text("#!/bin/ash\n")


def made_more(tree: Path) -> None:
    (tree / "new").write_text("")


def led_elsewhere(tree: Path) -> None:
    (tree / "bin").unlink()
    (tree / "bin").symlink_to("/usr/bin")


def allowed(tree: Path) -> None:
    (tree / "usr/bin/serve").chmod(0o555)


@pytest.mark.parametrize("change", [written, made_more, led_elsewhere, allowed])
def test_whatever_changes_in_a_tree_changes_digest_and_version(
    tree: Path, change: Callable[[Path], None]
) -> None:
    image, digests = of(tree, "/usr/bin/serve"), Digests()
    before = digest(image, digests.of), version(image)
    assert before == (digest(image, digests.of), version(image))
    change(tree)
    after = digest(image, digests.of), version(image)
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_the_digest_is_of_what_is_there_and_not_of_where(tree: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    tree.rename(elsewhere)
    moved = digest(of(elsewhere, "/bin/serve", "x"), Digests().of)
    elsewhere.rename(tree)
    assert digest(of(tree, "/bin/serve", "x"), Digests().of) == moved
    assert digest(of(tree, "/bin/serve", "y"), Digests().of) != moved
    assert written_at(of(tree, "/bin/serve")) > 0


# --- what it is told ------------------------------------------------------------------------------


def test_it_is_run_as_it_is_written() -> None:
    boot = spec(of(Path("/srv/web"), "/bin/serve", "", "{ip}", "a b", "\udcff"))
    assert boot.command is not None
    assert boot.command.argv == ("/bin/serve", "", "{ip}", "a b", "\udcff")
    assert boot.command.address == REQUEST.address
    assert (boot.command.tree, boot.command.filtered) == (Path("/srv/web"), True)
    assert (boot.kernel, boot.files, boot.nics) == (None, (), (REQUEST.nic,))
    assert boot.obeys_shutdown
    assert not spec(replace(of(None, "/bin/serve"), obeys_shutdown=False)).obeys_shutdown


def test_its_environment_is_all_it_is_told() -> None:
    command = spec(of(None, "/bin/serve")).command
    assert command is not None
    assert dict(command.environment) == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/tmp",  # noqa: S108 - its own
        "LANG": "C.UTF-8",
        "PORT": "8080",
        "greeting": "good day, \U0001f600",
        "DEBUG": "",
        "EDGEWAKE_ADDRESS": "10.0.0.2",
        "EDGEWAKE_ADDRESS6": "fd00::2",
        "EDGEWAKE_GATEWAY": "10.0.0.1",
        "EDGEWAKE_INSTANCE": "ew-lab-web-0",
        "EDGEWAKE_SERVICE": "web",
        "EDGEWAKE_HOST": "box",
    }
    anonymous = spec(
        replace(of(None, "/bin/serve"), anonymous=True), config=(("PORT", "1"),), port=0
    )
    assert anonymous.command is not None
    told = dict(anonymous.command.environment)
    assert "EDGEWAKE_SERVICE" not in told
    assert told["PORT"] == "1"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("a=b", "x", "environment variable"),
        ("", "x", "environment variable"),
        ("EDGEWAKE_HOST", "x", "that begin with EDGEWAKE_ are ours"),
        ("a", "x\0y", "has a NUL"),
        ("a", "\ud800", "half a character"),
    ],
)
def test_what_no_environment_can_say_is_refused(name: str, value: str, words: str) -> None:
    with pytest.raises(ImageRefused, match=words):
        spec(of(None, "/bin/serve"), config=((name, value),))


def test_a_command_needs_something_to_run() -> None:
    with pytest.raises(ImageRefused, match="needs 'exec:'"):
        COMMAND.check(Image("web", family="command", kernel=Path("/kernel")), inspect)


@pytest.mark.parametrize("argument", ["a\0b", "\ud800"])
def test_what_no_argument_can_say_is_refused(argument: str) -> None:
    with pytest.raises(ImageRefused, match="entry 1 of 'exec:' has a NUL or half"):
        COMMAND.check(of(None, "/bin/serve", argument), inspect)


# --- where it runs --------------------------------------------------------------------------------

NETNS = HostTraits(Platform.NETNS)


def test_commands_run_on_netns_hosts_and_nothing_else_does() -> None:
    image = of(None, "/bin/serve")
    assert match(image, COMMAND_FACTS, COMMAND.traits, NETNS, 32).entry is Entry.COMMAND
    for platform in set(Platform) - {Platform.NETNS}:
        refused = match(image, COMMAND_FACTS, COMMAND.traits, HostTraits(platform), 32)
        assert "it is a command, and" in refused.why_not
        assert "place it on a netns host" in refused.why_not
    kernel = Image("k", kernel=Path("/kernel"))
    facts = ImageFacts(1, entries=frozenset({Entry.LINUX}), family="linux")
    refused = match(kernel, facts, family("linux").traits, NETNS, 128)
    assert "a netns host runs commands ('exec:'), and boots no images" in refused.why_not


def test_a_command_is_for_one_kind_of_processor_has_enough_memory_and_dumps_no_core() -> None:
    image, traits = of(None, "/bin/serve"), COMMAND.traits
    foreign = replace(COMMAND_FACTS, architecture=Architecture.AARCH64)
    assert "built for aarch64" in match(image, foreign, traits, NETNS, 32).why_not
    assert "too few" in match(image, COMMAND_FACTS, traits, NETNS, 1).why_not
    dumped = match(image, COMMAND_FACTS, traits, NETNS, 32, dumps_core=True)
    assert "a netns host takes none" in dumped.why_not
