"""How many wakes clients may begin: a scan of all names must not boot the whole zone.

For `orchestrator.activator`, which asks before it begins a wake for a client that it knows the
address of. Joining a wake, and asking for a service that is awake, cost nothing. `TokenBuckets` is
pure: times are monotonic seconds that the caller hands in. An address in the packet is all that is
believed: what a client says of itself (EDNS Client Subnet) can be forged for nothing.
"""

import threading
from collections import Counter
from collections.abc import Hashable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from orchestrator.model import WakeBudget

KEPT_CLIENTS = 16_384  # buckets; about 4 MB, and only those that are not full are kept
STALE_PER_TAKE = 2  # full buckets forgotten with each take: more than one take can add
CLIENT_PREFIX = {4: 32, 6: 64}  # what one client has at least: in IPv6 a whole link (RFC 4291)
TELL_EVERY_S = 60.0  # between two events, however many wakes are refused
NAMED_CLIENTS = 5  # in an event; the others are counted
KEPT_REFUSED = 1024  # clients counted apart until the next event; the rest in one number


class TokenBuckets:
    """A token bucket per key: `rate_s` tokens a second come in, `burst` at most are kept.

    Every call takes O(1) time, and is for one thread at a time. At most `limit` keys are kept:
    beyond that, the one that was used longest ago is forgotten, which fills its bucket. A full
    bucket needs no memory.
    """

    def __init__(self, rate_s: float, burst: float, *, limit: int = KEPT_CLIENTS) -> None:
        self._rate_s = rate_s
        self._burst = float(burst)
        self._limit = limit
        self._buckets: dict[Hashable, tuple[float, float]] = {}  # tokens, at; by last use

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: Hashable, now: float) -> bool:
        """Take a token; False if the key has none."""
        tokens, at = self._buckets.pop(key, (self._burst, now))
        tokens = min(self._burst, tokens + max(0.0, now - at) * self._rate_s)
        taken = tokens >= 1
        self._buckets[key] = (tokens - taken, max(now, at))
        self._forget(now)
        return taken

    def put_back(self, key: Hashable) -> None:
        """Undo a take."""
        if key in self._buckets:
            tokens, at = self._buckets[key]
            self._buckets[key] = (min(self._burst, tokens + 1), at)

    def _forget(self, now: float) -> None:
        """Forget a few buckets that are full by now, and those that there is no room for."""
        for _ in range(STALE_PER_TAKE):
            key = next(iter(self._buckets))
            tokens, at = self._buckets[key]
            if len(self._buckets) <= self._limit and tokens + (now - at) * self._rate_s < (
                self._burst
            ):
                return
            del self._buckets[key]
            if not self._buckets:
                return


def client_of(address: IPv4Address | IPv6Address) -> IPv4Network | IPv6Network:
    """Return the network that counts as one client: an IPv4 address, or the /64 around one."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return ip_network((address, CLIENT_PREFIX[address.version]), strict=False)


class Budgets:
    """The wake budgets of all clients, and who went beyond. Safe to use from many threads."""

    def __init__(self, settings: WakeBudget) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._clients = TokenBuckets(settings.client_rate_s, settings.client_burst)
        self._total = TokenBuckets(settings.total_rate_s, settings.total_burst, limit=1)
        self._reserve = TokenBuckets(settings.total_rate_s / 2, settings.total_burst / 2, limit=1)
        self._refused: Counter[str] = Counter()
        self._told_at = float("-inf")

    def refusal(
        self, address: IPv4Address | IPv6Address, now: float, *, proven: bool = False
    ) -> str:
        """Spend one wake of a client, or say why it may begin none now. Empty: it may.

        Whoever forges addresses can use up what others may: but not what is kept for those whose
        address is `proven`, which is a budget of their own, and half as much again of the total.
        """
        client = client_of(address)
        with self._lock:
            exempt = any(
                client.version == subnet.version and address in subnet
                for subnet in self._settings.exempt
            )
            if not exempt and not self._clients.take((client, proven), now):
                self._count(client)
                return f"{client} began too many wakes"
            if not self._total.take("", now) and not (proven and self._reserve.take("", now)):
                if not exempt:
                    self._clients.put_back((client, proven))
                self._count(client)
                return "too many wakes were begun by all clients together"
        return ""

    def news(self, now: float) -> str:
        """Return who was refused how many wakes since the last news; at most once a minute."""
        with self._lock:
            if not self._refused or now - self._told_at < TELL_EVERY_S:
                return ""
            refused, self._refused, self._told_at = self._refused, Counter(), now
        named = refused.most_common(NAMED_CLIENTS)
        told = [f"{count} of {client}" for client, count in named if client]
        others = refused.total() - sum(count for client, count in named if client)
        told += [f"{others} of others"] if others else []
        return f"{refused.total()} wakes were refused, beyond the budget: {', '.join(told)}"

    def _count(self, client: IPv4Network | IPv6Network) -> None:
        known = str(client)
        room = known in self._refused or len(self._refused) < KEPT_REFUSED
        self._refused[known if room else ""] += 1
