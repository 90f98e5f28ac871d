"""Which flavour of a service's images a host boots now: what fails there of late goes last.

A service names flavours of one program in order of preference. One that failed twice in a row on a
host (its guests died at once, or never answered) is passed over there, for the next one that fits,
until some calm time is over or its files change. `orchestrator.library` knows what fits.
"""

import time
from collections.abc import Callable, Mapping

from orchestrator.errors import ImageUnusable
from orchestrator.failures import Failures, Row
from orchestrator.fleet import Fleet
from orchestrator.library import Fit, Library, Place
from orchestrator.model import Service

PASSED_OVER = 2  # failures in a row on a host, from which on another flavour goes first
CALM_S = 300.0  # after its last failure, a flavour is preferred again

Key = tuple[str, str, str]  # of a service, a host, and the version of a flavour's files


class Flavours:
    """The flavours of each service on each host, and which failed. `places` are the open hosts."""

    def __init__(
        self, fleet: Fleet, library: Library, places: Callable[[], Mapping[str, Place]]
    ) -> None:
        self._fleet = fleet
        self._library = library
        self._places = places
        self._failures: Failures[Key] = Failures()

    def of(self, service: Service, host: str) -> tuple[Fit, ...]:
        """Return what a host can boot for a service, what it boots now first; empty if nothing."""
        place = self._places().get(host)
        fits = self._library.fits(self._fleet.lab, service, place) if place else ()
        return self._ordered(service, host, fits)

    def first(self, service: Service) -> dict[str, Fit | ImageUnusable]:
        """Return what each host boots for a service now, or why it can boot nothing."""
        found: dict[str, Fit | ImageUnusable] = {}
        places = self._places()
        for host, fits in self._everywhere(service, places).items():
            if fits:
                found[host] = self._ordered(service, host, fits)[0]
                continue
            try:
                found[host] = self._library.fit(self._fleet.lab, service, places[host])
            except ImageUnusable as error:
                found[host] = error
        return found

    def preferred(self, service: Service, host: str) -> Fit | None:
        """Return what a host would boot if nothing had failed; None if nothing has."""
        place = self._places().get(host) if self._failures else None
        if place is None:
            return None
        return next(iter(self._library.fits(self._fleet.lab, service, place)), None)

    def failures(self, service: Service, host: str, fit: Fit) -> Row:
        """Return how a flavour failed on a host in a row."""
        return self._failures.row(self._key(service, host, fit))

    def passed_over(self, service: Service, host: str, fit: Fit) -> bool:
        """Return whether a flavour goes last on a host."""
        row = self.failures(service, host, fit)
        return row.count >= PASSED_OVER and time.monotonic() < row.last_at + CALM_S

    def avoided(self, service: Service) -> frozenset[str]:
        """Return the hosts on which every flavour of a service failed of late."""
        if not self._failures:
            return frozenset()
        return frozenset(
            host
            for host, fits in self._everywhere(service, self._places()).items()
            if fits and all(self.passed_over(service, host, fit) for fit in fits)
        )

    def all(self, service: Service) -> frozenset[Key]:
        """Return every flavour of a service on every host that may be used now."""
        closed = self._fleet.closed()
        return frozenset(
            self._key(service, host, fit)
            for host, fits in self._everywhere(service, self._places()).items()
            if host not in closed
            for fit in fits
        )

    def failed(self, service: Service, host: str, fit: Fit, why: str, *, up_s: float = 0.0) -> None:
        """Note that a guest died at once, or after `up_s`, or never answered."""
        self._failures.failed(self._key(service, host, fit), why, time.monotonic(), up_s=up_s)

    def worked(self, service: Service, host: str, fit: Fit) -> None:
        """Note that a guest answered."""
        if self._failures:
            self._failures.worked(self._key(service, host, fit))

    def forget(self) -> None:
        """Forget all failures."""
        self._failures.clear()

    def version(self, fit: Fit) -> str:
        """Return what changes whenever a flavour's files do."""
        return self._library.version(fit)

    def written_at(self, fit: Fit) -> float:
        """Return when a file of a flavour was last written (s since the epoch); raises OSError."""
        return self._library.written_at(fit)

    def _everywhere(
        self, service: Service, places: Mapping[str, Place]
    ) -> dict[str, tuple[Fit, ...]]:
        """Return what each host can boot, as preferred; hosts of one kind are looked at once."""
        by_kind = {place.kind: place for place in places.values()}
        lab = self._fleet.lab
        fits = {kind: self._library.fits(lab, service, by_kind[kind]) for kind in by_kind}
        return {host: fits[place.kind] for host, place in places.items()}

    def _ordered(self, service: Service, host: str, fits: tuple[Fit, ...]) -> tuple[Fit, ...]:
        if not self._failures or len(fits) < 2:
            return fits
        return tuple(sorted(fits, key=lambda fit: self.passed_over(service, host, fit)))

    def _key(self, service: Service, host: str, fit: Fit) -> Key:
        return service.name, host, self._library.version(fit)
