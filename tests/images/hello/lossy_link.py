"""A cable that loses, delays and reorders frames: `python lossy_link.py TAP TAP LOSS SEED`.

It joins two taps of its network namespace. The first is held by a guest, so its frames are taken
and given by a packet socket; the second is held here. LOSS is the share of frames that vanish, in
each direction. Ends at SIGTERM, and says in JSON what it did.
"""

import fcntl
import heapq
import json
import os
import random
import select
import signal
import socket
import struct
import sys
import time

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 2, 0x1000  # linux/if_tun.h
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23
ETH_P_ALL = 3
DELAY_S, LATE_S, LATE_SHARE = 0.001, 0.012, 0.15  # most frames, and those that are overtaken


def open_guests_tap(name: str) -> socket.socket:
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    wire.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    wire.bind((name, 0))
    return wire


def open_own_tap(name: str) -> int:
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return tap


def main(first: str, second: str, loss: float, seed: int) -> None:
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    chance = random.Random(seed)  # noqa: S311 - a seed, so that a failure comes again
    wire, tap = open_guests_tap(first), open_own_tap(second)
    other = {wire.fileno(): tap, tap: wire.fileno()}
    counts = {"passed": 0, "lost": 0, "late": 0}
    waiting: list[tuple[float, int, int, bytes]] = []  # due, number, to, frame
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not ended:
        pause = max(0.0, waiting[0][0] - time.monotonic()) if waiting else 0.1
        for source in select.select(list(other), [], [], pause)[0]:
            frame = os.read(source, 2048)
            if chance.random() < loss:
                counts["lost"] += 1
                continue
            late = chance.random() < LATE_SHARE
            counts["late"] += late
            counts["passed"] += 1
            due = time.monotonic() + (LATE_S * chance.random() if late else DELAY_S)
            heapq.heappush(waiting, (due, counts["passed"], other[source], frame))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, to, frame = heapq.heappop(waiting)
            os.write(to, frame)
    sys.stdout.write(json.dumps(counts) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
