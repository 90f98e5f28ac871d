"""A small world for tests: hosts in memory, guests that answer when told to, one edgewake."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from images.bootspec import Image
from images.build import cpio
from orchestrator.boot import HostParts
from orchestrator.control import ControlSettings, Orchestrator
from orchestrator.errors import CannotGuard
from orchestrator.guards.base import Listener
from orchestrator.guards.memory import MemoryGuard
from orchestrator.hypervisors.memory import MemoryHypervisor, MemoryMachine
from orchestrator.library import Library, traits_of
from orchestrator.model import (
    Capacity,
    Client,
    Endpoint,
    Event,
    GuestNetwork,
    Host,
    IdlePolicy,
    Lab,
    Probe,
    ProbeKind,
    Service,
)
from orchestrator.readiness import Cancelled, NotAnswering, Target
from orchestrator.steering.base import Route
from orchestrator.store.base import Store
from tests.waiting import PATIENCE_S, eventually

OWNER = "tests"


@dataclass
class Seen:
    """A steering back end that remembers what it was told."""

    routes: tuple[Route, ...] = ()
    history: list[tuple[Route, ...]] = field(default_factory=list)

    def set(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(routes)
        self.history.append(self.routes)

    def close(self) -> None:
        self.routes = ()

    def hosts_of(self, service: str) -> list[str]:
        return [end.host for r in self.routes if r.service.name == service for end in r.endpoints]


@dataclass
class World:
    """Hosts in memory, a store, and one edgewake over them that can be killed and started again.

    `answer_s` says how long after its start a guest answers (None: never), by service. `guards`
    are those of hosts; `cannot_guard` says why there are none, if so.
    """

    lab: Lab
    store: Store
    machines: dict[str, MemoryMachine] = field(default_factory=dict)
    drivers: dict[str, MemoryHypervisor] = field(default_factory=dict)
    answer_s: dict[str, float | None] = field(default_factory=dict)
    boot_s: float = 0.0
    seen: Seen = field(default_factory=Seen)
    library: Library | None = None
    settings: ControlSettings = field(default_factory=lambda: ControlSettings(sweep_s=3600))
    guards: dict[str, MemoryGuard] = field(default_factory=dict)
    cannot_guard: str = ""
    control: Orchestrator = field(init=False)

    def open_host(self, host: Host) -> HostParts:
        machine = self.machines.setdefault(host.name, MemoryMachine())
        driver = MemoryHypervisor(host, OWNER, machine=machine, boot_s=self.boot_s)
        old = self.drivers.get(host.name)
        driver.fail = old.fail if old else ""
        self.drivers[host.name] = driver

        def wait(
            probe: Probe,
            target: Target,
            *,
            deadline: float,
            cancelled: Callable[[], str | None],
        ) -> None:
            service = self.service_at(target.address)
            answer_s = self.answer_s.get(service, 0.0)
            answers_at = float("inf") if answer_s is None else time.monotonic() + answer_s
            while time.monotonic() < answers_at:
                if why := cancelled():
                    raise Cancelled(why)
                if time.monotonic() > deadline:
                    raise NotAnswering("connection refused")
                time.sleep(0.002)

        return HostParts(
            driver, wait, traits_of(host), guard=lambda listener: self.guard(host, listener)
        )

    def guard(self, host: Host, listener: Listener) -> MemoryGuard:
        if self.cannot_guard:
            raise CannotGuard(self.cannot_guard)
        guard = self.guards[host.name] = MemoryGuard(listener)
        return guard

    def service_at(self, address: IPv4Address) -> str:
        for machine in self.machines.values():
            with machine.lock:
                for kept in machine.guests.values():
                    if kept.guest.mark.address == address:
                        return kept.guest.mark.service
        return ""

    def start(self) -> Orchestrator:
        self.control = Orchestrator(
            self.lab,
            store=self.store,
            open_host=self.open_host,
            owner=OWNER,
            library=self.library,
            settings=self.settings,
        )
        self.control.start(self.seen)
        return self.control

    def crash(self) -> None:
        """Forget the running edgewake as `kill -9` would, but for threads that must not linger."""
        self.control.close()

    def machine(self, host: str) -> MemoryHypervisor:
        """Return another driver of a host, for what happens there without edgewake."""
        return MemoryHypervisor(self.lab.host(host), OWNER, machine=self.machines[host])

    def guests(self, host: str = "") -> list[str]:
        machines = [m for name, m in self.machines.items() if host in {"", name}]
        return sorted(name for machine in machines for name in machine.guests)

    def ask(self, service: str, timeout_s: float = 10.0) -> tuple[Endpoint, ...]:
        """Summon as a DNS answer would, noting that the answer was handed out."""
        endpoints = self.summon(service).result(timeout_s)
        self.control.asked[service] = time.monotonic()
        return endpoints

    def summon(self, service: str) -> Future[tuple[Endpoint, ...]]:
        return self.control.summon(service, Client()).endpoints

    def eventually(self, what: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
        """Wait until something becomes true; fail the test if it does not."""
        eventually(what, within_s)

    def sweep_until(self, what: Callable[[], bool]) -> None:
        """Sweep, as edgewake does each second, until something becomes true."""

        def swept() -> bool:
            self.control.expire()
            return what()

        eventually(swept)

    def events(self, kind: str = "") -> list[Event]:
        """Return what the journal tells of a kind, or all, once what was recorded is written."""
        self.control._journal._writer.submit(lambda: None).result(60)
        return [event for event in self.control.events(1000) if kind in {"", event.kind}]

    def told(self, kind: str) -> list[str]:
        """Return the sentences of such events."""
        return [event.text for event in self.events(kind)]


def an_image(folder: Path) -> Image:
    """Return an image that the linux family takes: the right headers, and nothing else."""
    kernel, initrd = folder / "vmlinuz", folder / "initrd"
    header = bytearray(4096)
    header[0x202:0x206] = b"HdrS"
    header[0x206:0x208] = (0x020F).to_bytes(2, "little")
    kernel.write_bytes(bytes(header))
    initrd.write_bytes(cpio.archive([]))
    return Image("tiny", "linux", kernel, initrd)


def a_host(name: str, index: int = 0, memory_mib: int = 1024, cpu: float = 64.0) -> Host:
    net = IPv4Network((int(IPv4Address("10.9.0.0")) + 256 * index, 24))
    return Host(
        name=name,
        uri="memory:///",
        capacity=Capacity(cpu=cpu, memory_mib=memory_mib),
        network=GuestNetwork(
            name=f"net-{name}",
            subnet=net,
            gateway=net[1],
            first=net[10],
            last=net[200],
            create=True,
        ),
    )


def straight_to_cold(after_s: float | None) -> IdlePolicy:
    """Return a policy without a ladder: ready, then unused for so long, then cold."""
    return IdlePolicy(after_s=after_s, min_up_s=0.0, paused_s=0.0, saved_s=0.0)


def a_service(name: str, **changes: object) -> Service:
    service = Service(
        name=name,
        names=(f"{name}.edge.test",),
        images=("tiny",),
        resources=Capacity(cpu=0.1, memory_mib=100),
        probe=Probe(ProbeKind.TCP, port=80),
        ttl_s=0,
        idle=straight_to_cold(0.05),
        deadline_s=2.0,
    )
    return replace(service, **changes)  # type: ignore[arg-type]
