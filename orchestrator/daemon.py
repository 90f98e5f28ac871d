"""`edgewake up`: joins all parts into one running process, and takes them apart again in order.

`Daemon` is the process without its signals and output, for tests and programs; `run` is what the
command line calls. Which back end serves a host is decided here, by its URI: ``memory:`` remembers
guests instead of booting them, ``spt:`` runs Solo5 unikernels as processes of this machine,
``netns:`` plain commands, and everything else is libvirt's.
"""

import gc
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

from dns_boot.log import DnsLog
from dns_boot.mdns import MdnsResponder
from dns_boot.resolver import Resolver
from dns_boot.serial import Serials
from dns_boot.server import DnsServer
from orchestrator import logs
from orchestrator.boot import HostParts
from orchestrator.control import Orchestrator
from orchestrator.digests import Digests
from orchestrator.doctor import probe_kernel
from orchestrator.errors import CannotGuard, EdgewakeError, LabError
from orchestrator.feeding import QUERIES, STATUS, WAKE, Feeder, Look, StatusNews, WakeNews
from orchestrator.frames import Frames
from orchestrator.guards.base import Guard, Listener
from orchestrator.guards.ladder import open_guard
from orchestrator.hypervisors.domain_xml import Virt
from orchestrator.hypervisors.kvm import cached_verdict
from orchestrator.hypervisors.libvirt_driver import LibvirtHypervisor
from orchestrator.hypervisors.memory import MemoryHypervisor, MemoryMachine
from orchestrator.hypervisors.netns import NetnsHypervisor
from orchestrator.hypervisors.spt import SptHypervisor
from orchestrator.installation import check_installation
from orchestrator.journal import Journal
from orchestrator.lab_on_disk import Known, kept_instead, known
from orchestrator.lab_yaml import read_text
from orchestrator.labfile import parse_lab
from orchestrator.library import traits_of
from orchestrator.live_network import LiveNetwork
from orchestrator.local import is_local_qemu, library_of, networks_of
from orchestrator.logs import LogFormat, LogLevel
from orchestrator.metrics import DnsCounts, WakeMetrics
from orchestrator.model import Host, Lab, Probe
from orchestrator.network_monitor import Monitors
from orchestrator.networking import NetworkKeeper
from orchestrator.networks import Networks
from orchestrator.readiness import Cancelled, Target, wait
from orchestrator.readings import Readings
from orchestrator.state_dir import StateDir
from orchestrator.steered import steered
from orchestrator.store.base import Store, Stored
from orchestrator.store.sql import SqlStore
from orchestrator.trace import Wakes
from orchestrator.trace_csv import CsvFile
from orchestrator.trace_export import Export, Exporter
from orchestrator.wake_numbers import WakeNumbers
from orchestrator.webhooks import Webhooks
from web.answer_counts import AnswerCounts
from web.api.context import Context
from web.app import app_of
from web.door.process import DoorProcess
from web.door.settings import DoorSettings
from web.door.tokens import Tokens
from web.metrics import exposition
from web.server import Server

log = logging.getLogger(__name__)

# The thread that answers warm queries must get the interpreter soon: with a busy thread beside it,
# the default of 5 ms makes the median answer ten times slower (docs/dns.md).
SWITCH_INTERVAL_S = 0.0005

# How often the feed tells of each at most.
WAKE_NEWS_S, STATUS_NEWS_S, QUERY_NEWS_S = 0.1, 0.25, 0.25

MEMORY_SCHEME, SPT_SCHEME, NETNS_SCHEME = "memory", "spt", "netns"
ORDERS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


@dataclass(frozen=True, slots=True)
class LabFile:
    """A lab with the text it was read from."""

    lab: Lab
    text: str
    path: Path


@dataclass(frozen=True, slots=True)
class Tracing:
    """Where wakes are told to when they are over: a CSV file, OpenTelemetry."""

    csv: Path | None = None
    otel: bool = False


@dataclass(slots=True)
class _Parts:
    """What exists only while the daemon runs."""

    state: StateDir
    store: Store
    journal: Journal
    orchestrator: Orchestrator
    dns: DnsServer
    door: DoorProcess


NO_TRACING = Tracing()


class Daemon:
    """One running edgewake. Start it once; stop it once or more.

    `lab_path` None means the lab that was last applied in this state directory. `ephemeral` ends
    our guests and removes our networks when it stops; otherwise they go on, and the next start
    finds them. `with_door` has the dashboard and the API served over TCP, as the lab says.
    """

    def __init__(
        self,
        state: Path,
        lab_path: Path | None = None,
        *,
        ephemeral: bool = False,
        tracing: Tracing = NO_TRACING,
        with_door: bool = False,
        open_networks: Callable[[StateDir], Networks] = networks_of,
    ) -> None:
        self.ephemeral = ephemeral
        self._with_door = with_door
        self._open_networks = open_networks
        self._tracing = tracing
        self._path = state
        self._lab_path = lab_path
        self._running: _Parts | None = None
        self._undo = ExitStack()

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything; DNS answers only once every host was asked what runs there.

        Raises `EdgewakeError`: the installation is broken (`InstallationError`), the lab file is
        wrong (`LabError`), the state directory is in use (`StoreError`), traces cannot be exported
        as wanted, or a socket cannot be bound. Then nothing of it runs; guests of an earlier run
        are as they were.
        """
        check_installation()
        with ExitStack() as undo:
            state = undo.enter_context(StateDir.open(self._path))
            store = undo.enter_context(closing(SqlStore(f"sqlite:///{state.database}")))
            stored = store.load()
            journal = undo.enter_context(closing(Journal(store)))
            wanted = self._wanted(stored, store, state, journal)
            frames = undo.enter_context(closing(Frames()))
            metrics = WakeMetrics()
            exports: list[Export] = [metrics, *open_exports(self._tracing, undo)]
            digests = Digests()
            opened = self._open_networks(state)
            networks = NetworkKeeper(opened, journal)
            monitors = Monitors(opened.seen)
            undo.callback(networks.close)
            hooks = undo.enter_context(closing(Webhooks(journal)))
            opener = HostOpener(state, digests)
            door = self._door(state, wanted.lab, journal, undo)
            orchestrator = Orchestrator(
                self._lab_to_start_with(wanted.lab, stored, state),
                store=store,
                open_host=opener,
                owner=state.owner,
                library=library_of(state, digests),
                watch=frames.watch,
                applied=partial(_applied, networks, hooks, door),
                journal=journal,
                wakes=numbered_wakes(state, undo),
            )
            undo.callback(orchestrator.operations.close)
            frames.start()
            exporter = Exporter(orchestrator.wakes, exports)
            undo.callback(exporter.close)
            exporter.start()
            resolver, dns, local = _open_dns(wanted.lab, orchestrator, state, undo)
            load = partial(parse_lab, images_dir=state.images)
            answers = AnswerCounts()
            readings = Readings(
                orchestrator,
                metrics,
                journal,
                monitors,
                dns=lambda: DnsCounts(resolver.held, dns.dropped, *resolver.log.counts()),
                answers=answers.counts,
                webhooks=hooks.counts,
                store_errors=lambda: store.failures,
            )
            view = partial(_told, readings)
            live = LiveNetwork(networks, opened, monitors, lambda: orchestrator.lab, journal)
            tokens = Tokens(state.tokens)
            parts = Context(
                orchestrator, load, view, network=live, tokens=tokens, queries=resolver.log
            )
            api = Server(answers.watched(app_of(parts)), state.socket)
            packets = steered(orchestrator, wanted.lab, state.owner, opener.world_of, undo)
            # Before what steers lets go: it steers once more.
            undo.callback(self._close, orchestrator, networks)
            orchestrator.start(*packets, resolver, *((local,) if local else ()))
            orchestrator.apply(wanted.lab, text=wanted.text, path=str(wanted.path))
            undo.callback(api.stop)
            api.start()
            _tell_live(orchestrator, resolver.log, undo)
            undo.callback(dns.stop)  # again: it must stop first
            dns.start()
            if local is not None:
                local.start()
            undo.callback(door.stop)  # again: before what it asks
            door.start()
            self._running = _Parts(state, store, journal, orchestrator, dns, door)
            self._undo = undo.pop_all()

    def stop(self) -> None:
        """Stop answering, let go of the hosts, and close what was open. May be called twice."""
        self._running = None
        self._undo.close()

    def reload(self) -> None:
        """Read again the file of the lab that is in use, and go over to it.

        If the lab was changed over the API since, that stays, and only what it names is read again
        (the door's certificate). Raises `LabError` or `UnsafeChanges`; then nothing was changed.
        """
        parts = self._parts
        lab = known(parts.store.load(), parts.store.lab_versions())
        if lab is None:
            raise LabError("the lab in use was read from no file")
        file = wanted_of(lab.file, lab, parts.state.images, parts.journal)
        changes = parts.orchestrator.apply(file.lab, text=file.text, path=str(file.path))
        log.info("%s was applied again: %s", file.path, changes)

    # --- what runs ----------------------------------------------------------------------------

    @property
    def orchestrator(self) -> Orchestrator:
        """The orchestrator; EdgewakeError if the daemon does not run."""
        return self._parts.orchestrator

    @property
    def dns_address(self) -> tuple[str, int]:
        """The address and port DNS is answered on."""
        return self._parts.dns.address

    @property
    def socket(self) -> Path:
        """The socket of the API."""
        return self._parts.state.socket

    @property
    def url(self) -> str | None:
        """Where the dashboard is; None if there is none."""
        return self._parts.door.url

    @property
    def _parts(self) -> _Parts:
        if self._running is None:
            raise EdgewakeError("this edgewake does not run", hint="start it first")
        return self._running

    # --- inside -------------------------------------------------------------------------------

    def _door(self, state: StateDir, lab: Lab, journal: Journal, undo: ExitStack) -> DoorProcess:
        """Return the door, which listens if one is wanted, and serves once it is started."""
        settings = DoorSettings(state.socket, state.tokens, lab=lab.name)
        door = DoorProcess(settings, state.door, journal.record)
        undo.callback(door.stop)
        if self._with_door:
            door.bind(lab.web)
        return door

    def _close(self, orchestrator: Orchestrator, networks: NetworkKeeper) -> None:
        if self.ephemeral:  # before the bridges that it hangs on
            networks.remove(orchestrator.lab.name)
        orchestrator.close(end_guests=self.ephemeral)

    def _wanted(self, stored: Stored, store: Store, state: StateDir, journal: Journal) -> LabFile:
        """Return the lab to run: of the file that was named, else the last one applied."""
        if self._lab_path is not None:
            before = known(stored, store.lab_versions())
            return wanted_of(self._lab_path, before, state.images, journal)
        if not stored.lab_text:
            raise LabError(
                f"no lab was ever applied with state directory {state.path}",
                hint="name a lab file: edgewake up LAB.yaml",
            )
        path = Path(stored.lab_path)
        lab = parse_lab(stored.lab_text, path, images_dir=state.images)
        return LabFile(lab, stored.lab_text, path)

    def _lab_to_start_with(self, wanted: Lab, stored: Stored, state: StateDir) -> Lab:
        """Return the lab that an earlier run left, under the wanted one's names and DNS.

        Its hosts may have guests that the wanted lab knows nothing of: they are found with the old
        lab, and ended by going over to the wanted one.
        """
        if not stored.lab_text:
            return wanted
        try:
            old = parse_lab(stored.lab_text, Path(stored.lab_path), images_dir=state.images)
        except LabError as error:
            log.warning("the last lab cannot be read any more, so is not cleaned up: %s", error)
            return wanted
        return replace(old, name=wanted.name, dns=wanted.dns)


def numbered_wakes(state: StateDir, undo: ExitStack) -> Wakes:
    """Return wakes whose numbers go on where the last run ended; `undo` keeps the last one."""
    numbers = WakeNumbers(state.path / "wake-number")
    undo.callback(numbers.close)
    return Wakes(numbers)


def open_exports(tracing: Tracing, undo: ExitStack) -> Iterator[Export]:
    """Open what wakes are exported to; `undo` closes it.

    Raises EdgewakeError: the file cannot be written, or is another one; InstallationError: the
    packages for OpenTelemetry are not there.
    """
    if tracing.csv is not None:
        file = CsvFile(tracing.csv)
        undo.callback(file.close)
        yield file
    if tracing.otel:
        from orchestrator.trace_otel import OtelExport  # noqa: PLC0415 - needs an extra

        export = OtelExport()
        undo.callback(export.close)
        yield export


def _open_dns(
    lab: Lab, orchestrator: Orchestrator, state: StateDir, undo: ExitStack
) -> tuple[Resolver, DnsServer, MdnsResponder | None]:
    """Return what answers questions, bound and not started yet; `undo` takes it apart."""
    resolver = Resolver(
        lab.dns,
        lambda: orchestrator.lab.populations,
        orchestrator,
        serials=Serials(state.path / "zone-serial.json"),
    )
    undo.callback(resolver.close)
    local = _local_names(lab, orchestrator)
    if local is not None:
        undo.callback(local.close)
    dns = DnsServer(resolver, lab.dns.listen, lab.dns.port, processes=lab.dns.processes)
    undo.callback(dns.stop)
    dns.bind()
    return resolver, dns, local


def _told(readings: Readings, accept: str) -> tuple[str, str]:
    """Return what Prometheus is told, and the type of the text."""
    return exposition(readings.now(), accept)


def _tell_live(orchestrator: Orchestrator, queries: DnsLog, undo: ExitStack) -> None:
    """Tell the feed what happens from now on; `undo` ends that, and lets its readers go."""
    looks = (
        Look(WAKE, WAKE_NEWS_S, WakeNews(orchestrator.wakes)),
        Look(STATUS, STATUS_NEWS_S, StatusNews(orchestrator.fleet)),
        Look(QUERIES, QUERY_NEWS_S, queries.news, idle=queries.collect),
    )
    feeder = Feeder(orchestrator.feed, looks)
    undo.callback(feeder.close)
    feeder.start()


def _applied(networks: NetworkKeeper, hooks: Webhooks, door: DoorProcess, lab: Lab) -> None:
    """Tell those who follow the lab what it is now."""
    networks.want(lab)
    hooks.use(lab.name, lab.webhooks)
    door.want(lab.web)


def _local_names(lab: Lab, orchestrator: Orchestrator) -> MdnsResponder | None:
    """Return what answers for local names, if the lab wants that."""
    if not lab.dns.mdns:
        return None
    return MdnsResponder(lab.dns.mdns, lambda: orchestrator.lab.populations, orchestrator)


def wanted_of(path: Path, known: Known | None, images_dir: Path, journal: Journal) -> LabFile:
    """Read a lab file; return what it says, or the lab in use if that is to stay.

    LabError says everything that is wrong with the file.
    """
    path = path.absolute()
    text = read_text(path)
    if kept := kept_instead(text, path, known):
        now = kept.version
        try:
            lab = parse_lab(now.text, Path(now.path), images_dir=images_dir)
        except LabError as error:
            log.warning("%s is applied, as the lab in use cannot be read: %s", path, error)
        else:
            journal.record("lab-conflict" if kept.conflict else "lab-kept", lab.name, kept.why)
            return LabFile(lab, now.text, Path(now.path))
    return LabFile(parse_lab(text, path, images_dir=images_dir), text, path)


# --- hosts ------------------------------------------------------------------------------------


class HostOpener:
    """Opens the hosts of a lab: an `orchestrator.hosts.OpenHost`. Safe to call from threads."""

    def __init__(self, state: StateDir, digests: Digests) -> None:
        self._state = state
        self._owner = state.owner
        self._lock = threading.Lock()
        self._virt: Virt | None = None
        self._machines: dict[str, MemoryMachine] = {}
        self._digests = digests
        self._commands: dict[str, NetnsHypervisor] = {}

    def world_of(self, instance: str) -> str | None:
        """Return the network namespace of an instance that is a process; None if it is not one."""
        for commands in tuple(self._commands.values()):
            if world := commands.world_of(instance):
                return world
        return None

    def __call__(self, host: Host) -> HostParts:
        """Return what control needs to work with a host; connects to nothing yet."""
        if urlsplit(host.uri).scheme == MEMORY_SCHEME:
            return HostParts(self._remembering(host), wait_in_memory, traits_of(host))
        guard = partial(guard_of, host)
        if urlsplit(host.uri).scheme == SPT_SCHEME:
            tenders = SptHypervisor(
                host,
                self._owner,
                folder=self._state.path / "spt",
                console_dir=self._state.consoles,
            )
            return HostParts(tenders, wait, traits_of(host), guard=guard)
        if urlsplit(host.uri).scheme == NETNS_SCHEME:
            commands = NetnsHypervisor(
                host,
                self._owner,
                folder=self._state.path / "netns",
                console_dir=self._state.consoles,
            )
            self._commands[host.name] = commands
            return HostParts(commands, wait, traits_of(host), guard=guard)
        virt = self._virt_of(host)
        hypervisor = LibvirtHypervisor(
            host, self._owner, console_dir=self._state.consoles, virt=virt, digests=self._digests
        )
        return HostParts(
            hypervisor,
            wait,
            traits_of(host, kvm=virt == "kvm"),
            keep=hypervisor.collect,
            guard=guard,
        )

    def _remembering(self, host: Host) -> MemoryHypervisor:
        """Return a host in memory; its machine stays when the lab describes it anew."""
        with self._lock:
            machine = self._machines.setdefault(host.name, MemoryMachine())
        return MemoryHypervisor(host, self._owner, machine=machine)

    def _virt_of(self, host: Host) -> Virt:
        """Return ``kvm`` only for a QEMU host on this machine where KVM was seen to boot."""
        if not is_local_qemu(host):
            return "qemu"
        with self._lock:
            if self._virt is None:
                self._virt = self._judged()
            return self._virt

    def _judged(self) -> Virt:
        kernel = probe_kernel(self._state.images)
        if kernel is None:
            log.info("guests run under TCG: no kernel is there to find out whether KVM boots")
            return "qemu"
        verdict = cached_verdict(self._state.kvm, kernel)
        if verdict.usable:
            log.info("guests run under KVM: %s", verdict.why)
        else:
            log.info("guests run under TCG: KVM boots none here (see 'edgewake doctor')")
        return "kvm" if verdict.usable else "qemu"


def guard_of(host: Host, listener: Listener) -> Guard:
    """Open the guard of a host; raises `CannotGuard`, also for a host that is another machine."""
    if host.is_elsewhere:
        raise CannotGuard(
            f"{host.name}: on another machine, traffic to guests that sleep is not noticed",
            hint="run an edgewake there, or let its services be woken by DNS alone",
        )
    return open_guard(host, listener)


def wait_in_memory(
    probe: Probe,  # noqa: ARG001 - there is nothing to ask
    target: Target,  # noqa: ARG001
    *,
    deadline: float,  # noqa: ARG001
    cancelled: Callable[[], str | None],
) -> None:
    """Return at once: a remembered guest answers as soon as it "runs". Raises `Cancelled`."""
    if why := cancelled():
        raise Cancelled(why)


# --- the process ------------------------------------------------------------------------------


def run(
    state: Path,
    lab_path: Path | None = None,
    *,
    ephemeral: bool = False,
    while_stdin: bool = False,
    tracing: Tracing = NO_TRACING,
    as_json: bool = False,
    log_format: LogFormat = LogFormat.CONSOLE,
    log_level: LogLevel = LogLevel.INFO,
) -> None:
    """Run until SIGTERM or SIGINT, or the end of standard input with `while_stdin`.

    SIGHUP reads the lab file again.

    Says on standard output, in one line, that it is ready; logs on standard error.
    """
    logs.set_up(log_format, log_level)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    daemon = Daemon(state, lab_path, ephemeral=ephemeral, tracing=tracing, with_door=True)
    with Orders() as orders:
        if while_stdin:
            threading.Thread(target=_end_with_stdin, args=(orders,), daemon=True).start()
        try:
            daemon.start()
            # What is there now stays. To look at it again would stop every thread for 0.1 s.
            gc.collect()
            gc.freeze()
            print(_ready(daemon, as_json=as_json), flush=True)  # noqa: T201 - this is the output
            while orders.next() == signal.SIGHUP:
                _reload(daemon)
            goes_on = "" if ephemeral else "guests go on; "
            log.info("stopping; %sinterrupt again to leave at once", goes_on)
        finally:
            orders.close()
            daemon.stop()


class Orders:
    """Signals that tell the process what to do, taken one after the other by its main thread.

    They come through a pipe: the kernel may hand a signal to any thread, and a main thread that
    waits for a lock or a queue then never hears of it.
    """

    def __enter__(self) -> "Orders":
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._before = {number: signal.signal(number, _nothing) for number in ORDERS}
        self._fd_before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def next(self) -> int:
        """Wait for the next order."""
        while True:
            number = os.read(self._read, 1)[0]
            if number in ORDERS:
                return number

    def give(self, number: int) -> None:
        """Give an order, as a signal of that number would."""
        os.write(self._write, bytes([number]))

    def close(self) -> None:
        """Let signals do what they did before. May be called twice."""
        if self._before:
            signal.set_wakeup_fd(self._fd_before)
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._before = {}


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Handle a signal that has been noted already."""


def _end_with_stdin(orders: Orders) -> None:
    """Order the end when whoever started us has closed our standard input, or is gone."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    orders.give(signal.SIGTERM)


def _reload(daemon: Daemon) -> None:
    try:
        daemon.reload()
    except EdgewakeError as error:
        log.error("the lab file was not applied: %s", error)  # noqa: TRY400 - no defect of ours


def _ready(daemon: Daemon, *, as_json: bool) -> str:
    address, port = daemon.dns_address
    zone = daemon.orchestrator.lab.dns.zone
    if as_json:
        return json.dumps(
            {
                "state": "up",
                "lab": daemon.orchestrator.lab.name,
                "zone": zone,
                "dns": {"address": address, "port": port},
                "socket": str(daemon.socket),
                "web": daemon.url,
                "pid": os.getpid(),
            }
        )
    shown = f"[{address}]" if ":" in address else address
    said = f"edgewake is up: zone {zone} on {shown}:{port}, API on {daemon.socket}"
    if daemon.url is not None:
        said += f", dashboard on {daemon.url} (edgewake dashboard --open)"
    return said
