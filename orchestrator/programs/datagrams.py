"""Sends, receives and echoes datagrams, to see what a network does to them.

    datagrams send ADDRESS PORT PER_SECOND SIZE COUNT    COUNT 0: without end
    datagrams receive PORT EVERY_S                       what came of each sender, as JSON lines
    datagrams echo PORT                                  UDP and TCP, back to where it came from

Each datagram has a number and the time when it was sent. Latency is one way, so between machines it
is only as good as their clocks agree. Reordered is what comes after a higher number (RFC 4737,
section 3); lost, what has not come although a higher number has (RFC 7680 with a waiting time that
ends with the report). Percentiles are at most 1 % off.
"""

import json
import math
import os
import secrets
import selectors
import signal
import socket
import struct
import sys
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

HEADER = struct.Struct("!4sIQQ")  # magic, which run of a sender, number, nanoseconds since 1970
MAGIC = b"EWD1"
LARGEST = 65507  # bytes of a UDP datagram over IPv4
MOST_FLOWS = 64  # senders that are remembered
WINDOW = 65536  # numbers below the highest among which a copy is known to be one
GROWTH = math.log(1.01)
REPORT_S = 1.0


class Latencies:
    """Counts latencies (seconds) in buckets that are 1 % wide."""

    def __init__(self) -> None:
        self.count = 0
        self.least, self.most = math.inf, -math.inf
        self._buckets: dict[int, int] = {}

    def add(self, latency: float) -> None:
        """Count one; clocks that disagree can make it negative, which counts as nothing."""
        self.count += 1
        self.least, self.most = min(self.least, latency), max(self.most, latency)
        bucket = math.floor(math.log(max(latency, 1e-9)) / GROWTH)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def percentile(self, share: float) -> float:
        """Return the least latency that this share is not above, from the middle of its bucket."""
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= share * self.count:
                return min(max(math.exp((bucket + 0.5) * GROWTH), self.least), self.most)
        return self.most

    def report(self) -> dict[str, float]:
        """Return milliseconds by what they are."""
        if not self.count:
            return {}
        shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
        found = {name: self.percentile(share) for name, share in shares.items()}
        whole = {"min": self.least, **found, "max": self.most}
        return {name: round(seconds * 1000, 4) for name, seconds in whole.items()}


class Flow:
    """What has come of one run of a sender."""

    def __init__(self) -> None:
        self.received = self.duplicates = self.reordered = 0
        self.latencies = Latencies()
        self._highest = -1
        self._seen = 0  # a bit for each number below the highest, the highest in bit 0

    def add(self, number: int, latency: float) -> None:
        """Count a datagram; one too far below the highest is taken for one that comes late."""
        ahead = number - self._highest
        if ahead > 0:
            self._seen = ((self._seen << ahead) | 1) & ((1 << WINDOW) - 1) if ahead < WINDOW else 1
            self._highest = number
        elif -ahead < WINDOW and self._seen >> -ahead & 1:
            self.duplicates += 1
            return
        else:
            self._seen |= 1 << min(-ahead, WINDOW)
            self.reordered += 1
        self.received += 1
        self.latencies.add(latency)

    def report(self) -> dict[str, Any]:
        """Return everything since the flow began."""
        return {
            "received": self.received,
            "lost": self._highest + 1 - self.received,
            "reordered": self.reordered,
            "duplicates": self.duplicates,
            "latency_ms": self.latencies.report(),
        }


class Flows:
    """The flows that are remembered; those that have been quiet for longest are forgotten."""

    def __init__(self) -> None:
        self._flows: OrderedDict[tuple[str, int], Flow] = OrderedDict()
        self._news: set[tuple[str, int]] = set()

    def add(self, data: bytes, sender: str, now_ns: int) -> None:
        """Count a datagram, if it is one of ours."""
        if len(data) < HEADER.size:
            return
        magic, run, number, sent_ns = HEADER.unpack_from(data)
        if magic != MAGIC:
            return
        key = sender, run
        flow = self._flows.setdefault(key, Flow())
        self._flows.move_to_end(key)
        if len(self._flows) > MOST_FLOWS:
            self._news.discard(self._flows.popitem(last=False)[0])
        flow.add(number, (now_ns - sent_ns) / 1e9)
        self._news.add(key)

    def reports(self) -> Iterator[dict[str, Any]]:
        """Yield a report of each flow that has changed since the last call."""
        for sender, run in sorted(self._news):
            yield {"from": sender, "run": f"{run:08x}", **self._flows[sender, run].report()}
        self._news.clear()


def send(address: str, port: int, per_second: float, size: int, count: int) -> None:
    """Send datagrams at an even pace; one that is late is sent at once."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    run, sent, errors = secrets.randbits(32), 0, 0
    padding = bytes(max(0, min(size, LARGEST) - HEADER.size))
    with socket.socket(family, socket.SOCK_DGRAM) as out:
        out.connect((address, port))
        began = told = time.monotonic()
        while not count or sent < count:
            wait = began + sent / per_second - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            try:
                out.send(HEADER.pack(MAGIC, run, sent, time.time_ns()) + padding)
            except OSError:  # nobody listens there, or there is no way: now, perhaps
                errors += 1
            sent += 1
            if time.monotonic() - told >= REPORT_S:
                told = time.monotonic()
                say({"run": f"{run:08x}", "sent": sent, "errors": errors})
    say({"run": f"{run:08x}", "sent": sent, "errors": errors})


def receive(port: int, every_s: float) -> None:
    """Receive until we are ended; report what is new every so often, and at the end."""
    flows = Flows()
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: ended.append(number))
    with _listening(socket.SOCK_DGRAM, port) as into:
        into.settimeout(min(every_s, 0.2))
        told = time.monotonic()
        while not ended:
            with suppress(TimeoutError):
                data, sender = into.recvfrom(LARGEST)
                flows.add(data, _plain(sender[0]), time.time_ns())
            if time.monotonic() - told >= every_s:
                told = time.monotonic()
                for report in flows.reports():
                    say(report)
    for report in flows.reports():
        say(report)


def echo(port: int) -> None:
    """Send everything back, until we are ended."""
    selector = selectors.DefaultSelector()
    datagrams, stream = _listening(socket.SOCK_DGRAM, port), _listening(socket.SOCK_STREAM, port)
    stream.listen()
    for each in (datagrams, stream):
        selector.register(each, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            ready = key.fileobj
            with suppress(OSError):
                if ready is datagrams:
                    datagrams.sendto(*datagrams.recvfrom(LARGEST))
                elif ready is stream:
                    caller, _ = stream.accept()
                    caller.settimeout(1.0)  # one that does not read holds up the others for so long
                    selector.register(caller, selectors.EVENT_READ)
                elif isinstance(ready, socket.socket) and not _echoed(ready):
                    selector.unregister(ready)
                    ready.close()


def _echoed(caller: socket.socket) -> bool:
    try:
        data = caller.recv(LARGEST)
        caller.sendall(data)
    except OSError:
        return False
    return bool(data)


def _listening(kind: socket.SocketKind, port: int) -> socket.socket:
    """Return a socket for both families, or for IPv4 where there is no IPv6."""
    six = os.path.exists("/proc/net/if_inet6")  # noqa: PTH110 - pathlib takes long to import
    made = socket.socket(socket.AF_INET6 if six else socket.AF_INET, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if six:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.bind(("", port))
    return made


def _plain(address: str) -> str:
    return address.removeprefix("::ffff:") if "." in address else address


def say(report: dict[str, Any]) -> None:
    """Print a line of JSON now."""
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()


def main(verb: str, *arguments: str) -> None:
    """Do what the arguments say."""
    if verb == "send":
        address, port, per_second, size, count = arguments
        send(address, int(port), float(per_second), int(size), int(count))
    elif verb == "receive":
        receive(int(arguments[0]), float(arguments[1]))
    else:
        echo(int(arguments[0]))


if __name__ == "__main__":
    main(*sys.argv[1:])
