"""Steers packets for public addresses of services: into an instance here, or on to the origin.

The steering back end `Redirects` is told the whole list of routes, as all are. Of each service with
a public address that has an instance on this machine, the first by name gets the packets. The work
is done by a thread of its own, so nobody waits for it; it tries again what could not be done yet.
When edgewake ends the redirects stay, as its guests do. Without any public address, now or when it
began, nothing on the machine is looked at.
"""

import threading
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, ip_network
from logging import getLogger

from orchestrator.errors import CannotRedirect
from orchestrator.model import Endpoint, Host, Lab, Public, Service, mac_of
from orchestrator.rules.tree import Address, Rule, Side, all_of
from orchestrator.steering.base import Route
from orchestrator.steering.redirect.base import InPlace, Redirect, Redirector
from orchestrator.steering.redirect.commands import Commands
from orchestrator.steering.redirect.ways import bridge_of, obstacles, port_of

log = getLogger(__name__)

FindPort = Callable[[Host, IPv4Address], str]

_AGAIN_S = 1.0  # after something could not be done
_LOOK_S = 30.0  # whether all is still there
_MEMORY = "memory"


class Redirects:
    """A `Steering` through a redirector; `start` it, and `close` it.

    What an earlier run left is not removed for `patience_s` after the start.
    """

    def __init__(
        self,
        lab: Callable[[], Lab],
        redirector: Redirector,
        find_port: FindPort | None = None,
        patience_s: float = 3.0,
    ) -> None:
        self._patience_s = patience_s
        self._lab = lab
        self._redirector = redirector
        commands = Commands()
        self._find_port = find_port or (lambda host, at: port_of(host, at, commands))
        self._routes: tuple[Route, ...] = ()
        self._said: dict[str, str] = {}
        self._ports: dict[str, str] = {}
        self._told = threading.Event()
        self._done = threading.Condition()
        self._count = [0, 0]  # how often something was told, and up to which time it is done
        self._closed = self._used = False
        self._thread = threading.Thread(target=self._run, name="redirects")

    # --- the seam -------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin; until it is told routes, nothing is touched."""
        self._used = any(service.public for service in self._lab().services)
        self._thread.start()

    def set(self, routes: Sequence[Route]) -> None:
        """Steer by exactly these routes; returns at once."""
        with self._done:
            self._routes = tuple(route for route in routes if route.service.public)
            self._used = self._used or bool(self._routes)
            self._count[0] += self._used
        if self._used:
            self._told.set()

    def close(self) -> None:
        """Stop; what is steered goes on so. May be called twice."""
        self._closed = True
        self._told.set()
        if self._thread.is_alive():
            self._thread.join()
        self._redirector.close()

    def settled(self, timeout_s: float) -> bool:
        """Wait until all that was told is done, as far as it could be; say whether it is."""
        with self._done:
            return self._done.wait_for(lambda: self._count[1] >= self._count[0], timeout_s)

    def in_place(self) -> tuple[InPlace, ...]:
        """Return what is steered now."""
        return self._redirector.in_place()

    # --- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        if not self._used:
            self._told.wait()
        if not self._closed:
            self._look_around()  # before there is haste: it takes longest
            self._told.wait()
            self._await_instances()
        wait_s = 0.0
        while not self._closed or self._count[1] < self._count[0]:
            self._told.wait(wait_s)
            self._told.clear()
            with self._done:
                count, routes = self._count[0], self._routes
            wait_s = self._carry_out(routes)
            with self._done:
                self._count[1] = count
                self._done.notify_all()

    def _await_instances(self) -> None:
        """Give instances of an earlier run time to be found, so that no client is led back."""
        end = time.monotonic() + self._patience_s
        while not self._closed and any(not route.endpoints for route in self._routes):
            left_s = end - time.monotonic()
            if left_s <= 0:
                return
            self._told.clear()
            self._told.wait(left_s)

    def _look_around(self) -> None:
        """Log what can steer here, and what would keep answers from their clients."""
        try:
            for rung, why_not in self._redirector.rungs().items():
                log.info("redirects by %s: %s", rung, f"no: {why_not}" if why_not else "yes")
        except CannotRedirect as error:
            log.warning("redirects: %s", error)
        for host in filter(is_here, self._lab().hosts):
            for obstacle in obstacles(bridge_of(host)):
                log.warning("host %s: %s", host.name, obstacle)

    def _carry_out(self, routes: Sequence[Route]) -> float:
        """Do it, and say when to look again."""
        problems: dict[str, str] = {}
        try:
            wanted = [each for route in routes if (each := self._wanted(route, problems))]
            for refused in self._redirector.set(wanted):
                problems[refused.redirect.name] = refused.why
            names = {each.name for each in wanted}
            there = [each for each in self._redirector.in_place() if each.redirect.name in names]
            self._tell(there, problems)
        except CannotRedirect as error:
            problems = {"redirects": str(error)}
            self._tell([], problems)
        return _AGAIN_S if problems else _LOOK_S

    def _wanted(self, route: Route, problems: dict[str, str]) -> Redirect | None:
        public = route.service.public
        hosts = {host.name: host for host in self._lab().hosts if is_here(host)}
        ends = sorted((end for end in route.endpoints if end.host in hosts), key=_by_name)
        if public is None or not ends:
            self._ports.pop(route.service.name, None)
            return None
        end = ends[0]
        port = self._port(route.service, hosts[end.host], end)
        if not port:
            problems[route.service.name] = f"nobody knows yet behind which device {end.instance} is"
            return None
        rule = rule_of(public)
        return Redirect(route.service.name, rule, public.interface, port, mac_of(end.address))

    def _port(self, service: Service, host: Host, end: Endpoint) -> str:
        """Return the device; of an instance that is silent, the one that it was behind before."""
        key = f"{end.instance} {end.address}"
        found = self._find_port(host, end.address)
        known = self._ports.get(service.name, "").partition("\0")
        if not found and known[0] == key:
            return known[2]
        if found:
            self._ports[service.name] = f"{key}\0{found}"
        return found

    def _tell(self, there: Sequence[InPlace], problems: dict[str, str]) -> None:
        """Log what is new."""
        says = {
            each.redirect.name: f"traffic at {each.redirect.interface} goes to "
            f"{each.redirect.to_device} ({each.rung})"
            for each in there
        }
        for name, why in problems.items():
            if self._said.get(name) != why:
                log.warning("%s: traffic for its public address flows on: %s", name, why)
        for name, what in says.items():
            if self._said.get(name) != what:
                log.info("%s: %s", name, what)
        for name in self._said.keys() - says.keys() - problems.keys():
            log.info("%s: traffic for its public address flows on", name)
        self._said = {**says, **problems}


def rule_of(public: Public) -> Rule:
    """Return which packets are led into an instance: those to its address that are meant."""
    return all_of(Address(Side.DST, ip_network(public.address)), public.rule)


def is_here(host: Host) -> bool:
    """Say whether a host's instances are on this machine, as processes or guests."""
    return not host.is_elsewhere and host.driver != _MEMORY


def _by_name(end: Endpoint) -> str:
    return end.instance
