"""How often somebody may fail to log in: a delay that doubles, by address and for all together."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from threading import Lock

FREE = 5  # failures of one address before it has to wait
FREE_IN_ALL = 50  # failures of all addresses together
FIRST_DELAY_S = 1.0  # after the first failure too many; doubles with each further one
LONGEST_DELAY_S = 300.0
LONGEST_IN_ALL_S = 5.0  # others' failures may slow a login down, but not shut it out
FORGOTTEN_S = 900.0  # without a failure
MOST_ADDRESSES = 4096
EVERYBODY = "*"


@dataclass(slots=True)
class _Record:
    failures: int
    last: float
    until: float


class Throttle:
    """Counts failed logins. Safe to call from threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._records: dict[str, _Record] = {}  # the one that failed last comes last

    def wait_s(self, address: str) -> float:
        """Return how many seconds an address has to wait before its next attempt; 0: none."""
        now = self._clock()
        with self._lock:
            until = [self._records[each].until for each in _keys(address) if each in self._records]
        return max([0.0, *(each - now for each in until)])

    def failed(self, address: str) -> None:
        """Note a failure."""
        now = self._clock()
        mine, all_of_us = _keys(address)
        with self._lock:
            self._count(mine, now, FREE, LONGEST_DELAY_S)
            self._count(all_of_us, now, FREE_IN_ALL, LONGEST_IN_ALL_S)
            while len(self._records) > MOST_ADDRESSES:
                del self._records[next(iter(self._records))]

    def succeeded(self, address: str) -> None:
        """Forget the failures of an address that has got in."""
        with self._lock:
            self._records.pop(_keys(address)[0], None)

    def _count(self, key: str, now: float, free: int, longest_s: float) -> None:
        old = self._records.pop(key, None)
        failures = 1 if old is None or now - old.last > FORGOTTEN_S else old.failures + 1
        beyond = failures - free
        delay_s = min(longest_s, FIRST_DELAY_S * 2.0 ** min(beyond, 20)) if beyond >= 0 else 0.0
        self._records[key] = _Record(failures, now, now + delay_s)


def _keys(address: str) -> tuple[str, str]:
    """Return who fails with this address: its network for IPv6, and everybody."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address, EVERYBODY
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return str(IPv6Address(int(parsed) >> 64 << 64)), EVERYBODY  # whoever has one has its /64
    return str(parsed), EVERYBODY
