"""The hosts of the lab: opened, asked every second, lost, and found again.

`Hosts` knows how to talk to hypervisors and when; it decides nothing about instances. What a host
says comes out as `News`, for `orchestrator.control` to act on.
"""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import wait
from dataclasses import dataclass, field
from functools import partial
from logging import getLogger

from orchestrator.background import Background
from orchestrator.boot import HostParts
from orchestrator.errors import HostUnreachable, HypervisorError
from orchestrator.fleet import Fleet
from orchestrator.hypervisors.base import (
    GuestEnded,
    HostBack,
    HostEvent,
    HostLost,
    Hypervisor,
)
from orchestrator.journal import Journal
from orchestrator.model import GuestState, Host, Instance, Mark, RunningGuest

log = getLogger(__name__)
OpenHost = Callable[[Host], HostParts]

POLL_THREADS = 64  # made when needed; a host that hangs holds one
POLL_PATIENCE_S = 5.0  # a host that hangs holds up neither the others nor the next sweep for longer


@dataclass(frozen=True, slots=True)
class News:
    """What a host said: which of our guests run there now.

    `known` is what we remembered of it just *before* it was asked, so that an instance that
    changes meanwhile can be told apart. `paused` sleep in its memory, `saved` on its disk; None
    says that it was not asked for those, which it is when the news is fresh. `fresh` says that we
    had no word from the host before: it was just opened, or was lost. `ended` are guests it
    reported gone, with its word for why. `asked_at` is when it was asked (monotonic).
    """

    host: Host
    known: tuple[Instance, ...]
    running: tuple[RunningGuest, ...]
    paused: tuple[RunningGuest, ...] = ()
    saved: tuple[Mark, ...] | None = None
    fresh: bool = False
    ended: Mapping[str, str] = field(default_factory=dict)
    asked_at: float = 0.0


class Hosts:
    """The connections to all hosts of the lab."""

    def __init__(
        self,
        fleet: Fleet,
        parts: dict[str, HostParts],
        open_host: OpenHost,
        journal: Journal,
        take_in: Callable[[News], None],
        *,
        network_is_right: Callable[[str], None] = lambda _host: None,
    ) -> None:
        self._network_is_right = network_is_right
        self._fleet = fleet
        self._parts = parts
        self._open_host = open_host
        self._journal = journal
        self._take_in = take_in
        self._pool = Background("poll", POLL_THREADS)
        self._polling: set[str] = set()
        self._lock = threading.Lock()
        self._closed = False

    def open(self, hosts: tuple[Host, ...]) -> None:
        """Take hosts into use, all at once; one that cannot be reached is noted, not an error."""
        for opening in [self._pool.call(self._open, host) for host in hosts]:
            opening.result()

    def let_go(self, host: Host) -> None:
        """Remove our network from a host and forget the connection."""
        self._set_network(host, wanted=False)
        self._parts.pop(host.name).hypervisor.close()

    def lose(self, host: str, why: str) -> None:
        """Note that a host cannot be reached."""
        if self._fleet.host_lost(host, why):
            self._journal.record("host-lost", host, why)

    def mend(self, host: str) -> None:
        """Make sure that our network on a host is there: somebody may have removed it.

        A host that is lost gets it when it is back; asking it now would only take time.
        """
        known = self._host(host)
        if known is not None and host in self._parts and host not in self._fleet.lost():
            self._set_network(known, wanted=True)

    def poll(self, only: frozenset[str] = frozenset()) -> None:
        """Ask every host (or `only` these) that is not being asked already.

        Returns after a few seconds at most; a host that has not answered by then counts as lost.
        """
        with self._lock:
            hosts = (only or set(self._parts)) - self._polling
            self._polling.update(hosts)
        asked = {self._pool.call(self._poll_in_turn, host): host for host in hosts}
        done, late = wait(asked, POLL_PATIENCE_S)
        for future in late:
            self.lose(asked[future], f"no answer within {POLL_PATIENCE_S:g} s")
        for future in done:
            if error := future.exception():
                log.error("asking %s failed", asked[future], exc_info=error)

    def close(self, *, remove_networks: bool = False) -> None:
        """Stop asking and let go of all connections; remove our networks if told to."""
        self._closed = True
        self._pool.close()
        for host in self._fleet.lab.hosts:
            if remove_networks and host.name in self._parts:
                self._set_network(host, wanted=False)
        for parts in self._parts.values():
            parts.hypervisor.close()

    def _open(self, host: Host) -> None:
        parts = self._parts[host.name] = self._open_host(host)
        parts.hypervisor.watch(self._on_event)
        self._ask(host.name, fresh=True)

    def _set_network(self, host: Host, *, wanted: bool) -> None:
        try:
            self._parts[host.name].hypervisor.set_network(host.network if wanted else None)
        except HostUnreachable as error:
            self.lose(host.name, error.message)
        except HypervisorError as error:
            if self._fleet.refuse(host.name, error.message if wanted else ""):
                self._journal.record("network-refused", host.name, str(error))
        else:
            self._fleet.refuse(host.name, "")
            if wanted:
                self._network_is_right(host.name)

    def _on_event(self, event: HostEvent) -> None:
        """Take in an event; called on the back end's own thread, so nothing here may block."""
        if self._closed:
            return
        match event:
            case HostLost(host=host, why=why):
                self.lose(host, why)
            case HostBack(host=host):
                self._pool.do(partial(self._ask, fresh=True), host)
            case GuestEnded(host=host, instance=instance, why=why, dump=dump):
                if dump:
                    known = self._fleet.get(instance)
                    subject = known.service if known else instance
                    text = f"{instance} {why}; its memory is in {dump} on {host}"
                    self._journal.record("core-dumped", subject, text)
                self._pool.do(partial(self._ask, ended={instance: why}), host)

    def _poll_in_turn(self, host: str) -> None:
        try:
            self._ask(host)
        finally:
            with self._lock:
                self._polling.discard(host)

    def _ask(
        self, name: str, *, fresh: bool = False, ended: Mapping[str, str] | None = None
    ) -> None:
        """Ask a host what runs and what is free, and pass it on."""
        parts, host = self._parts.get(name), self._host(name)
        if parts is None or host is None:
            return
        known = (*self._fleet.on(name), *self._fleet.coming_to(name))
        asked_at = time.monotonic()
        try:
            guests = parts.hypervisor.running()
            free = parts.hypervisor.free()
        except HypervisorError as error:
            self.lose(name, error.message)
            return
        was_lost = name in self._fleet.lost()
        fresh = fresh or was_lost
        if fresh or self._fleet.refusal(name):
            self._set_network(host, wanted=True)
        self._fleet.host_answered(name, free, [guest.mark.instance for guest in guests])
        if was_lost:
            self._journal.record("host-back", name, "answers again")
        self._take_in(
            News(
                host,
                known,
                # One that somebody else paused answers nobody; it counts as ended.
                running=tuple(each for each in guests if each.state is GuestState.RUNNING),
                paused=tuple(each for each in guests if each.state is GuestState.PAUSED),
                saved=_saved(parts.hypervisor) if fresh else None,
                fresh=fresh,
                ended=ended or {},
                asked_at=asked_at,
            )
        )

    def _host(self, name: str) -> Host | None:
        return next((host for host in self._fleet.lab.hosts if host.name == name), None)


def _saved(hypervisor: Hypervisor) -> tuple[Mark, ...] | None:
    """Return who sleeps on a host's disk; None if its disk cannot be looked at."""
    try:
        return hypervisor.saved()
    except HypervisorError as error:
        log.warning("guests that were saved cannot be looked for: %s", error)
        return None
