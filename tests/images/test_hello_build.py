"""The recipe of the sample unikernel, and what its file promises to the loaders."""

import os
import re
import shutil
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import pytest

from images.build import hello
from images.errors import BuildFailed
from images.facts import Architecture, Entry
from images.inspect import inspect

MOST_BYTES = 40_000
MOST_LINES = 350
MOST_SECONDS = 30  # it takes about one; but other builds may run beside
SOURCES = sorted(Path(str(resources.files("images").joinpath("hello"))).iterdir())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> hello.Built:
    return hello.build(tmp_path_factory.mktemp("built"))


def program_headers(kernel: Path) -> list[tuple[str, str]]:
    """Return type and flags of each program header, as readelf shows them."""
    shown = subprocess.run(
        ["readelf", "-lW", kernel],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LC_ALL": "C"},
    ).stdout
    return re.findall(r"^  (LOAD|NOTE|GNU_STACK) .* ([R ][W ][E ]) 0x", shown, re.MULTILINE)


def test_the_compiler_has_nothing_to_say(built: hello.Built) -> None:
    assert built.rebuilt
    assert built.warnings == ""


def test_what_inspection_sees(built: hello.Built) -> None:
    facts = inspect(built.kernel)
    assert facts.family == "hello"
    assert facts.entries == {Entry.MULTIBOOT, Entry.PVH}
    assert (facts.architecture, facts.bits) == (Architecture.X86, 32)
    assert (facts.unusable, facts.warnings) == ("", ())
    assert facts.file_bytes < MOST_BYTES
    assert facts.loaded_bytes < 2 << 20


def test_multiboot_needs_no_addresses(built: hello.Built) -> None:
    """Flag 16 would make the loader trust offsets that a stripped copy no longer has."""
    data = built.kernel.read_bytes()
    at = data.index((0x1BADB002).to_bytes(4, "little"), 0, 8192)
    magic, flags, checksum = (
        int.from_bytes(data[at + n : at + n + 4], "little") for n in (0, 4, 8)
    )
    assert at % 4 == 0
    assert flags == 3
    assert (magic + flags + checksum) % 2**32 == 0


def test_no_memory_is_both_written_and_run(built: hello.Built) -> None:
    assert program_headers(built.kernel) == [("LOAD", "R E"), ("LOAD", "RW "), ("NOTE", "R  ")]


def test_it_is_not_built_twice(tmp_path: Path) -> None:
    first = hello.build(tmp_path)
    before = first.kernel.stat().st_mtime_ns
    second = hello.build(tmp_path)
    assert (first.rebuilt, second.rebuilt) == (True, False)
    assert second.kernel.stat().st_mtime_ns == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["built-from", "kernel"]


@pytest.mark.parametrize("name", ["kernel", "built-from"])
def test_a_damaged_file_is_built_again(tmp_path: Path, built: hello.Built, name: str) -> None:
    hello.build(tmp_path)
    (tmp_path / name).write_bytes(b"damaged")
    again = hello.build(tmp_path)
    assert again.rebuilt
    assert again.kernel.read_bytes() == built.kernel.read_bytes()


def test_the_same_bytes_from_another_place(
    tmp_path: Path, built: hello.Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the folder nor the environment nor the number of processors shows in the file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CPATH", str(tmp_path))
    monkeypatch.setenv("CFLAGS", "-O3")
    monkeypatch.setattr(hello, "_WORKERS", 3)
    assert hello.build(Path("here")).kernel.read_bytes() == built.kernel.read_bytes()
    assert oct((tmp_path / "here" / "kernel").stat().st_mode & 0o777) == "0o644"


def test_it_builds_from_an_installed_copy(tmp_path: Path, built: hello.Built) -> None:
    """As from a wheel: the package lies somewhere else, without the repository around it."""
    package = Path(str(resources.files("images")))
    shutil.copytree(package, tmp_path / "images", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "images.build.hello", "out"],
        cwd=tmp_path, env={"PYTHONPATH": str(tmp_path), "PATH": os.environ["PATH"]},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("out/kernel: made (")
    assert (tmp_path / "out" / "kernel").read_bytes() == built.kernel.read_bytes()


def test_it_does_not_take_long(tmp_path: Path) -> None:
    start = time.monotonic()
    hello.build(tmp_path)
    assert time.monotonic() - start < MOST_SECONDS


def stand_in_for_gcc(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "gcc").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "gcc").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_gccs_own_words_are_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what was built before is as it was."""
    out, tools = tmp_path / "out", tmp_path / "tools"
    tools.mkdir()
    kernel = hello.build(out).kernel
    before = kernel.read_bytes()
    (out / "built-from").write_text("from other sources")
    stand_in_for_gcc(tools, "echo tcp.c:1: error: what >&2; exit 1", monkeypatch)
    with pytest.raises(BuildFailed, match=r"gcc cannot compile images/hello:\ntcp.c:1: error"):
        hello.build(out)
    assert kernel.read_bytes() == before
    assert sorted(path.name for path in out.iterdir()) == ["built-from", "kernel"]


def test_without_gcc_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildFailed, match="install the Debian packages gcc and binutils"):
        hello.build(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildFailed, match=r"file/out: cannot be written: Not a directory"):
        hello.build(tmp_path / "file" / "out")


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hello.main([]) == hello.main(["--help"]) == 2
    assert "usage: python -m images.build.hello DIRECTORY" in capsys.readouterr().err
    assert hello.main([str(tmp_path)]) == hello.main([str(tmp_path)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{tmp_path}/kernel: made (")
    assert second.startswith(f"{tmp_path}/kernel: up to date (")
    (tmp_path / "kernel").unlink()
    monkeypatch.setenv("PATH", "/nonexistent")
    assert hello.main([str(tmp_path)]) == 1
    assert "gcc is not installed" in capsys.readouterr().err


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_the_sources_can_be_read(source: Path) -> None:
    """Each file is short, says first what it is, and needs no header but ours."""
    text = source.read_text()
    assert text.startswith("/*")
    assert len(text.splitlines()) <= MOST_LINES
    assert "#include <" not in text
    assert "\t" not in text
