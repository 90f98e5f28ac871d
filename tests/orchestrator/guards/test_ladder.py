"""Several guards of one host as one: what they tell is passed on once, and never lost."""

from ipaddress import IPv4Address

from orchestrator.guards.base import Asked, Guarded
from orchestrator.guards.ladder import JoinedGuards
from orchestrator.guards.memory import MemoryGuard
from orchestrator.model import mac_of

ADDRESS = IPv4Address("10.0.0.9")
WEB = Guarded("web", ADDRESS, mac_of(ADDRESS))


class Busy(MemoryGuard):
    """A guard to which the next packet comes at the moment in which it has refused the last."""

    def refuse(self, address: IPv4Address) -> None:
        super().refuse(address)
        self.send(address)


def test_what_two_guards_hear_is_told_once() -> None:
    asked: list[Asked] = []
    joined = JoinedGuards(asked.append)
    guards = [MemoryGuard(joined.listen), MemoryGuard(joined.listen)]
    for guard in guards:
        joined.add(guard)
    joined.set([WEB])
    for guard in guards:
        guard.send(ADDRESS)
    assert len(asked) == 1
    joined.refuse(ADDRESS)
    guards[1].send(ADDRESS)
    assert len(asked) == 2


def test_a_packet_that_comes_while_the_last_is_refused_wakes() -> None:
    asked: list[Asked] = []
    joined = JoinedGuards(asked.append)
    guard = Busy(joined.listen)
    joined.add(guard)
    joined.set([WEB])
    guard.send(ADDRESS)
    joined.refuse(ADDRESS)
    assert len(asked) == 2
