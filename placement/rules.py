"""The rules a plan obeys: a closed set of small values, after the catalogue of BtrPlace.

A rule with `must` holds in every plan. Any other is a wish: breaking it by one unit of its amount
counts `weight` in the term `broken`. Each docstring states the rule, then its amount. Hosts that a
rule names may be absent (hosts come and go); demands may not. `domain` is a type of domain: `host`,
`site`, or one that hosts name. Copies of demands that are left out break no rule.

F. Hermenier, J. Lawall, G. Muller, "BtrPlace: a flexible consolidation manager for highly available
applications", IEEE TDSC 10(5), 2013. `MaxSkew` is Kubernetes' topology spread constraint.
"""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    must: bool = True
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Ban(_Wish):
    """The demands run on none of the hosts. Amount: copies that do."""

    kind: ClassVar[str] = "ban"
    demands: frozenset[str]
    hosts: frozenset[str]


@dataclass(frozen=True, slots=True)
class Fence(_Wish):
    """The demands run on these hosts only. Amount: copies outside."""

    kind: ClassVar[str] = "fence"
    demands: frozenset[str]
    hosts: frozenset[str]


@dataclass(frozen=True, slots=True)
class Spread(_Wish):
    """No two copies of all the demands are in one domain. Amount: copies too many, per domain."""

    kind: ClassVar[str] = "spread"
    demands: frozenset[str]
    domain: str = "host"


@dataclass(frozen=True, slots=True)
class Gather(_Wish):
    """All copies of all the demands are in one domain. Amount: copies outside the fullest one."""

    kind: ClassVar[str] = "gather"
    demands: frozenset[str]
    domain: str = "host"


@dataclass(frozen=True, slots=True)
class Among(_Wish):
    """All copies of the demands are inside one of the groups of hosts.

    Amount: copies outside the group that holds most.
    """

    kind: ClassVar[str] = "among"
    demands: frozenset[str]
    groups: tuple[frozenset[str], ...]


@dataclass(frozen=True, slots=True)
class Split(_Wish):
    """Different sets of demands share no domain. Amount: sets in a domain beyond the first, summed.

    With sets of one demand each, on hosts, it says that these demands are apart.
    """

    kind: ClassVar[str] = "split"
    sets: tuple[frozenset[str], ...]
    domain: str = "host"


@dataclass(frozen=True, slots=True)
class SplitAmong(_Wish):
    """Each set of demands is inside one group of hosts, different sets in different groups.

    No two sets share a demand, no two groups a host. Amount: copies outside the groups, for
    the best choice of groups.
    """

    kind: ClassVar[str] = "split-among"
    sets: tuple[frozenset[str], ...]
    groups: tuple[frozenset[str], ...]


@dataclass(frozen=True, slots=True)
class Lonely(_Wish):
    """The demands share hosts among themselves only (dedicated hosts). Amount: hosts shared."""

    kind: ClassVar[str] = "lonely"
    demands: frozenset[str]


@dataclass(frozen=True, slots=True)
class Beside(_Wish):
    """Wherever a copy of `demand` runs, a copy of `of` is in the same domain.

    Amount: copies without one. ROADEF/EURO 2012 calls it dependency.
    """

    kind: ClassVar[str] = "beside"
    demand: str
    of: str
    domain: str = "host"


@dataclass(frozen=True, slots=True)
class Occupy(_Wish):
    """Copies of the demands, taken together, are in at least that many domains.

    Amount: domains missing. ROADEF/EURO 2012 calls it spread.
    """

    kind: ClassVar[str] = "occupy"
    demands: frozenset[str]
    domain: str
    at_least: int


@dataclass(frozen=True, slots=True)
class Root(_Wish):
    """Copies of the demands that run now stay where they are. Amount: copies that leave a host."""

    kind: ClassVar[str] = "root"
    demands: frozenset[str]


@dataclass(frozen=True, slots=True)
class Quarantine(_Wish):
    """Nothing comes to the hosts and nothing leaves them. Amount: copies that do."""

    kind: ClassVar[str] = "quarantine"
    hosts: frozenset[str]


@dataclass(frozen=True, slots=True)
class Preserve(_Wish):
    """Each copy of the demands can have at least `amount` of a resource.

    That is within the host's room, beside what the others need. Amount: units short, summed over
    hosts.
    """

    kind: ClassVar[str] = "preserve"
    demands: frozenset[str]
    resource: str
    amount: float


@dataclass(frozen=True, slots=True)
class Overbook(_Wish):
    """On each of the hosts at most `factor` times the physical capacity is in use.

    That is less than the host's own over-commit allows. Amount: units too many, summed over hosts.
    """

    kind: ClassVar[str] = "overbook"
    hosts: frozenset[str]
    resource: str
    factor: float


@dataclass(frozen=True, slots=True)
class MaxOnline(_Wish):
    """At most `limit` of the hosts run anything. Amount: hosts too many."""

    kind: ClassVar[str] = "max-online"
    hosts: frozenset[str]
    limit: int


@dataclass(frozen=True, slots=True)
class MaxSkew(_Wish):
    """For each of the demands, copies in any two domains differ by at most `skew`.

    All domains of the type that hosts form count. Amount: copies too many between fullest and
    emptiest.
    """

    kind: ClassVar[str] = "max-skew"
    demands: frozenset[str]
    domain: str
    skew: int = 1


@dataclass(frozen=True, slots=True)
class Survive(_Wish):
    """Each of the demands keeps `keep` copies after the loss of any one domain of the type.

    Amount: copies short after the worst loss, summed over demands.
    """

    kind: ClassVar[str] = "survive"
    demands: frozenset[str]
    domain: str = "site"
    keep: int = 1


@dataclass(frozen=True, slots=True)
class ServeAfterFailure(_Wish):
    """All requests to each of the demands can be served after the loss of any one site.

    By copies within `within_ms` (None: wherever there is a path), each `copy_rps` at most.
    Amount: requests per second unserved after the worst loss, summed over demands.
    """

    kind: ClassVar[str] = "serve-after-failure"
    demands: frozenset[str]
    within_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Percentile(_Wish):
    """For each of the demands, at least `share` of its requests are served in time.

    In time is within `within_ms`, `share` is 0 to 1. Amount: requests per second short,
    summed over demands.
    """

    kind: ClassVar[str] = "percentile"
    demands: frozenset[str]
    share: float
    within_ms: float


@dataclass(frozen=True, slots=True)
class MigrationBudget(_Wish):
    """At most `limit` copies move (see the term `migrations`; here each counts 1).

    Amount: copies too many.
    """

    kind: ClassVar[str] = "migration-budget"
    limit: int


Rule = (
    Ban
    | Fence
    | Spread
    | Gather
    | Among
    | Split
    | SplitAmong
    | Lonely
    | Beside
    | Occupy
    | Root
    | Quarantine
    | Preserve
    | Overbook
    | MaxOnline
    | MaxSkew
    | Survive
    | ServeAfterFailure
    | Percentile
    | MigrationBudget
)


def demands_of(rule: Rule) -> frozenset[str]:
    """Return the demands that a rule names."""
    match rule:
        case Beside(demand=demand, of=of):
            return frozenset({demand, of})
        case Split(sets=sets) | SplitAmong(sets=sets):
            return frozenset().union(*sets)
        case Quarantine() | Overbook() | MaxOnline() | MigrationBudget():
            return frozenset()
        case _:
            return rule.demands


def told(rule: Rule) -> str:
    """Return a rule in a few words, such as ``spread of db, web``."""
    names = ", ".join(sorted(demands_of(rule)))
    if not names and isinstance(rule, Quarantine | Overbook | MaxOnline):
        names = ", ".join(sorted(rule.hosts))
    return f"{rule.kind} of {names}" if names else rule.kind
