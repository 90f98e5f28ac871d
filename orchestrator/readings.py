"""Everything that Prometheus is told, taken at one moment; `web.metrics` writes it.

`Readings` holds those who count, a `Reading` is what they said. Whoever wires names them.
"""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.control import Orchestrator
from orchestrator.event_counts import EventCounts, EventMetrics
from orchestrator.installation import version
from orchestrator.journal import Journal
from orchestrator.metrics import DnsCounts, Labels, WakeCounts, WakeMetrics, WebhookCounts
from orchestrator.network_monitor import Monitors
from orchestrator.network_monitor import Sample as NetworkSample
from orchestrator.plan_metrics import PlanCounts
from orchestrator.process_usage import ProcessUsage, usage
from orchestrator.views import Status

Counted = Mapping[Labels, int]
NO_DNS = DnsCounts()
NO_EVENTS = EventCounts({}, {})
NO_PLANS = PlanCounts({}, {})
NO_WAKES = WakeCounts({}, {}, {}, {})


@dataclass(frozen=True, slots=True)
class Build:
    """What runs: versions."""

    version: str = field(default_factory=version)
    python: str = field(default_factory=platform.python_version)


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read.

    `answers` are answers of the API by route, method and class of status. `store_errors` and
    `lost_events` count what could not be stored.
    """

    status: Status
    wakes: WakeCounts = NO_WAKES
    dns: DnsCounts = NO_DNS
    networks: Sequence[NetworkSample] = ()
    plans: PlanCounts = NO_PLANS
    events: EventCounts = NO_EVENTS
    answers: Counted = field(default_factory=dict)
    webhooks: WebhookCounts = field(default_factory=WebhookCounts)
    store_errors: int = 0
    lost_events: int = 0
    untold_wakes: int = 0
    process: ProcessUsage = field(default_factory=usage)
    build: Build = field(default_factory=Build)


@dataclass(slots=True)
class Readings:
    """Who is asked. What is left out says nothing."""

    orchestrator: Orchestrator
    wakes: WakeMetrics
    journal: Journal
    monitors: Monitors
    dns: Callable[[], DnsCounts] = DnsCounts
    answers: Callable[[], Counted] = dict
    webhooks: Callable[[], WebhookCounts] = WebhookCounts
    store_errors: Callable[[], int] = int
    _events: EventMetrics = field(default_factory=EventMetrics, init=False)

    def __post_init__(self) -> None:
        self.journal.listen(self._events)

    def now(self) -> Reading:
        """Ask everybody. Blocks for the look at a virtual network, if one runs."""
        lab = self.orchestrator.lab
        hosts = frozenset(host.name for host in lab.hosts)
        services = frozenset(service.name for service in lab.services)
        return Reading(
            status=self.orchestrator.status(),
            wakes=self.wakes.counts(services, hosts),
            dns=self.dns(),
            networks=self.monitors.samples([lab.name] if lab.network.run else []),
            plans=self.orchestrator.plans.counts(),
            events=self._events.counts(hosts),
            answers=self.answers(),
            webhooks=self.webhooks(),
            store_errors=self.store_errors(),
            lost_events=self.journal.lost,
            untold_wakes=self.orchestrator.wakes.missed,
        )
