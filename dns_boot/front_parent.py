"""The further DNS processes of one port, as seen from the one that knows everything.

For `dns_boot.server`. Each further process (`dns_boot.front_child`) drains a UDP socket of its own;
several share the port (SO_REUSEPORT: the kernel spreads clients over them by address and port). It
keeps a copy of those packed answers that it was asked for. All else comes here and is answered from
here, over the same socket, so that a wake is one flight however many processes there are.
"""

import logging
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, MutableMapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from dns_boot import front_messages as messages
from dns_boot.packed import Counted, Entry, PackedAnswers
from dns_boot.samples import Sample
from dns_boot.sockets import Bell
from dns_boot.udp import UdpDoor

logger = logging.getLogger(__name__)

CONFIRM_S = 1.0  # who has not forgotten by then is ended, so that it says nothing wrong
END_S = 2.0
FRONT_ROOM = 100  # samples that a process may note between two of its reports
TAKEN_AT_ONCE = 64  # messages of one socket before the others have their turn
YOUNG_S = 5.0  # who ends within this time of its start is not started anew at once ...
REST_S = 1.0  # ... but after this time

_ROOT = Path(__file__).parents[1]


class Collector(Protocol):
    """Takes what further processes answered; `dns_boot.log.DnsLog` is one."""

    @property
    def room(self) -> int:
        """0 if no samples are wanted."""
        ...

    def count(self, counts: Counter[Counted]) -> None:
        """Add what was counted."""
        ...

    def take(self, samples: Sequence[Sample], process: int, answers: int) -> None:
        """Keep samples of so many answers of a process."""
        ...


class _Front:
    """One further process, and our ends of its sockets."""

    def __init__(self, udp: socket.socket) -> None:
        self.control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.queries, queries = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.setblocking(False)
        self.queries.setblocking(False)
        self.given: set[str] = set()
        self.confirmed = 0
        self.started = time.monotonic()
        self.gone = False
        descriptors = (udp.fileno(), control.fileno(), queries.fileno())
        # Found where we were found, whatever the working directory is.
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        with control, queries:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "dns_boot.front_child", *map(str, descriptors)],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": path},
            )

    def give(self, form: int, key: bytes, entry: Entry) -> None:
        """Give it an entry to keep; if it is behind with reading, another time."""
        try:
            self.control.send(messages.pack_entry(form, key, entry))
        except OSError:
            return
        self.given.add(entry.service)

    def tell(self, message: bytes) -> None:
        """Tell it how to serve, or to forget; who cannot be told will not confirm."""
        try:
            self.control.send(message)
        except OSError as error:
            logger.warning("DNS process %d does not listen: %s", self.process.pid, error)

    def close(self) -> None:
        """Have it end, now if it does not in time, and let go of its sockets."""
        self.control.close()
        self.queries.close()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()


class _Place:
    """A UDP socket of the port, and who serves it: a further process, or we while there is none."""

    def __init__(self, door: UdpDoor, udp: socket.socket) -> None:
        self.door = door
        self.udp = udp
        self.front: _Front | None = None
        self.due = 0.0  # when a process is to be started


class FrontProcesses:
    """Keeps one further process per socket running. The `copies` of the packed answers.

    `make_door` makes our own door to a socket: for the replies to what its process hands on, and to
    serve it while it has none. `log` gets what the processes answered.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        packed: PackedAnswers,
        asked: MutableMapping[str, float],
        make_door: Callable[[socket.socket], UdpDoor],
        log: Collector,
    ) -> None:
        self._packed = packed
        self._log = log
        self._asked = asked
        self._family = sockets[0].family
        self._places = [_Place(make_door(udp), udp) for udp in sockets]
        self._fronts: tuple[_Front, ...] = ()
        self._number = 0
        self._changed = threading.Condition()
        self._bell = Bell()
        self._poller = select.poll()
        self._called: dict[int, Callable[[], None]] = {}
        self._thread = threading.Thread(target=self._run, name="dns-fronts", daemon=True)

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of those that run."""
        return tuple(front.process.pid for front in self._fronts)

    def start(self) -> None:
        """Start the processes; until each is ready, its socket is served by us."""
        self._poller.register(self._bell, select.POLLIN)
        self._packed.copies = self
        for place in self._places:
            self._watch(place.door.fileno(), place.door.drain)
        self._thread.start()

    def stop(self) -> None:
        """End the processes."""
        self._bell.ring()
        self._thread.join()
        for front in self._fronts:
            front.close()
            front.gone = True
        self._packed.copies = None
        self._fronts = ()
        self._bell.close()

    # --- forgetting ---------------------------------------------------------------------------

    def forget(self, services: Collection[str] | None) -> Callable[[], None]:
        """Tell all to forget; what is returned waits until they have, or are no more."""
        with self._changed:
            self._number += 1
            number, fronts = self._number, self._fronts
        message = messages.pack_forget(number, services, self._packed.clients)
        for front in fronts:
            front.tell(message)
        return partial(self._await, number, fronts)

    def _await(self, number: int, fronts: Sequence[_Front]) -> None:
        def missing() -> list[_Front]:
            return [front for front in fronts if front.confirmed < number and not front.gone]

        with self._changed:
            self._changed.wait_for(lambda: not missing(), CONFIRM_S)
            late = missing()
        for front in late:
            logger.warning(
                "DNS process %d did not confirm within %g s that it forgot answers: it is ended",
                front.process.pid,
                CONFIRM_S,
            )
            front.kill()
            self._presume(front)

    def _presume(self, front: _Front) -> None:
        """Take it that a process that ended unheard gave every answer it had until its end."""
        now = time.monotonic()
        for service in tuple(front.given):
            self._asked[service] = now

    # --- our thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._bell.rung:
            self._start_due()
            for descriptor, _ in self._poller.poll(self._timeout_ms()):
                try:
                    self._called.get(descriptor, _nothing)()
                except Exception:
                    # A front door: one message must not end the service of all others.
                    logger.exception("a DNS process could not be served")

    def _timeout_ms(self) -> float | None:
        due = [place.due for place in self._places if place.front is None]
        return max(0.0, min(due) - time.monotonic()) * 1000 + 1 if due else None

    def _start_due(self) -> None:
        for place in self._places:
            if place.front is None and time.monotonic() >= place.due:
                self._start(place)

    def _start(self, place: _Place) -> None:
        try:
            front = _Front(place.udp)
        except OSError as error:
            logger.error("a DNS process cannot be started: %s", error)  # noqa: TRY400 - no defect
            place.due = time.monotonic() + REST_S
            return
        place.front = front
        packed = self._packed
        with self._changed:  # who sets other clients tells those that are among us by then
            about = packed.cookies, packed.limiter, packed.clients
            front.tell(messages.pack_setup(*about, FRONT_ROOM if self._log.room else 0))
            self._fronts = (*self._fronts, front)
        self._watch(front.control.fileno(), partial(self._hear, place, front))
        self._watch(front.queries.fileno(), partial(self._take, place.door, front))

    def _watch(self, descriptor: int, call: Callable[[], None]) -> None:
        self._called[descriptor] = call
        self._poller.register(descriptor, select.POLLIN)

    def _unwatch(self, descriptor: int) -> None:
        if self._called.pop(descriptor, None) is not None:
            self._poller.unregister(descriptor)

    def _take(self, door: UdpDoor, front: _Front) -> None:
        """Answer what a process does not know, and give it the answer if there is one by now."""
        for message in messages.received(front.queries, TAKEN_AT_ONCE):
            if not message:
                self._unwatch(front.queries.fileno())
                return
            packet, peer = messages.read_query(message, self._family, with_info=door.with_info)
            door.serve(packet, peer)
            self._packed.share(packet, door.sender(peer)[0], front.give)

    def _hear(self, place: _Place, front: _Front) -> None:
        """Take what a process reports."""
        for message in messages.received(front.control, TAKEN_AT_ONCE):
            if not message:
                self._bury(place, front)
                return
            self._note(place, message[:1], message)

    def _note(self, place: _Place, kind: bytes, message: bytes) -> None:
        if kind == messages.ASKED:
            for service, at in messages.read_asked(message):
                self._asked[service] = max(at, self._asked.get(service, 0.0))
        elif kind == messages.FORGOTTEN:
            number = messages.read_forgotten(message)
            with self._changed:
                if place.front is not None:
                    place.front.confirmed = number
                self._changed.notify_all()
        elif kind == messages.COUNTED:
            self._log.count(messages.read_counted(message))
        elif kind == messages.NOTED:
            process = place.front.process.pid if place.front is not None else 0
            samples, answers = messages.read_noted(message)
            self._log.take(samples, process, answers)
        elif kind == messages.READY:
            self._unwatch(place.door.fileno())

    def _bury(self, place: _Place, front: _Front) -> None:
        """Serve the socket of a process that ended ourselves, and start another one."""
        self._unwatch(front.control.fileno())
        self._unwatch(front.queries.fileno())
        self._watch(place.door.fileno(), place.door.drain)
        front.close()
        self._presume(front)
        logger.warning(
            "DNS process %d ended (exit status %s); another one is started",
            front.process.pid,
            front.process.returncode,
        )
        place.front = None
        young = time.monotonic() < front.started + YOUNG_S
        place.due = time.monotonic() + (REST_S if young else 0.0)
        with self._changed:
            front.gone = True
            self._fronts = tuple(other for other in self._fronts if other is not front)
            self._changed.notify_all()


def _nothing() -> None:
    """Do nothing: what was called for was closed by an earlier call of the same round."""
