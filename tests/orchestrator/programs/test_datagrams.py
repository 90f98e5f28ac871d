"""What is counted of datagrams, against what was done to them; and the scripts, over loopback."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from orchestrator.programs import datagrams
from orchestrator.programs.datagrams import HEADER, MAGIC, WINDOW, Flow, Flows, Latencies
from tests.ports import free_port


@pytest.mark.parametrize(
    ("numbers", "received", "lost", "reordered", "duplicates"),
    [
        ([0, 1, 2, 3], 4, 0, 0, 0),
        ([0, 2, 3], 3, 1, 0, 0),
        ([2, 3], 2, 2, 0, 0),
        ([0, 2, 1, 3], 4, 0, 1, 0),
        ([0, 1, 1, 2, 0], 3, 0, 0, 2),
        ([5, 4, 3, 3], 3, 3, 2, 1),
        ([0, WINDOW, 1, 1], 3, WINDOW - 2, 1, 1),
        ([0, 3 * WINDOW], 2, 3 * WINDOW - 1, 0, 0),
    ],
)
def test_loss_reordering_and_copies(
    numbers: list[int], received: int, lost: int, reordered: int, duplicates: int
) -> None:
    flow = Flow()
    for number in numbers:
        flow.add(number, 0.001)
    told = flow.report()
    assert (told["received"], told["lost"]) == (received, lost)
    assert (told["reordered"], told["duplicates"]) == (reordered, duplicates)


def test_percentiles_are_at_most_one_percent_off() -> None:
    values = sorted(Random(1).lognormvariate(-5, 2) for _ in range(2000))  # noqa: S311
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    for share in (0.01, 0.5, 0.9, 0.99, 1.0):
        exact = values[max(0, round(share * len(values)) - 1)]
        assert latencies.percentile(share) == pytest.approx(exact, rel=0.0101)
    assert latencies.report()["min"] == round(values[0] * 1000, 4)
    assert Latencies().report() == {}


def test_what_is_not_ours_is_ignored_and_memory_is_bounded() -> None:
    flows = Flows()
    for junk in (b"", b"x" * 10, b"x" * 100):
        flows.add(junk, "10.0.0.1", 0)
    assert list(flows.reports()) == []
    for run in range(datagrams.MOST_FLOWS + 10):
        flows.add(HEADER.pack(MAGIC, run, 0, 0), "10.0.0.1", 2_000_000)
    reports = list(flows.reports())
    assert len(reports) == datagrams.MOST_FLOWS
    assert reports[0]["run"] == "0000000a"
    assert reports[0]["latency_ms"]["p50"] == pytest.approx(2, rel=0.011)
    assert list(flows.reports()) == [], "nothing is new"


@contextmanager
def script(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Run it as a router's program is run: from standard input, without our packages."""
    source = Path(datagrams.__file__).open()  # noqa: SIM115 - the program's, from here on
    with (
        source,
        subprocess.Popen(
            [sys.executable, "-I", "-S", "-", *arguments],
            stdin=source,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def test_what_is_sent_is_received_and_reported() -> None:
    port = str(free_port())
    with (
        script("receive", port, "0.2") as receiver,
        script("send", "127.0.0.1", port, "100", "64", "0"),
    ):
        assert receiver.stdout is not None
        report = json.loads(receiver.stdout.readline())
        receiver.send_signal(signal.SIGTERM)
        receiver.wait(10)
        assert receiver.returncode == 0, "it ends by itself, with a last report"
    assert report["from"] == "127.0.0.1"
    assert report["received"] > 0
    assert (report["reordered"], report["duplicates"]) == (0, 0)
    assert 0 < report["latency_ms"]["p50"] < 1000


def test_an_echo_comes_back_over_udp_and_tcp() -> None:
    port = free_port()
    with script("echo", str(port)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
        caller.settimeout(0.2)
        deadline = time.monotonic() + 10
        came = b""
        while not came and time.monotonic() < deadline:
            caller.sendto(b"hello", ("127.0.0.1", port))
            try:
                came = caller.recv(100)
            except TimeoutError:
                continue
        assert came == b"hello"
        with socket.create_connection(("127.0.0.1", port), timeout=5) as stream:
            stream.sendall(b"there")
            assert stream.recv(100) == b"there"


def test_a_sender_counts_what_nobody_took() -> None:
    with script("send", "127.0.0.1", str(free_port()), "200", "64", "20") as sender:
        assert sender.stdout is not None
        told = json.loads(sender.stdout.readlines()[-1])
    assert told["sent"] == 20
    assert told["errors"] > 0
