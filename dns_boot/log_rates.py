"""Counts of queries over the last seconds and minutes, and how long those took that waited.

For `dns_boot.log`, which adds what was counted since it last did. Seconds are kept for the short
windows, and tens of seconds for the long one, so memory goes with what was asked and not with time.
"""

from collections import Counter, deque
from collections.abc import Mapping

from dns_boot.packed import Counted
from dns_boot.query_text import TYPES, rcode_word
from orchestrator.percentile import percentile
from orchestrator.queries import WINDOWS_S, QueryRates

COARSE_S = 10  # what the seconds of the long window are counted together in
FINE_MOST_S = 60  # windows up to here are counted second by second
MOST_HELD = 5000
NO_WORD = "none"  # for the rcode of a query without a reply
SHARES = (0.5, 0.95, 0.99)  # the percentiles of `QueryRates.held_s`

Keyed = tuple[str, str]  # by what (type, rcode, outcome or service), and which of them


class Rates:
    """Counts queries over time. Not for several threads at once."""

    def __init__(self, now: float) -> None:
        self._began = now
        self._fine: deque[tuple[int, Counter[Keyed]]] = deque()  # by second
        self._coarse: deque[tuple[int, Counter[Keyed]]] = deque()
        self._held: deque[tuple[float, float]] = deque(maxlen=MOST_HELD)

    def add(self, now: float, counts: Mapping[Counted, int]) -> None:
        """Count queries that were answered a moment before a monotonic time."""
        for buckets, unit_s, most_s in (
            (self._fine, 1, FINE_MOST_S),
            (self._coarse, COARSE_S, WINDOWS_S[-1]),
        ):
            number = int(now // unit_s)
            while buckets and buckets[0][0] < number - most_s // unit_s:
                buckets.popleft()
            if not counts:
                continue
            if not buckets or buckets[-1][0] != number:
                buckets.append((number, Counter()))
            for key, count in counts.items():
                _count(buckets[-1][1], key, count)

    def held(self, now: float, took_s: float) -> None:
        """Count a query that waited for a wake until a monotonic time."""
        self._held.append((now, took_s))

    def over(self, now: float, window_s: int) -> QueryRates:
        """Return the rates over the last seconds; since the start, where that is less."""
        fine = window_s <= FINE_MOST_S
        buckets, unit_s = (self._fine, 1) if fine else (self._coarse, COARSE_S)
        first = int(now // unit_s) - window_s // unit_s
        total: Counter[Keyed] = Counter()
        for number, counts in buckets:
            if number > first:
                total.update(counts)
        # The current bucket is not over: the window is as long as what it covers.
        covered_s = min(now - (first + 1) * unit_s, max(1.0, now - self._began))
        rates = {key: count / covered_s for key, count in total.items()}

        def by(kind: str) -> dict[str, float]:
            found = {key[1]: rate for key, rate in rates.items() if key[0] == kind}
            return dict(sorted(found.items(), key=lambda item: -item[1]))

        waited = sorted(took for at, took in self._held if at > now - window_s)
        return QueryRates(
            window_s=window_s,
            total=rates.get(("", ""), 0.0),
            types=by("type"),
            rcodes=by("rcode"),
            outcomes=by("outcome"),
            services=by("service"),
            held=len(waited),
            held_s=tuple(percentile(waited, share) for share in SHARES if waited),
        )


def _count(counter: Counter[Keyed], key: Counted, count: int) -> None:
    qtype, rcode, outcome, service = key
    counter["", ""] += count
    counter["type", TYPES[qtype]] += count
    counter["rcode", rcode_word(rcode) or NO_WORD] += count
    counter["outcome", outcome] += count
    if service:
        counter["service", service] += count
