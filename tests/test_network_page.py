"""docs/network.md is true: its commands are run in order, on this machine, and print what it shows.

Each fenced block has a mark, an HTML comment in the line before it: ``run: here`` is a script for
bash, in a folder with the examples, and ``shows`` what it prints. Numbers stand for others, an
engine for the one of this kernel, and what a change cost packets for whatever it costs here.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "network.md").read_text()
BLOCK = re.compile(r"^<!-- (run: here|shows) -->\n```\w+\n(.*?)^```$", re.M | re.S)
COMMAND_S = 120
OURS = "network-page"  # what the lab is called while its name may be in use on this machine


def same(text: str) -> list[str]:
    """Return the lines of a text without what differs from one time to another."""
    text = re.sub(r"( meanwhile: ).*", r"\1...", text)
    text = re.sub(r"[0-9]+(\.[0-9]+)? (ms|s)\b", "# ms", text)
    text = re.sub(r"[0-9]+\.[0-9]{3}", "#", text)
    text = re.sub(r"(time )[0-9]+", r"\1#", text)
    text = re.sub(r"\b(user|netem)\b", "ENGINE", text)
    text = re.sub(r"(ENGINE +up) .*", r"\1", text)  # packets until now
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def test_the_page_has_blocks_in_pairs() -> None:
    marks = [mark for mark, _ in BLOCK.findall(PAGE)]
    assert len(marks) >= 8
    assert marks == ["run: here", "shows"] * (len(marks) // 2)


@pytest.mark.real
def test_the_page_is_true(tmp_path: Path) -> None:
    lab = (ROOT / "examples" / "five-routers.yaml").read_text()
    (tmp_path / "five-routers.yaml").write_text(lab.replace("five-routers\n", f"{OURS}\n", 1))
    program = tmp_path / "edgewake"
    program.write_text(
        f'#!/bin/sh\nexec {sys.executable} -m orchestrator --state {tmp_path / "state"} "$@"\n'
    )
    program.chmod(0o755)
    place = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    printed = ""
    try:
        for mark, text in BLOCK.findall(PAGE):
            if mark == "shows":
                assert same(printed) == same(
                    text.replace("network five-routers", f"network {OURS}")
                )
                continue
            done = subprocess.run(
                ["bash", "-e", "-c", text.replace("remove five-routers", f"remove {OURS}")],
                cwd=tmp_path,
                env=place,
                capture_output=True,
                text=True,
                check=False,
                timeout=COMMAND_S,
            )
            assert done.returncode == 0, done.stderr
            printed = done.stdout
    finally:
        subprocess.run([program, "net", "remove", OURS], env=place, check=True, timeout=COMMAND_S)
