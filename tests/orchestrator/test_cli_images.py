"""The commands `edgewake image ...`: each does what its help says, in text and in JSON."""

import base64
import hashlib
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from images.bootspec import Image
from images.catalog import Catalog
from orchestrator import cli
from orchestrator.cli import Exit
from orchestrator.cli_images import images_app
from orchestrator.state_dir import IMAGES_MODE, TOP_MODE, StateDir
from tests.images.catalog.ready import ready
from tests.results import document_of, refusal
from web.client import Client

Run = Callable[..., Result]

whole = typer.Typer(cls=cli._Commands, rich_markup_mode=None)
whole.callback()(cli.edgewake)
whole.add_typer(images_app)
COMMANDS: dict[str, Any] = typer.main.get_command(images_app).commands  # type: ignore[attr-defined]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def run(state: Path) -> Run:
    def invoke(*args: str | Path) -> Result:
        command = ["--state", str(state), "image", *map(str, args)]
        return CliRunner().invoke(whole, command)

    return invoke


@pytest.fixture
def tiny(run: Run, image: Image) -> str:
    """Add an image of family linux, and return its digest."""
    assert image.kernel is not None
    assert image.initrd is not None
    command = ["add", "tiny:1", str(image.kernel), "--initrd", str(image.initrd)]
    return str(document_of(run(*command, "--family", "linux", "--json"))["digest"])


def _kernel(state: Path) -> Path:
    catalog = Catalog(state / "images" / "catalog")
    return ready(catalog, "tiny:1").main_file


# --- what they do -----------------------------------------------------------------------------


def test_people_are_told_what_happens(run: Run, image: Image, tmp_path: Path) -> None:
    """Run the commands in the order a newcomer would; each says the fact that matters."""
    out, files = tmp_path / "tiny.tar", [image.kernel, "--initrd", image.initrd]
    told: list[tuple[list[object], str]] = [
        (["list"], r"no images yet"),
        (["add", "tiny:1", *files, "--family", "linux"], r"tiny:1: sha256:[0-9a-f]{64}"),
        (["list"], r"tiny:1 +[0-9a-f]{12} +\S+ +linux +[\d.]+ \w+ +20\d\d-"),
        (["show", "tiny"], r"family +linux(.|\n)*kernel +sha256:\S+, [\d.]+ \w+, from vmlinuz"),
        (["tag", "tiny:1", "tiny:stable"], r"tiny:stable: sha256:"),
        (["verify"], r"every byte is right"),
        (["export", "tiny:1", out], r"tiny:1: written to"),
        (["remove", "tiny:1"], r"tiny:1: removed"),
        (["remove", "tiny:stable"], r"removed"),
        (["gc"], r"0 files"),
        (["gc", "--all", "--dry-run"], r"4 files, .*: would go"),
        (["gc", "--all"], r"4 files, .*: removed"),
        (["add", "again", out], r"again:latest: sha256:"),
    ]
    for command, said in told:
        result = run(*command)
        assert result.exit_code == 0, result.output
        assert re.search(said, result.stdout), result.stdout


@pytest.mark.parametrize(
    "command",
    [
        ["list"],
        ["show", "tiny"],
        ["tag", "tiny", "other"],
        ["remove", "tiny"],
        ["verify"],
        ["gc", "--dry-run"],
        ["export", "tiny", "{out}"],
    ],
    ids=lambda command: command[0],
)
def test_json_is_json(run: Run, tiny: str, tmp_path: Path, command: list[str]) -> None:
    told = document_of(run(*(part.format(out=tmp_path / "out") for part in command), "--json"))
    assert isinstance(told, dict)


def test_what_show_says_to_programs(run: Run, tiny: str, image: Image) -> None:
    told = document_of(run("show", tiny, "--json"))
    (flavour,) = told["flavours"]
    assert (told["image"], told["digest"], told["problem"]) == ("tiny:1", tiny, "")
    assert flavour["config"]["family"] == "linux"
    assert "qemu" in flavour["config"]["platforms"]
    assert [each["role"] for each in flavour["files"]] == ["kernel", "initrd"]
    assert image.kernel is not None
    wanted = hashlib.sha256(image.kernel.read_bytes()).hexdigest()
    assert flavour["files"][0]["digest"] == f"sha256:{wanted}"
    assert flavour["files"][0]["signature"] is None


def test_all_options_of_add(run: Run, image: Image, tmp_path: Path) -> None:
    disk = tmp_path / "data.raw"
    disk.write_bytes(bytes(512))
    assert image.kernel is not None
    digest = f"sha256:{hashlib.sha256(image.kernel.read_bytes()).hexdigest()}"
    options = ["--family", "other", "--cmdline", "quiet", "--platform", "qemu", "--digest", digest]
    told = document_of(
        run("add", "x", image.kernel, *options, "--disk", disk, "--flavour", "f", "--json")
    )
    (flavour,) = told["flavours"]
    assert (flavour["name"], flavour["config"]["cmdline"]) == ("f", "quiet")
    assert flavour["config"]["platforms"] == ["qemu"]
    assert [(each["role"], each["format"]) for each in flavour["files"]] == [
        ("kernel", ""),
        ("disk", "raw"),
    ]


def test_a_signed_image(run: Run, image: Image, tmp_path: Path) -> None:
    assert image.kernel is not None
    kernel, other = image.kernel, ("--family", "other")
    private, data = Ed25519PrivateKey.generate(), kernel.read_bytes()
    raw = private.sign(hashlib.blake2b(data).digest())
    lines = (
        "untrusted comment: x",
        base64.b64encode(b"ED" + b"\1" * 8 + raw).decode(),
        "trusted comment: by me",
        base64.b64encode(private.sign(raw + b"by me")).decode(),
        "",
    )
    signature, key = tmp_path / "s.minisig", tmp_path / "k.pub"
    signature.write_text("\n".join(lines))
    public = base64.b64encode(b"Ed" + b"\1" * 8 + private.public_key().public_bytes_raw()).decode()
    key.write_text(f"untrusted comment: a key\n{public}\n")
    for value in (key, public):
        result = run("add", "x", kernel, *other, "--signature", signature, "--key", value)
        assert "signed by 101010101010101 (not among the trusted keys): by me" in result.stdout
    stranger = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    wrong = base64.b64encode(b"Ed" + b"\1" * 8 + stranger).decode()
    result = run("add", "y", kernel, *other, "--signature", signature, "--key", wrong)
    assert "trusted comment is not the one" in refusal(result, Exit.FAILED)
    assert "add --key" in refusal(
        run("add", "y", kernel, *other, "--signature", signature), Exit.FAILED
    )


def test_the_first_image_makes_the_state_directory_as_it_should_be(
    run: Run, tiny: str, state: Path
) -> None:
    assert state.stat().st_mode & 0o777 == TOP_MODE
    assert StateDir(state).images.stat().st_mode & 0o777 == IMAGES_MODE
    assert StateDir(state).owner


def test_it_works_while_edgewake_runs(run: Run, image: Image, state: Path) -> None:
    with StateDir.open(state):
        assert run("add", "tiny", str(image.kernel), "--family", "other").exit_code == 0
        assert run("list").exit_code == 0


def test_looking_makes_nothing(run: Run, state: Path) -> None:
    assert run("list").exit_code == run("verify").exit_code == run("gc").exit_code == 0
    assert not state.exists()


# --- what goes wrong --------------------------------------------------------------------------


def test_damage_is_told_and_is_a_failure(run: Run, tiny: str, state: Path) -> None:
    kernel = _kernel(state)
    kernel.chmod(0o644)
    kernel.write_bytes(b"other")
    result = run("verify")
    assert result.exit_code == Exit.FAILED
    assert str(kernel) in result.stdout
    assert "needed by tiny:1" in result.stdout
    result = run("verify", "tiny", "--json")
    assert result.exit_code == Exit.FAILED
    assert json.loads(result.stdout)["damages"][0]["images"] == ["tiny:1"]
    said = refusal(run("export", "tiny", state / "out"), Exit.FAILED)
    assert len(re.findall(r"sha256:[0-9a-f]{64}", said)) == 2


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["show", "nope"], "there are: tiny:1"),
        (["remove", "nope"], "no image 'nope'"),
        (["tag", "nope", "x"], "no image"),
        (["tag", "tiny", "A B"], "no name for an image"),
        (["verify", "nope"], "no image"),
        (["export", "nope", "x"], "no image"),
        (["add", "x", "absent"], "absent: cannot be read"),
        (["add", "x", "https://127.0.0.1/x"], "--digest"),
        (["add", "tiny:1", "{initrd}"], "nothing to boot"),
        (
            ["add", "x", "{kernel}", "--family", "other", "--digest", "sha256:" + "0" * 64],
            "damaged or truncated",
        ),
        (["add", "x", "{kernel}", "--platform", "xen", "--family", "other"], "Xen host by"),
        (["add", "x", "{kernel}"], "vmlinuz does not tell by its bytes"),
        (["add", "x", "{kernel}", "--key", "no key"], "--key no key"),
        (["add", "x", "{kernel}", "--key", "k" * 5000], "base64"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_what_cannot_be_done(
    run: Run, tiny: str, image: Image, command: list[str], said: str
) -> None:
    filled = [part.format(kernel=image.kernel, initrd=image.initrd) for part in command]
    assert said in refusal(run(*filled), Exit.FAILED)


def test_another_image_of_that_name(run: Run, tiny: str, image: Image) -> None:
    command = ["add", "tiny:1", str(image.kernel), "--family", "other", "--flavour", "qemu-xen"]
    assert "--replace" in refusal(run(*command), Exit.FAILED)
    assert run(*command, "--replace").exit_code == 0


@pytest.fixture
def uses(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what lets an edgewake run whose lab names these images of the catalogue."""

    def run(*names: str) -> None:
        monkeypatch.setattr(Client, "get", lambda *_: {"catalog": list(names)})

    return run


@pytest.mark.parametrize("by", ["name", "digest", "short digest", "flavour"])
@pytest.mark.parametrize(
    "command",
    [
        ["remove", "tiny:1"],
        ["tag", "other", "tiny:1", "--replace"],
        ["add", "tiny:1", "{kernel}", "--family", "other", "--flavour", "{flavour}", "--replace"],
    ],
    ids=lambda command: command[0],
)
def test_what_the_running_lab_uses_stays(  # noqa: PLR0917 - fixtures
    run: Run, tiny: str, image: Image, uses: Callable[..., None], command: list[str], by: str
) -> None:
    kernel = str(image.kernel)
    assert run("add", "other", kernel, "--family", "other").exit_code == 0
    (flavour,) = document_of(run("show", "tiny", "--json"))["flavours"]
    second = ["add", "tiny:1", kernel, "--family", "other", "--flavour", "second", "--json"]
    whole = document_of(run(*second))["digest"]
    names = {"name": "tiny", "digest": whole, "short digest": whole[7:15], "flavour": tiny}
    filled = [each.format(kernel=kernel, flavour=flavour["name"]) for each in command]
    uses(names[by])
    said = refusal(run(*filled), Exit.FAILED)
    assert f"tiny:1 is used by the lab of the running edgewake, as '{names[by]}'" in said
    uses("other")
    assert run(*filled).exit_code == 0


def test_what_a_guest_runs_from_stays_while_no_edgewake_runs(
    run: Run, tiny: str, state: Path
) -> None:
    kernel = _kernel(state)
    Catalog(state / "images" / "catalog").hold("ew-lab-web-0", [kernel])
    run("remove", "tiny")
    removed = document_of(run("gc", "--all", "--json"))["removed"]
    assert len(removed) == 3
    assert kernel.exists()


@pytest.mark.parametrize(
    "command",
    [["nope"], ["add", "x"], ["show"], ["add", "x", "y", "--platform", "vmware"]],
    ids=" ".join,
)
def test_wrong_usage(run: Run, command: list[str]) -> None:
    refusal(run(*command), Exit.USAGE)


# --- help, progress ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_an_example_and_json(run: Run, name: str) -> None:
    assert f"Example: edgewake image {name}" in run(name, "--help").stdout
    assert "--json" in {option for param in COMMANDS[name].params for option in param.opts}


def test_help_loads_nothing_heavy() -> None:
    code = "import sys, orchestrator.cli_images; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"images.catalog", "rich.table", "rich.progress"} & set(done.stdout.split())
    assert "typer" in done.stdout.split()


@pytest.mark.parametrize("option", [(), ("--json",)], ids=["bar", "json"])
def test_a_terminal_sees_a_bar_unless_it_wants_json(
    tmp_path: Path, state: Path, image: Image, option: tuple[str, ...]
) -> None:
    assert image.kernel is not None
    image.kernel.write_bytes(image.kernel.read_bytes() + bytes(5 << 20))
    code = (
        "import typer; from orchestrator import cli\n"
        "from orchestrator.cli_images import images_app\n"
        "app = typer.Typer(cls=cli._Commands); app.callback()(cli.edgewake)\n"
        "app.add_typer(images_app); app()"
    )
    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-c",
        code,
        "--state",
        str(state),
        "image",
        "add",
        "t",
        "--family",
        "other",
    ]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        [*command, str(image.kernel), *option],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 65536):
            seen += chunk
    except OSError:  # what the end of a terminal looks like on Linux
        pass
    os.close(ours)
    with process:
        assert process.stdout is not None
        out = process.stdout.read()
    assert process.returncode == 0, seen
    assert b"sha256:" in out
    assert (b"MB" in seen and b"vmlinuz" in seen) == (not option), seen
    assert bool(seen) == (not option)
