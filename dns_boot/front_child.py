"""A further DNS process: drains a UDP socket of the shared port and answers what it has been given.

Started by `dns_boot.front_parent`, which keeps everything else: what is not in our copy of the
packed answers is handed to it, with the address it came from, and it replies itself. Answers given
are reported in batches, and before it is confirmed that a service was forgotten. We end when the
parent closes its side or is gone, and by nothing else that a terminal or a service manager sends.

    python -m dns_boot.front_child UDP CONTROL QUERIES    (inherited descriptors)
"""

import contextlib
import logging
import select
import signal
import socket
import sys
import time

from dns_boot import front_messages as messages
from dns_boot.packed import DROPPED, NO_REPLY, PackedAnswers
from dns_boot.udp import Peer, UdpDoor
from dns_boot.udp_batch import door_of

logger = logging.getLogger(__name__)

REPORT_S = 0.1  # between two reports of what was asked for
LOG_REPORT_S = 1.0  # between two reports of what was answered
OBEYED_AT_ONCE = 64  # words of the parent before the queries have their turn
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the parent decides


class FrontChild:
    """Serves one UDP socket until the parent's side of `control` is closed."""

    def __init__(self, udp: socket.socket, control: socket.socket, queries: socket.socket) -> None:
        setup = messages.read_setup(control.recv(messages.MAX_BYTES))
        cookies, limiter, clients, self._room = setup
        udp.setblocking(False)
        self._asked: dict[str, float] = {}
        self._packed = PackedAnswers(self._asked, cookies=cookies, limiter=limiter, clients=clients)
        self._packed.samples.room = self._room
        self._answered = False  # since the last report for the log
        self._log_due = 0.0
        self._lost = 0  # queries that the parent had no room for
        self._control = control
        self._queries = queries
        self._door = door_of(udp, self._packed, self._hand)
        self._reported = 0.0

    def run(self) -> None:
        """Serve. Raises OSError if the parent is gone in the middle of a word."""
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.register(self._door, select.POLLIN)
        self._control.send(messages.READY)
        going = True
        while going:
            ready = dict(poller.poll(self._timeout_ms()))
            if self._control.fileno() in ready:
                going = self._obey()
            if going and self._door.fileno() in ready:
                self._drain()
            if self._asked and time.monotonic() >= self._reported + REPORT_S:
                self._report()
            if self._has_counted and time.monotonic() >= self._log_due:
                self._report_log()

    @property
    def _has_counted(self) -> bool:
        return bool(self._answered or self._lost)

    def _timeout_ms(self) -> float | None:
        if self._asked:
            return REPORT_S * 1000
        return LOG_REPORT_S * 1000 if self._has_counted else None

    def _drain(self) -> None:
        self._answered = True
        try:
            self._door.drain()
        except Exception:
            # A front door: whatever a datagram brought to light, the next one is served.
            logger.exception("a datagram could not be handled")

    def _hand(self, _door: UdpDoor, packet: bytes, peer: Peer) -> None:
        """Hand a query to the parent; when it has too many waiting, the query is lost."""
        try:
            self._queries.send(messages.pack_query(packet, peer), socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._lost += 1

    def _obey(self) -> bool:
        """Do what the parent has said; False when it has nothing more to say."""
        for message in messages.received(self._control, OBEYED_AT_ONCE):
            if not message:
                return False
            if message[:1] == messages.KEEP:
                self._packed.put(*messages.read_entry(message))
                continue
            number, services, clients = messages.read_forget(message)
            if services is None:
                self._packed.clients = clients
            self._packed.forget(number, services)
            self._report()
            self._control.send(messages.pack_forgotten(number))
        return True

    def _report(self) -> None:
        for report in messages.pack_asked(self._asked):
            self._control.send(report)
        self._asked.clear()
        self._reported = time.monotonic()

    def _report_log(self) -> None:
        """Tell what was answered, and some of it; samples are left out if the parent is behind."""
        counts = self._packed.counted()
        samples = self._packed.samples.take(self._room)
        answers = counts.total()
        if self._lost:
            counts[0, NO_REPLY, DROPPED, ""] = self._lost
        self._answered, self._lost = False, 0
        self._log_due = time.monotonic() + LOG_REPORT_S
        for report in messages.pack_counted(counts):
            self._control.send(report)
        with contextlib.suppress(BlockingIOError):
            for report in messages.pack_noted(samples, answers):
                self._control.send(report, socket.MSG_DONTWAIT)


def main(arguments: list[str]) -> None:
    """Serve the sockets with these descriptors."""
    logging.basicConfig(format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(fileno=int(fd))) for fd in arguments]
        with contextlib.suppress(ConnectionError):  # the parent is gone
            FrontChild(*sockets).run()


if __name__ == "__main__":
    main(sys.argv[1:])
