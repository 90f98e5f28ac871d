"""Tutorial pages as tests: their fenced blocks, and a reader who does here what they say.

Each fenced block has a mark, an HTML comment in the line before it:

    run: here           a script for bash, in the checkout
    run: up             a command that goes on running until the end of the page
    shows               what the last script printed; see `unseen`
    file: NAME          a file; what becomes of it is the page's own test's matter
    not run: WHY        cannot be run here

A page that runs elsewhere as well has more marks (tests/test_tutorial.py).
"""

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMAND_S = 120
_BLOCK = re.compile(r"(?:^<!-- (?P<mark>[^\n]+) -->\n)?^```\w+\n(?P<text>.*?)^```$", re.M | re.S)
_MARK = re.compile(r"run: (?:here|dom0|up)|shows|adds to lab\.yaml|(?:file|not run): \S.*")
_CHANCE = re.compile(r"\\\.\\\.\\\.|[KMG](?=Bytes|bits)|(?<![a-z])\d(?:\d|\\\.(?=\d))*|\\ |\s+")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page, and what its mark says."""

    mark: str
    text: str
    line: int


def blocks_of(page: str) -> tuple[Block, ...]:
    return tuple(
        Block(found["mark"] or "", found["text"], page.count("\n", 0, found.start("text")))
        for found in _BLOCK.finditer(page)
    )


def unmarked(page: str) -> list[int]:
    """Return the lines of blocks whose mark is missing or says nothing that we know."""
    return [block.line for block in blocks_of(page) if not _MARK.fullmatch(block.mark)]


def unseen(shown: str, said: str) -> list[str]:
    """Return the lines that a page shows and nobody said.

    Numbers that stand alone are chance, as are iperf3's units and the widths of columns; `...` is
    anything.
    """
    lines = [line.strip() for line in said.splitlines()]
    return [
        line
        for line in map(str.strip, shown.splitlines())
        if line and not any(_pattern(line).fullmatch(each) for each in lines)
    ]


def _pattern(line: str) -> re.Pattern[str]:
    def chance(found: re.Match[str]) -> str:
        if found[0] == r"\.\.\.":
            return ".*"
        if found[0] in "KMG":
            return "[KMG]?"
        return r"\s*" if not found[0].strip("\\ ") else r"[\d.,]+"

    return re.compile(_CHANCE.sub(chance, re.escape(line)))


class Reader:
    """Somebody who does what a page says, with a state directory of their own in `folder`."""

    def __init__(self, folder: Path, page: Path) -> None:
        self._page = page
        self._folder = folder
        self.said: list[tuple[str, str]] = []  # each script, and what it printed
        self._last = ""
        self._up: list[subprocess.Popen[str]] = []
        programs = folder / "bin"
        programs.mkdir()
        edgewake = programs / "edgewake"
        edgewake.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m orchestrator "$@"\n')
        edgewake.chmod(0o755)
        self._environ = {
            **os.environ,
            "EDGEWAKE_STATE": str(folder / "state"),
            "PYTHONPATH": str(ROOT),
            "PATH": f"{programs}:{os.environ['PATH']}:/usr/sbin:/sbin",
        }

    def read(self) -> None:
        """Do what the page says, from its top to its end."""
        for block in blocks_of(self._page.read_text()):
            self.do(block)

    def do(self, block: Block) -> None:
        """Do what a block says. Fails with its line and what it printed."""
        where = f"{self._page.name}, line {block.line}:\n{block.text}"
        match block.mark:
            case "run: here":
                self._last = self._run(block.text, where)
                self.said.append((block.text, self._last))
            case "run: up":
                self._start(block.text.split())
            case "shows":
                missing = unseen(block.text, self._last)
                assert not missing, f"{where}\nbut of {missing} there was nothing in\n{self._last}"

    def _run(self, text: str, where: str = "") -> str:
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", text],
            cwd=ROOT, env=self._environ, stdin=subprocess.DEVNULL, text=True,
            capture_output=True, timeout=COMMAND_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{where}\n{done.stdout}\n{done.stderr}\n{self._log()}"
        return done.stdout

    def _start(self, argv: list[str]) -> None:
        with (self._folder / "up.log").open("ab") as log:
            process = subprocess.Popen(
                argv, cwd=ROOT, env=self._environ, text=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        self._up.append(process)
        assert process.stdout is not None
        self._last = process.stdout.readline()
        assert self._last, self._log()

    def _log(self) -> str:
        file = self._folder / "up.log"
        return file.read_text() if file.exists() else ""

    def output_of(self, words: str) -> str:
        """Return what the first script that has these words printed."""
        return next(output for text, output in self.said if words in text)

    def number_in(self, words: str, pattern: str) -> float:
        """Return the number that a pattern's only group finds in what a script printed."""
        output = self.output_of(words)
        found = re.search(pattern, output)
        assert found, f"there is no {pattern!r} in\n{output}"
        return float(found[1])

    def stop(self, *labs: str) -> None:
        """End what runs, and remove the networks of these labs, wherever the page has failed."""
        for process in self._up:
            process.send_signal(signal.SIGINT)  # as Ctrl-C
            process.wait(COMMAND_S)
            if process.stdout is not None:
                process.stdout.close()
        self._up.clear()
        for lab in labs:
            self._run(
                f"if edgewake net show {lab} >/dev/null 2>&1; then edgewake net remove {lab}; fi"
            )
