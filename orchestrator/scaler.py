"""Says how many copies each service should have now, by what hosts tell of the load of its guests.

The decision is `orchestrator.scaling`'s. What is wanted is kept by the `Fleet`, for all who compare
with it; `orchestrator.upkeep` boots what is missing and takes away what is too much.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.fleet import Fleet
from orchestrator.journal import Journal
from orchestrator.model import RunningGuest, Scale, Service
from orchestrator.scaling import LoadMeter, Opinion, Steadied, opinion, total


@dataclass(slots=True)
class _Course:
    """How a service was scaled since it woke: by what scale, and the last opinion."""

    scale: Scale
    steadied: Steadied
    last: Opinion
    short: int = 0  # copies that no host has room for


class Scaler:
    """Looks at the load of each service that is to be scaled.

    `places` says on how many hosts one more copy of a service could be booted now.
    """

    def __init__(self, fleet: Fleet, journal: Journal, *, places: Callable[[Service], int]) -> None:
        self._fleet = fleet
        self._journal = journal
        self._places = places
        self._meters: dict[str, LoadMeter] = {}  # by instance
        self._courses: dict[str, _Course] = {}  # by service

    def count(self, guest: RunningGuest, now: float) -> None:
        """Take in what a host tells of a guest (monotonic time)."""
        self._meters.setdefault(guest.mark.instance, LoadMeter()).count(guest, now)

    def quiet(self, instance: str) -> tuple[float, ...]:
        """Return the cores that an instance used at the last looks when hardly a packet came."""
        meter = self._meters.get(instance)
        return tuple(meter.quiet) if meter else ()

    def look(self) -> None:
        """Decide for every service; called in each sweep."""
        there = {instance.name for instance in self._fleet.instances()}
        for gone in self._meters.keys() - there:
            self._meters.pop(gone, None)
        for service in self._fleet.lab.services:
            if service.scale is None or not self._fleet.serving(service.name):
                self.forget(service.name)
            else:
                self._look(service, service.scale)

    def forget(self, service: str) -> None:
        """Begin anew: nobody is led to a service any more, or it is not scaled."""
        self._courses.pop(service, None)
        self._fleet.want(service, None)

    def why(self, service: str) -> str:
        """Return by what load a service has the copies that it has; empty if it is not scaled."""
        course = self._courses.get(service)
        if course is None or not course.last.why:
            return ""
        short = f"; no host has room for {course.short} more" if course.short else ""
        return f"{course.last.why}{short}"

    def _look(self, service: Service, scale: Scale) -> None:
        now, name = time.monotonic(), service.name
        present = self._fleet.wanted(service)
        copies = self._fleet.serving(name)
        meters = (self._meters.get(each.name) for each in copies)
        load = total((meter.load if meter else None for meter in meters), now)
        course = self._courses.get(name)
        if course is None or course.scale != scale:
            steadied = Steadied(scale.out_after_s, scale.in_after_s, present=present, now=now)
            course = self._courses[name] = _Course(scale, steadied, Opinion(present, ""))
            self._fleet.want(name, present)
        if load is None:
            return
        course.last = opinion(service, load, present)
        asked = course.steadied.wanted(course.last.copies, present, now)
        wanted = self._possible(service, asked) if asked > present else asked
        course.short = max(0, asked - wanted)
        if wanted != present:
            self._fleet.want(name, wanted)
            kind = "scaled-out" if wanted > present else "scaled-in"
            told = f"from {present} to {wanted} copies: {course.last.why}"
            self._journal.record(kind, name, told)

    def _possible(self, service: Service, asked: int) -> int:
        """Return how many copies of those that are asked for hosts have room for."""
        present = self._fleet.wanted(service)
        possible = len(self._fleet.of(service.name)) + self._places(service)
        return max(present, min(asked, possible))
