"""Hello over a bad cable: every byte comes, although the capture shows that frames did not."""

import json
import random
import signal
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.images.hello.conftest import ADDRESS, HOST, SETTINGS, TIMEOUT_S, Lan
from tests.images.hello.frames import tcp_in

pytestmark = pytest.mark.real

LOSS, SEED = "0.05", "20261121"
CLIENTS, CONNECTIONS, REQUESTS = 16, 5, 8
NAME = "x" * 900  # on the page, so that an answer takes two segments
PATHS = {"/": NAME.encode(), "/healthz": b"ok\n", "/nothing": b"404 Not Found\n"}


@contextmanager
def capture(tap: str, file: Path) -> Iterator[None]:
    """Have tcpdump write what passes a tap into a file."""
    command = ["tcpdump", "-i", tap, "-U", "-Z", "root", "-s", "0", "-B", "8192", "-w", str(file)]
    with subprocess.Popen([*command, "tcp"], stderr=subprocess.PIPE) as tcpdump:
        assert tcpdump.stderr is not None
        try:
            assert b"listening on" in tcpdump.stderr.readline()
            yield
        finally:
            tcpdump.send_signal(signal.SIGINT)
            said = tcpdump.stderr.read()
    assert b"0 packets dropped by kernel" in said


def captured(file: Path) -> list[bytes]:
    """Return the frames in a pcap file (pcap-savefile(5)), in their order."""
    data, at, frames = file.read_bytes(), 24, []
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at + 8)
        frames.append(data[at + 16 : at + 16 + length])
        at += 16 + length
    return frames


def ask_all(number: int) -> list[bytes]:
    """Open some connections one after another, and send each several requests in pieces."""
    chance = random.Random(number)  # noqa: S311 - a seed, so that a failure comes again
    failures = []
    for _ in range(CONNECTIONS):
        paths = chance.choices(list(PATHS), k=REQUESTS)
        last = [""] * (REQUESTS - 1) + ["Connection: close\r\n"]
        requests = [
            f"GET {path} HTTP/1.1\r\nHost: x\r\n{end}\r\n".encode()
            for path, end in zip(paths, last, strict=True)
        ]
        with socket.create_connection((ADDRESS, 80), 2 * TIMEOUT_S) as peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream = b"".join(requests)
            while stream:
                size = chance.randrange(1, 200)
                peer.sendall(stream[:size])
                stream = stream[size:]
            answer = b"".join(iter(lambda: peer.recv(65536), b""))
        if not is_right(answer, paths):
            failures.append(answer)
    return failures


def is_right(answer: bytes, paths: list[str]) -> bool:
    """Return whether a stream of answers is exactly those to these paths."""
    for path in paths:
        header, _, rest = answer.partition(b"\r\n\r\n")
        length = int(header.partition(b"Content-Length: ")[2].partition(b"\r\n")[0] or -1)
        body, answer = rest[:length], rest[length:]
        if length != len(body) or PATHS[path] not in body or header[:9] != b"HTTP/1.1 ":
            return False
        if path == "/" and not (body.startswith(b"<!DOCTYPE") and body.endswith(b"</html>\n")):
            return False
    return answer == b""


def test_every_byte_comes_although_frames_are_lost_and_overtaken(lan: Lan, tmp_path: Path) -> None:
    lan.tap("guest0")
    lan.tap("tap0", f"{HOST}/24")
    script = Path(__file__).with_name("lossy_link.py")
    link = subprocess.Popen(
        [sys.executable, str(script), "guest0", "tap0", LOSS, SEED], stdout=subprocess.PIPE
    )
    assert link.stdout is not None
    with ExitStack() as stack:
        stack.callback(link.communicate)
        stack.callback(link.kill)
        assert link.stdout.readline() == b"ready\n"
        lan.boot(f"{SETTINGS} name={NAME}", tap="guest0").says(f"listening on {ADDRESS}")
        with (
            capture("guest0", tmp_path / "guest"),
            capture("tap0", tmp_path / "host"),
            ThreadPoolExecutor(CLIENTS) as clients,
        ):
            failures = [answer for part in clients.map(ask_all, range(CLIENTS)) for answer in part]
        link.send_signal(signal.SIGTERM)
        counts = json.loads(link.stdout.read())
    assert failures == []
    at_guest, at_host = captured(tmp_path / "guest"), captured(tmp_path / "host")
    assert counts["lost"] > 50
    assert counts["late"] > 100
    assert lost(at_guest, at_host, ADDRESS) > 10
    assert lost(at_host, at_guest, HOST) > 10
    assert resent(at_guest, ADDRESS) > 10
    assert resent(at_host, HOST) > 5
    assert is_reordered(at_guest, at_host, ADDRESS)
    assert is_reordered(at_host, at_guest, HOST)


def sent_by(frames: list[bytes], address: str) -> list[bytes]:
    return [frame for frame in frames if (found := tcp_in(frame)) and found[0] == address]


def lost(sent: list[bytes], arrived: list[bytes], by: str) -> int:
    """Count the frames that were seen where they came from, and not where they went."""
    return (Counter(sent_by(sent, by)) - Counter(sent_by(arrived, by))).total()


def resent(frames: list[bytes], by: str) -> int:
    """Count the segments that occupy numbers which were sent before."""
    copies: Counter[tuple[int, int, int, bytes]] = Counter()
    for frame in sent_by(frames, by):
        found = tcp_in(frame)
        if found and found[2].data:
            copies[found[2].source, found[2].to, found[2].seq, found[2].data[:20]] += 1
    return sum(number - 1 for number in copies.values())


def is_reordered(sent: list[bytes], arrived: list[bytes], by: str) -> bool:
    order = {frame: number for number, frame in enumerate(sent_by(sent, by))}
    numbers = [order[frame] for frame in sent_by(arrived, by) if frame in order]
    return numbers != sorted(numbers)
