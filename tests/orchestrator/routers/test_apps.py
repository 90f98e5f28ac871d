"""Programs in real namespaces: the contract, and what only real processes can show."""

import ctypes
import json
import os
import platform
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import CannotNetwork
from orchestrator.linux import namespaces, supervision
from orchestrator.linux.processes import leave_session_keyring
from orchestrator.network import App
from orchestrator.programs import catalogue
from orchestrator.routers.apps import NetnsApps
from tests.contracts.apps import AppsContract
from tests.waiting import eventually

pytestmark = pytest.mark.real

PREFIX = f"ewta{os.getpid()}-"
ADD_KEY = 248 if platform.machine() == "x86_64" else 217
NET_RAW = 1 << 13  # capability.h CAP_NET_RAW


def lines(apps: NetnsApps, name: str) -> list[str]:
    return apps.console("r1", name).decode().splitlines()


class TestNetnsApps(AppsContract):
    @pytest.fixture(autouse=True)
    def _routers(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr(supervision, "GRACE_S", 0.2)
        self.folder = tmp_path
        for router in ("r1", "r2"):
            namespaces.make(PREFIX + router)
        yield
        for router in ("r1", "r2"):
            namespaces.remove(PREFIX + router)

    def make(self) -> NetnsApps:
        return NetnsApps(PREFIX, folder=self.folder, namespace_of=lambda name: PREFIX + name)

    def lose(self, router: str) -> None:
        namespaces.remove(PREFIX + router)

    def test_it_is_inside_confined_and_has_the_rights_it_asked_for(self, apps: NetnsApps) -> None:
        for rights in ((), ("net_raw",)):
            apps.start(App("a", "r1", ("cat", "/proc/self/status"), rights=rights))
            assert self.ended(apps, "a").exit_code == 0
            told = dict(line.split(":", 1) for line in lines(apps, "a"))
            wanted = NET_RAW if rights else 0
            for kind in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"):
                assert int(told[kind], 16) == wanted, kind
            assert told["NoNewPrivs"].strip() == "1"
            assert told["Groups"].strip() == ""
            assert int(told["Uid"].split()[0]) >= 0x7000_0000
        apps.start(App("b", "r1", ("readlink", "/proc/self/ns/net")))
        self.ended(apps, "b")
        assert lines(apps, "b") == [f"net:[{(namespaces.FOLDER / (PREFIX + 'r1')).stat().st_ino}]"]

    def test_it_does_not_have_the_keys_of_our_session(self, apps: NetnsApps) -> None:
        """Who inherits a session keyring may read what is in it, and /proc/keys shows that."""
        name = f"ewta-{os.getpid()}".encode()
        libc, session, add_key = ctypes.CDLL(None, use_errno=True), -3, ADD_KEY

        def look() -> None:
            leave_session_keyring()  # this thread's, so that no key of ours stays
            assert libc.syscall(add_key, b"user", name, b"secret", 6, session) > 0
            apps.start(App("keys", "r1", ("cat", "/proc/keys")))

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        assert self.ended(apps, "keys").exit_code == 0
        assert name.decode() not in apps.console("r1", "keys").decode()

    def test_it_has_its_environment_and_reads_its_input(self, apps: NetnsApps) -> None:
        apps.start(App("env", "r1", ("env",), environment=(("PATH", "/bin"), ("A", "b c"))))
        apps.start(App("cat", "r1", ("cat",), input="some\ntext\n"))
        given = self.folder / "r1%2Fcat.in"
        assert given.stat().st_mode & 0o77 == 0, "for no other program's eyes"
        self.ended(apps, "env")
        self.ended(apps, "cat")
        assert sorted(lines(apps, "env")) == ["A=b c", "PATH=/bin"]
        assert lines(apps, "cat") == ["some", "text"]

    def test_after_a_restart_it_is_found_and_its_end_is_still_known(self, apps: NetnsApps) -> None:
        """Also one that ended while there was no edgewake, whose parent we no longer are."""
        apps.start(App("a", "r1", ("sh", "-c", "read line; exit 7"), input="x\n"))
        pid = apps.start(App("b", "r1", self.GOES_ON)).pid
        self.ended(apps, "a")
        again = self.make()
        assert self.state(again, "a").exit_code == 7
        assert self.state(again, "b").pid == pid
        os.kill(pid, signal.SIGKILL)
        assert self.ended(again, "b").signal == 9

    def test_one_whose_supervisor_is_just_ending_is_started_again(self, apps: NetnsApps) -> None:
        apps.start(App("a", "r1", self.GOES_ON))
        told = {"code": 0, "signal": None, "cpu_s": 0.0, "at": 0.0}
        (self.folder / "r1%2Fa.end").write_text(json.dumps(told))
        assert not self.state(apps, "a").running
        assert apps.start(App("a", "r1", self.GOES_ON)).running

    def test_one_whose_start_was_cut_short_is_found_by_its_record(self, apps: NetnsApps) -> None:
        apps.start(App("a", "r1", self.GOES_ON))
        (record,) = self.folder.glob("*.json")
        data = json.loads(record.read_text())
        record.write_text(json.dumps({**data, "process": None, "pid": 0}))
        assert self.state(apps, "a").running
        assert apps.stop("r1", "a").signal == 15

    def test_all_of_it_ends_however_it_left_its_parents(self, apps: NetnsApps) -> None:
        """A daemon of its own session that minds no SIGTERM."""
        apps.start(App("a", "r1", ("sh", "-c", "trap '' TERM; setsid sleep 601 & sleep 602")))
        user = Path(f"/proc/{self.state(apps, 'a').pid}").stat().st_uid

        def of_the_user() -> list[str]:
            found = [p for p in Path("/proc").glob("[0-9]*") if _owner(p) == user]
            return [p.name for p in found if _lives(int(p.name))]

        eventually(lambda: len(of_the_user()) == 3)
        assert apps.stop("r1", "a").signal == 9
        eventually(lambda: of_the_user() == [])

    def test_one_that_stops_whoever_it_may_ends_too(self, apps: NetnsApps) -> None:
        """What kills it runs as its user, and must not be one of those."""
        script = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork():
    time.sleep(1000)
os.setsid()
while True:
    try:
        os.kill(-1, signal.SIGSTOP)
    except OSError:
        pass
"""
        pid = apps.start(App("stops", "r1", ("python3", "-c", script))).pid
        user = Path(f"/proc/{pid}").stat().st_uid
        time.sleep(0.2)
        apps.stop("r1", "stops")
        alive = [p for p in Path("/proc").glob("[0-9]*") if _owner(p) == user]
        eventually(lambda: not [p for p in alive if _lives(int(p.name))])

    def test_it_does_not_outlive_its_supervisor(self, apps: NetnsApps) -> None:
        state = apps.start(App("a", "r1", self.GOES_ON))
        parent = int(Path(f"/proc/{state.pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(parent, signal.SIGKILL)
        eventually(lambda: not _lives(state.pid))
        ended = self.state(apps, "a")
        assert (ended.running, ended.exit_code, ended.signal) == (False, None, None)

    def test_a_router_of_the_same_name_does_not_have_the_old_ones_programs(
        self, apps: NetnsApps
    ) -> None:
        old = apps.start(App("a", "r1", self.GOES_ON))
        self.lose("r1")
        namespaces.make(PREFIX + "r1")
        new = apps.start(App("a", "r1", self.GOES_ON))
        assert new.running
        eventually(lambda: not _lives(old.pid))
        assert self.state(apps, "a").pid == new.pid

    def test_its_processor_time_and_memory_are_told(self, apps: NetnsApps) -> None:
        apps.start(App("a", "r1", ("sh", "-c", "while :; do :; done")))
        first_s = self.state(apps, "a").cpu_s  # also of an earlier one's that nobody reaped yet
        eventually(lambda: self.state(apps, "a").cpu_s > first_s + 0.1)
        assert 0.1 < self.state(apps, "a").memory_mib < 100
        assert apps.stop("r1", "a").cpu_s > 0.05

    def test_its_console_is_bounded(self, apps: NetnsApps) -> None:
        apps.start(App("a", "r1", ("seq", "1000000")))
        assert self.ended(apps, "a").exit_code == 0
        assert lines(apps, "a")[-1] == "1000000"
        kept = sum(file.stat().st_size for file in (self.folder / "console").iterdir())
        assert kept < 2.5 * 2**20

    def test_what_cannot_run_is_an_error_and_leaves_nothing(
        self, apps: NetnsApps, tmp_path: Path
    ) -> None:
        with pytest.raises(CannotNetwork, match="no program 'ewt-none' on this machine; install"):
            apps.start(App("a", "r1", ("ewt-none",)))
        no_program = tmp_path / "no-program"
        no_program.write_text("#!/ewt/none\n")
        no_program.chmod(0o755)
        with pytest.raises(CannotNetwork, match=r"r1/a cannot be started: .*no-program"):
            apps.start(App("a", "r1", (str(no_program),)))
        assert apps.all() == ()
        assert [f.name for f in self.folder.iterdir() if f.is_file()] == ["no-program"]


def _lives(pid: int) -> bool:
    """Return whether a process runs; a zombie does not, whoever is slow to reap it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _owner(folder: Path) -> int | None:
    try:
        return folder.stat().st_uid
    except OSError:
        return None


class TestPrograms:
    """The ready-made ones, for real: one router is enough to see that each does its work."""

    @pytest.fixture
    def apps(self, tmp_path: Path) -> Iterator[NetnsApps]:
        def with_address() -> None:
            from pyroute2 import IPRoute  # noqa: PLC0415 - for this test only

            with IPRoute() as ip:
                ip.addr("add", index=1, address="10.9.9.1", prefixlen=32)
                ip.link("set", index=1, state="up")

        namespaces.make(PREFIX + "r1", with_address)
        apps = NetnsApps(PREFIX, folder=tmp_path, namespace_of=lambda name: PREFIX + name)
        yield apps
        for state in apps.all():
            apps.remove("r1", state.app.name)
        namespaces.remove(PREFIX + "r1")

    def start(self, apps: NetnsApps, name: str, program: str, **given: str) -> None:
        apps.start(catalogue.app(name, "r1", program, given, {"r1": "10.9.9.1"}.__getitem__))

    def test_ping_datagrams_and_a_function(self, apps: NetnsApps, tmp_path: Path) -> None:
        self.start(apps, "receive", "receive", every="100 ms")
        self.start(apps, "send", "send", to="r1", rate="200")
        self.start(apps, "ping", "ping", to="r1", count="2", every="10 ms")
        self.start(apps, "call", "python", function="json:dumps", obj="x")
        eventually(lambda: len(lines(apps, "receive")) > 1)
        told = json.loads(lines(apps, "receive")[-1])
        assert told["from"] == "10.9.9.1"
        assert told["received"] > 0
        eventually(lambda: "2 received" in apps.console("r1", "ping").decode())
        eventually(lambda: not {s.app.name: s for s in apps.all()}["call"].running)
        assert lines(apps, "call") == [json.dumps(json.dumps("x"))]

    def test_iperf3_measures(self, apps: NetnsApps) -> None:
        self.start(apps, "server", "iperf3-server")
        eventually(lambda: "listening" in apps.console("r1", "server").decode())
        self.start(apps, "client", "iperf3-client", to="r1", seconds="1")
        eventually(lambda: not {s.app.name: s for s in apps.all()}["client"].running)
        told = json.loads(apps.console("r1", "client"))
        assert told["end"]["sum_received"]["bits_per_second"] > 1e6

    def test_a_firewall_is_there_as_long_as_it_runs(self, apps: NetnsApps) -> None:
        """Even if it is killed: its table belongs to a socket."""
        self.start(apps, "firewall", "firewall", drop="icmp and dst host 10.9.9.1", where="input")
        eventually(lambda: "counter" in apps.console("r1", "firewall").decode())
        ping = ["ip", "netns", "exec", PREFIX + "r1", "ping", "-c1", "-W1", "10.9.9.1"]
        assert subprocess.run(ping, capture_output=True, check=False).returncode == 1
        (state,) = apps.all()
        os.kill(state.pid, signal.SIGKILL)
        eventually(lambda: not apps.all()[0].running)
        show = ["ip", "netns", "exec", PREFIX + "r1", "nft", "list", "ruleset"]
        assert subprocess.run(show, capture_output=True, check=True).stdout == b""
        assert subprocess.run(ping, capture_output=True, check=False).returncode == 0

    def test_a_firewall_whose_table_is_there_already_says_so(self, apps: NetnsApps) -> None:
        self.start(apps, "one", "firewall", drop="tcp")
        eventually(lambda: "counter" in apps.console("r1", "one").decode())
        self.start(apps, "two", "firewall", drop="udp")
        eventually(lambda: not {s.app.name: s for s in apps.all()}["two"].running)
        assert {s.app.name: s.exit_code for s in apps.all()} == {"one": None, "two": 1}
        assert "Operation not permitted" in apps.console("r1", "two").decode()


def _lives(pid: int) -> bool:
    """Return whether a process runs; a zombie does not, whoever is slow to reap it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _owner(folder: Path) -> int | None:
    try:
        return folder.stat().st_uid
    except OSError:
        return None
