"""The seam to guards: what notices that somebody wants a guest that sleeps, and holds the packet.

Many clients resolve a name once and never again. So the address of a service that sleeps stays
guarded on its host: the first packet to it is told to control, and kept until the guest answers.
A guard stands for the guest network of **one** host; it decides nothing about services.
`tests/contracts/guard.py` holds every back end to this page.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from logging import getLogger
from typing import Protocol

from orchestrator.model import Port

log = getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Guarded:
    """An address that leads nowhere now, and the service that comes when it is asked for.

    `mac` is the card that the guest will have. `ports` are those that may be asked for; none means
    any. `remembers` says that what sleeps there still knows its connections: then any packet is for
    it, and else only one that begins something.
    """

    service: str
    address: IPv4Address
    mac: str
    address6: IPv6Address | None = None
    ports: tuple[Port, ...] = ()
    remembers: bool = False

    @property
    def addresses(self) -> tuple[IPv4Address | IPv6Address, ...]:
        """All its addresses."""
        return (self.address, self.address6) if self.address6 else (self.address,)


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody wants a guarded address: who, in words, and when its packet came (monotonic).

    `source` is the address of whoever wants it, None if nobody knows.
    """

    guarded: Guarded
    client: str
    at: float
    source: IPv4Address | IPv6Address | None = None


Listener = Callable[[Asked], None]


class Guard(Protocol):
    """Guards addresses of one host's guest network. Every method may be called from any thread.

    `how` names the way for people. `device` is the interface by which the host itself reaches a
    guest at a guarded address, to which whoever probes it must bind; empty if it need not.

    The listener is called once for an address, at the first packet that wants it, from a thread of
    the back end's own; it must not block. It is called again for that address only after `refuse`,
    or after the address was taken from the list and guarded anew.
    """

    how: str
    device: str

    def set(self, guarded: Sequence[Guarded]) -> None:
        """Guard exactly these from now on.

        What was held for an address that is not among them is dropped. Raises `CannotGuard`
        if it cannot be done; then it may be done in part, and is to be asked for again.
        """
        ...

    def release(self, address: IPv4Address) -> None:
        """Guard an address no more: its guest answers. What was held goes on to it, in order.

        Never raises; an address that is not guarded is left alone.
        """
        ...

    def refuse(self, address: IPv4Address) -> None:
        """Drop what is held for an address and go on guarding it: nobody will come this time."""
        ...

    def close(self) -> None:
        """Guard nothing, and put back what was changed on the host. May be called twice."""
        ...


OpenGuard = Callable[[Listener], Guard]  # raises `CannotGuard`


def tell(listener: Listener, asked: Iterable[Asked]) -> None:
    """Tell of each, from a guard's own thread: what goes wrong there must not end it."""
    for each in asked:
        try:
            listener(each)
        except Exception:
            log.exception("%s was asked for, and nobody heard", each.guarded.address)
