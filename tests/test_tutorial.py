"""docs/tutorials/xen-mini-pc.md is true: its commands are run in order, on the Xen test bed.

Each fenced block has a mark, an HTML comment in the line before it:

    run: here           a script for bash on this machine, whose folder, home and state are a test's
    run: dom0           a script for sh on the mini-PC, which is the bed
    run: up             a command that goes on running until the end of the test
    shows               what the last script printed: the first word of each line is looked for
    file: NAME          a lab file is written; another file's syntax is checked, not installed
    adds to lab.yaml    what the lab file may have as well; it is parsed with it
    not run: WHY        cannot be run here

What is put in place of something else, and nothing besides:

    192.168.7.          the bed's subnet
    5390                a free port
    ssh, ssh-keyscan    ask the bed for whatever host, with the page's key and known host; after the
                        page's own login there is one connection for all
    edgewake            this checkout's
    scp, make image     their result is there when the page comes to them
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

import pytest
import yaml

from images.build import hello
from orchestrator.labfile import parse_lab
from tests.pages import COMMAND_S, ROOT, Block, blocks_of, unmarked
from tests.ports import free_port
from tests.xenbed.bed import Bed
from tests.xenbed.fixture import own_bed
from tests.xenbed.personality import ssh_config
from tests.xenbed.plan import Wanted

PAGE = ROOT / "docs" / "tutorials" / "xen-mini-pc.md"
BED_NETWORK = "xenbr0"  # of libvirt in the bed


BLOCKS = blocks_of(PAGE.read_text())


def the_file(name: str) -> str:
    (block,) = (b for b in BLOCKS if b.mark.removeprefix("file: ").partition(";")[0] == name)
    return block.text


# --- without a bed --------------------------------------------------------------------------------


def test_every_block_is_marked() -> None:
    assert unmarked(PAGE.read_text()) == []
    assert len(BLOCKS) == PAGE.read_text().count("\n```") / 2, "a fence that we do not see"


def test_what_is_not_run_or_installed_says_why() -> None:
    reasons = [b.mark.partition(": ")[2] for b in BLOCKS if b.mark.startswith("not run")]
    reasons += [b.mark.partition("; ")[2] for b in BLOCKS if b.mark.startswith("file: /")]
    assert all(len(reason.split()) > 2 for reason in reasons)


def test_the_check_finds_a_block_without_a_mark() -> None:
    page = (
        "<!-- shows -->\n```text\na\n```\n\n```sh\nrm -r /\n```\n<!-- not run: -->\n```sh\nx\n```\n"
    )
    assert unmarked(page) == [6, 10]


def test_grub_is_told_of_dom0s_memory_and_of_xen() -> None:
    text = the_file("/etc/default/grub.d/edgewake.cfg")
    script = text + 'echo "$GRUB_CMDLINE_XEN_DEFAULT|$XEN_OVERRIDE_GRUB_DEFAULT"'
    told = subprocess.run(["sh", "-eu", "-c", script], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"dom0_mem=(\d+M),max:\1\|1\n", told.stdout)


def test_the_bridge_takes_over_the_cards_address() -> None:
    stanzas = interfaces(the_file("/etc/network/interfaces"))
    bridge = stanzas["xenbr0", "static"]
    assert IPv4Interface(bridge["address"]).network == lab_document()["subnet"]
    assert IPv4Address(bridge["gateway"]) in lab_document()["subnet"]
    assert stanzas[bridge["bridge_ports"], "manual"] == {}, "the card itself has no address"
    assert bridge["bridge_fd"] == "0"


def interfaces(text: str) -> dict[tuple[str, str], dict[str, str]]:
    """Parse /etc/network/interfaces (interfaces(5)) into (name, method) and options."""
    stanzas: dict[tuple[str, str], dict[str, str]] = {}
    options: dict[str, str] = {}
    for words in filter(None, map(str.split, text.splitlines())):
        match words:
            case ["auto", *_]:
                options = {}
            case ["iface", name, "inet", method]:
                options = stanzas[name, method] = {}
            case [key, value]:
                options[key] = value
            case _:
                pytest.fail(f"not a line of interfaces(5): {words}")
    return stanzas


def lab_document() -> Mapping[str, Any]:
    lab = parse_lab(the_file("lab.yaml"), Path("lab.yaml"))
    return {"lab": lab, "subnet": lab.hosts[0].network.subnet}


@pytest.mark.parametrize("added", [b.text for b in BLOCKS if b.mark.startswith("adds")])
def test_what_may_be_added_to_the_lab_file_goes_with_it(added: str) -> None:
    document = yaml.safe_load(the_file("lab.yaml"))
    more = yaml.safe_load(added)
    assert set(more) == {"images", "services"}
    for key, entries in more.items():
        document[key].update(entries)
    lab = parse_lab(yaml.safe_dump(document), Path("lab.yaml"))
    assert {service.name for service in lab.services} == {"web", *more["services"]}


# --- on the bed -----------------------------------------------------------------------------------


class Reader:
    """Somebody who does what the page says: here in a folder of a test's, and in the bed's dom0."""

    def __init__(self, bed: Bed, folder: Path) -> None:
        self._bed = bed
        self._home, self.work, bin_ = (folder / name for name in ("home", "work", "bin"))
        for each in (self._home, self.work, bin_):
            each.mkdir()
        self._subnet = str(bed.state.lan.subnet[0]).removesuffix("0")
        self._port = str(free_port())
        self.said: dict[str, str] = {}  # what each script printed, by its text
        self.last = ""
        self._up: subprocess.Popen[str] | None = None
        self._way: subprocess.Popen[bytes] | None = None
        self._environ = {
            **os.environ,
            "HOME": str(self._home),
            "EDGEWAKE_STATE": str(folder / "state"),
            "PYTHONPATH": str(ROOT),
            "PATH": f"{bin_}:{os.environ['PATH']}",
        }
        hello.build(folder / "state" / "images" / "hello")
        self._make_programs(bin_)

    def _make_programs(self, bin_: Path) -> None:
        """Write programs whose pc1 is the bed, in front of those of this machine."""
        theirs = self._bed.state.folder
        config = ssh_config(self._bed.state).replace("HostKeyAlias dom0", "HostKeyAlias pc1")
        for old, new in (("/id", ".ssh/id_ed25519"), ("/known_hosts", ".ssh/known_hosts")):
            assert f"{theirs}{old}" in config
            config = config.replace(f"{theirs}{old}", str(self._home / new))
        way = theirs / "way"  # a short path: that of a socket has 107 characters at most
        (bin_ / "config").write_text(f"{config}    ControlPath {way}\n")
        port = self._bed.state.ssh_port
        programs = {
            "edgewake": f'exec "{sys.executable}" -m orchestrator "$@"',
            "ssh": f'exec "{shutil.which("ssh")}" -F "{bin_}/config" "$@"',
            "ssh-keyscan": f'"{shutil.which("ssh-keyscan")}" -p {port} "$1" "$2" 127.0.0.1 '
            f'| sed "s/^[^ ]*:{port} /$3 /"',
        }
        for name, script in programs.items():
            (bin_ / name).write_text(f"#!/bin/sh\n{script}\n")
            (bin_ / name).chmod(0o755)

    def substituted(self, text: str) -> str:
        return text.replace("192.168.7.", self._subnet).replace("5390", self._port)

    def do(self, block: Block) -> None:
        """Do what a block says. Fails with its line and what it printed."""
        text = self.substituted(block.text)
        where = f"{PAGE.name}, line {block.line}: {text}"
        match block.mark:
            case "run: here":
                self._heard(block, where, self._here(["bash", "-e", "-o", "pipefail", "-c", text]))
                if text.startswith("ssh root@pc1"):
                    self._open_way()
            case "run: dom0":
                self._heard(block, where, self._bed.ssh("sh", "-e", "-c", text))
            case "run: up":
                self._start(text.split())
            case "shows":
                wanted, found = first_words(text), first_words(self.last)
                assert wanted <= found, f"{where}\nbut there was:\n{self.last}"
            case "file: lab.yaml":
                (self.work / "lab.yaml").write_text(text)
            case mark if "id_ed25519.pub" in text and mark.startswith("not run"):
                key = (self._home / ".ssh" / "id_ed25519.pub").read_bytes()
                assert self._bed.ssh("tee", "/tmp/edgewake.pub", stdin=key).returncode == 0  # noqa: S108

    def _here(self, argv: list[str]) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            argv, cwd=self.work, env=self._environ, stdin=subprocess.DEVNULL,
            capture_output=True, timeout=COMMAND_S, check=False,
        )  # fmt: skip

    def _open_way(self) -> None:
        """Log in once for all that follows: under emulation each login takes a second and more."""
        self._way = subprocess.Popen(
            ["ssh", "-N", "-o", "ControlMaster=yes", "root@pc1"], env=self._environ,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def _heard(self, block: Block, where: str, done: subprocess.CompletedProcess[bytes]) -> None:
        self.last = self.said[block.text] = done.stdout.decode()
        assert done.returncode == 0, f"{where}\n{self.last}\n{done.stderr.decode()}"

    def _start(self, argv: list[str]) -> None:
        with (self.work / "up.log").open("ab") as log:
            self._up = subprocess.Popen(
                argv, cwd=self.work, env=self._environ, text=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        assert self._up.stdout is not None
        self.last = self._up.stdout.readline()
        assert self.last, (self.work / "up.log").read_text()

    def stop(self) -> None:
        """End what runs here; guests end with the bed."""
        for process in (self._up, self._way):
            if process is not None:
                process.terminate()
                process.wait(COMMAND_S)
        if self._up is not None and self._up.stdout is not None:
            self._up.stdout.close()

    def output_of(self, words: str) -> str:
        """Return what the first script that has these words printed."""
        return next(output for text, output in self.said.items() if words in text)


def first_words(text: str) -> set[str]:
    """Return the first word of each line, without what is chance: addresses in /24, and times."""
    words = {line.split()[0] for line in text.splitlines() if line.strip()}
    return {re.sub(r"^((?:\d+\.){3})\d+$|^\[\d+\.\d+\]$", r"\1", word) for word in words}


@pytest.fixture
def page_bed() -> Iterator[Bed]:
    """Give a bed of the page's own, which is as bare as a mini-PC after its installation."""
    with own_bed(Wanted(name=f"p{os.getpid()}")) as bed:
        gone = bed.ssh("virsh", "-c", "xen:///system", "net-destroy", BED_NETWORK)
        assert gone.returncode == 0, "a bare machine has none"
        yield bed


@pytest.fixture
def reader(page_bed: Bed, tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(page_bed, tmp_path)
    try:
        yield reader
    finally:
        reader.stop()


@pytest.mark.real
@pytest.mark.timeout(600)
def test_the_page_works_from_its_top_to_its_end(reader: Reader, page_bed: Bed) -> None:
    for block in BLOCKS:
        reader.do(block)
    own = page_bed.state.folder / "host.pub"
    keygen = subprocess.run(["ssh-keygen", "-lf", own], capture_output=True, text=True, check=True)
    assert keygen.stdout.split()[1] in reader.output_of("ssh-keyscan")
    printed = reader.output_of("host add").partition("under hosts:\n\n")[2].partition("\n\n")[0]
    written = yaml.safe_load((reader.work / "lab.yaml").read_text())["hosts"]["pc1"]
    suggested = yaml.safe_load(printed)["pc1"]
    assert suggested["network"] == written["network"]
    assert suggested["uri"] == written["uri"]
    address = IPv4Address(reader.output_of("dig").strip())
    lab = parse_lab((reader.work / "lab.yaml").read_text(), Path("lab.yaml"))
    assert lab.hosts[0].network.first <= address <= lab.hosts[0].network.last
    assert "good morning" in reader.output_of("curl")
    for command in ("edgewake status", "edgewake trace"):
        assert "web" in reader.output_of(command)
    assert "ew-pc-web-0" in reader.output_of("edgewake sleep web")
    assert "ew-pc-web-0" not in page_bed.ssh("xl", "list").stdout.decode()
