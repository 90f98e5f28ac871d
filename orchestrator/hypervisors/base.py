"""The seam to hypervisors: what control asks of one edge host, and what it may rely on.

A back end stands for **one** host of the lab (several may share a connection). Everything it does
concerns only guests and networks that carry our mark with our owner and this host's name; whatever
else runs there does not exist for it. `tests/contracts/hypervisor.py` holds every back end to this
page.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from orchestrator.model import Capacity, Guest, GuestNetwork, Mark, RunningGuest


class Depth(StrEnum):
    """How deeply a guest sleeps: what it keeps, and what it costs."""

    PAUSED = "paused"  # no processor time; keeps its memory; a crash of the host ends it
    SAVED = "saved"  # its memory is a file on the host's disk, and free for others


@dataclass(frozen=True, slots=True)
class GuestEnded:
    """A guest of ours is gone; `why` is the hypervisor's own word, such as ``crashed``.

    `dump` is the file on the host that its memory was written to, if it was and if it is known.
    """

    host: str
    instance: str
    why: str
    dump: str = ""


@dataclass(frozen=True, slots=True)
class HostLost:
    """The connection to a host broke; its guests may well be running."""

    host: str
    why: str


@dataclass(frozen=True, slots=True)
class HostBack:
    """The connection to a host was made again; `running()` should be read afresh."""

    host: str


@dataclass(frozen=True, slots=True)
class Sent:
    """How far a migration is: memory that is still to be sent, and all of it (bytes).

    Both are 0 as long as the hypervisor does not say.
    """

    left: int = 0
    total: int = 0


HostEvent = GuestEnded | HostLost | HostBack
Listener = Callable[[HostEvent], None]
Stamp = Callable[[str], None]
Tell = Callable[[Sent], bool]


class KeyWatch(Protocol):
    """A key of a guest in Xenstore, as long as somebody waits for it; `close` it."""

    def fileno(self) -> int:
        """Return the file that is readable when there is news of the key, first of all at once."""
        ...

    def value(self) -> bytes | None:
        """Take the news; return what the key holds as last seen, None if it is not there.

        To be called when the file is readable; it does not wait then. Raises `HypervisorError`
        when no more news will come: `HostUnreachable` if another watch may fare better.
        """
        ...

    def close(self) -> None:
        """Let go of the key. May be called twice."""
        ...


class Hypervisor(Protocol):
    """One host that can run guests. Every method may be called from any thread, and may block.

    Errors are `HostUnreachable` when the host cannot be talked to and `StartFailed` when it can but
    refuses; nothing else. After an error nothing of the attempt is left behind, as far as the host
    can still be reached.
    """

    def set_network(self, wanted: GuestNetwork | None) -> None:
        """Make the network exist as wanted (only if `wanted.create`); None removes ours."""
        ...

    def start(self, guest: Guest, stamp: Stamp) -> None:
        """Start a guest and return when its processor runs; it has not answered anything yet.

        Calls `stamp("asked")` when it is about to hand the guest to the hypervisor,
        `stamp("define")` when the hypervisor has built it and `stamp("start")` when it runs.
        Starting a guest that already runs with the same mark does nothing, and stamps nothing; one
        that sleeps, or that somebody paused, is booted anew. Raises `NameHeld` if what was never
        started to the end has the guest's name, and cannot be removed.
        """
        ...

    def stop(self, instance: str) -> None:
        """End a guest of ours now. Stopping one that is not there does nothing."""
        ...

    def sleep(self, instance: str, depth: Depth) -> None:
        """Put a guest of ours that runs to sleep; `GuestEnded` is not heard of it.

        One that sleeps at this depth already is left alone. Raises `StartFailed` when there is no
        such guest or it cannot be done; the guest then runs on, unless it does not survive being
        saved, which `orchestrator.abilities` finds out.
        """
        ...

    def rouse(self, instance: str) -> None:
        """Let a guest of ours that sleeps run again, also one from before a restart of edgewake.

        One that runs is left alone. Raises `StartFailed` when there is no such guest or it cannot
        be done; what sleeps then sleeps on. `start` and `stop` end what sleeps.
        """
        ...

    def claim(self, instance: str, mark: Mark) -> None:
        """Put another mark on a guest of ours that is in this host's memory, running or asleep.

        `mark` has the same owner, instance and host. `running` shows it from then on, in every
        driver that is opened later, too. Raises `StartFailed` when there is no such guest or it
        cannot be done; the guest has the mark then that it had.
        """
        ...

    def migrate(self, guest: Guest, to: "Hypervisor", tell: Tell) -> None:
        """Send a guest of ours, as it runs, to another host; return when it runs there.

        `guest` is how the other host would boot it: its mark names that host, and the files and
        networks in it are as `start` there takes them. `tell` is called a few times a second; when
        it returns False, the migration is called off, if the hypervisor can. `GuestEnded` is not
        heard of it.

        Raises `StartFailed` or `HostUnreachable`, of whichever of the two hosts it was. The guest
        then runs on where it was, unless it ended meanwhile; where a connection broke, it may be on
        either host, paused on both at worst: `running` of both tells, and `rouse` and `stop` mend.
        """
        ...

    def saved(self) -> tuple[Mark, ...]:
        """Return the marks of our guests that sleep on the host's disk. Slower than `running`."""
        ...

    def running(self) -> tuple[RunningGuest, ...]:
        """Return our guests in this host's memory, paused ones too, with their network counters.

        A guest that was never started to the end (whoever did so is gone) is not among them.
        """
        ...

    def free(self) -> Capacity:
        """Return what the host itself says is free now: memory, and its number of cores."""
        ...

    def memory_bytes(self, instance: str) -> int | None:
        """Return the memory of the host that a guest of ours takes now.

        That of its process, where it is one; on Xen what the guest was given. None if nobody can
        tell, or if it is not there. Slower than `running`, which is why it is not told there.
        """
        ...

    def console(self, instance: str) -> bytes:
        """Return the last 64 KiB of a guest's console, also after its end; empty if unknown."""
        ...

    def watch_key(self, instance: str, key: str) -> KeyWatch:
        """Return a Xenstore key of a guest of ours, such as ``data/ready``, to be watched.

        Raises `StartFailed` where guests have no Xenstore, when that guest is not there, and when
        the host's Xenstore is out of our reach.
        """
        ...

    def watch(self, listener: Listener) -> None:
        """Call `listener` for each event from now on, from a thread of the back end's own."""
        ...

    def close(self) -> None:
        """Let go of the connection. Guests go on running. May be called twice."""
        ...
