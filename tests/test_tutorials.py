"""The pages of docs/tutorials that need this machine only: their commands are run in order.

Pages show what was printed; what they say of how much it was is checked here.
"""

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.pages import ROOT, Reader, blocks_of, unmarked, unseen

TUTORIALS = ROOT / "docs" / "tutorials"
ELSEWHERE = {"xen-mini-pc.md"}
PAGES = sorted(page for page in TUTORIALS.glob("*.md") if page.name not in ELSEWHERE)
LOSS = r"(\d+(?:\.\d+)?)% packet loss"

MakeReader = Callable[..., Reader]


@pytest.fixture
def reader_of(tmp_path: Path) -> Iterator[MakeReader]:
    """Give readers; in the end nothing runs any more, and the networks of their labs are gone."""
    with ExitStack() as undo:

        def make(page: str, *labs: str) -> Reader:
            reader = Reader(tmp_path, TUTORIALS / page)
            undo.callback(reader.stop, *labs)
            reader.read()
            return reader

        yield make


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_is_marked(page: Path) -> None:
    text = page.read_text()
    diagrams = text.count("\n```text\n") - text.count("<!-- shows -->\n```text\n")
    assert len(unmarked(text)) == diagrams, "only diagrams have no mark"
    assert len(blocks_of(text)) == text.count("\n```") / 2, "a fence that we do not see"


def test_what_is_shown_is_looked_for_line_by_line() -> None:
    shown = "r1  10.5 ms, 1 Mbit/s\n  removed a, ...\n"
    assert unseen(shown, "x\n r1 7 ms,  3.5 Mbit/s\nremoved a, b, c\n") == []
    assert unseen(shown, "r2  10.5 ms, 1 Mbit/s\nremoved a\n") == list(
        map(str.strip, shown.splitlines())
    )


@pytest.mark.real
def test_five_routers(reader_of: MakeReader) -> None:
    reader = reader_of("five-routers.md", "five-routers")
    assert reader.number_in("--down", LOSS) < 5
    assert reader.number_in("--weight", LOSS) < 20


@pytest.mark.real
def test_a_chain(reader_of: MakeReader) -> None:
    reader = reader_of("a-chain.md", "a-chain")
    first, again, staff = (hops(output) for text, output in reader.said if "hops" in text)
    assert first == ["firewall", "cache", "shop"]
    assert again == ["firewall", "cache"]
    assert set(staff) == {"firewall"}, "SYNs that are sent again are seen there again"
    leaves_nothing(reader, "ewch", "a-chain")


def leaves_nothing(reader: Reader, *names: str) -> None:
    """Check that Ctrl-C leaves nothing of that name in the kernel."""
    reader.stop()
    there = "".join(map(command, ("ip rule", "ip -d link", "ip netns")))
    assert not [name for name in names if name in there], there


def hops(output: str) -> list[str]:
    return [line.split()[2] for line in output.splitlines() if " ms  " in line]


def command(line: str) -> str:
    return subprocess.run(line.split(), capture_output=True, text=True, check=True).stdout


@pytest.mark.real
def test_at_the_access_point(reader_of: MakeReader) -> None:
    reader = reader_of("at-the-access-point.md", "access-point")
    near, far = (core_bytes(output) for text, output in reader.said if "iperf3" in text)
    assert near < 20_000, "a speed test at the edge is no matter of the core"
    assert far > 1_000_000
    near_ms = reader.number_in("camera", r"near: 20 of 20 plates read, median (\S+) ms")
    far_ms = reader.number_in("camera", r"far: 20 of 20 plates read, median (\S+) ms")
    assert near_ms + 40 < far_ms, "far away there are two round trips of 40 ms more"
    leaves_nothing(reader, "ewap", "access-point")


def core_bytes(output: str) -> int:
    """Return what `ip -s link` says was sent and received."""
    return sum(int(found) for found in re.findall(r"[RT]X: .*\n +(\d+)", output))


@pytest.mark.real
def test_two_slices(reader_of: MakeReader) -> None:
    reader = reader_of("two-slices.md", "two-slices")
    gold, blue = (
        reader.number_in("for tenant", rf"{who}: .* (\S+) Mbits/sec") for who in ("gold", "blue")
    )
    alone = reader.number_in("| grep receiver", r"(\S+) Mbits/sec")
    assert gold > 0.8 * 24
    assert blue > 0.8 * 12
    assert gold + blue < 1.15 * 40
    assert alone > 1.7 * 12, "what gold leaves is had as well"


@pytest.mark.real
def test_nine_mini_pcs(reader_of: MakeReader) -> None:
    reader = reader_of("nine-mini-pcs.md", "nine-processes")
    assert reader.number_in("sensors.py", r"of (\d+) motes") == 9
    assert reader.number_in("sensors.py", r"all: (\d+) readings") >= 9 * 4, "it woke in time"
    status = reader.output_of("sensors.py").partition("lab nine-processes")[2]
    assert re.search(r"collector +awake +pc[789] ", status), "in the cellar"
    assert "by traffic" in " ".join(reader.output_of("trace").split())
    leaves_nothing(reader, "ewnine", "nine-processes")
