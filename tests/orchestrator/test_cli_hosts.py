"""The command `edgewake host add`: what is printed, in text and JSON, and how it fails."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from orchestrator import host_checks, host_probe
from orchestrator.cli import Exit, app
from orchestrator.errors import HostUnreachable
from orchestrator.host_checks import check_hosts
from orchestrator.host_probe import HostFacts, read_facts
from orchestrator.host_shell import Shell
from orchestrator.hypervisors.libvirt_probe import Answers, Described
from orchestrator.labfile import load_lab, parse_lab
from orchestrator.model import Capacity, Host
from orchestrator.verdicts import Check, Verdict
from tests.orchestrator.hypervisors.sshd import Sshd, sshd, sshds
from tests.results import document_of
from tests.world import a_host
from tests.xenbed.bed import Bed

__all__ = ["sshd", "sshds"]

TEST_URI = "test:///default"  # a driver inside libvirt's library, with a host that never changes
NET = "<network><name>lan</name><forward mode='bridge'/><bridge name='br0'/></network>"

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def invoke(*args: object) -> Result:
        command = ["--state", str(tmp_path / "state"), "host", "add", *map(str, args)]
        return CliRunner().invoke(app, command)

    return invoke


def _entry(text: str) -> str:
    """Return the entry among what was printed: what is indented below its heading."""
    match = re.search(r"under hosts:\n\n((?:  .*\n)+)", text)
    assert match, text
    return match[1]


def _lab(entry: str, tmp_path: Path) -> Path:
    file = tmp_path / "lab.yaml"
    file.write_text(f"zone: t.test\nhosts:\n{entry}")
    return file


# --- what is printed --------------------------------------------------------------------------


def test_people_see_what_is_there_and_an_entry_that_parses(run: Run, tmp_path: Path) -> None:
    result = run(TEST_URI)
    assert result.exit_code == 0, result.output
    assert re.search(r"hypervisor +TEST 0\.0\.2, libvirt \d", result.stdout)
    assert re.search(r"processor +16 cores, i686, 2 NUMA nodes", result.stdout)
    assert re.search(r"storage +default-pool \(/default-pool\)", result.stdout)
    assert re.search(r"clock +not known", result.stdout)
    (host,) = load_lab(_lab(_entry(result.stdout), tmp_path)).hosts
    assert (host.name, host.uri, host.capacity.cpu) == ("box", TEST_URI, 16)


def test_json_has_the_same(run: Run, tmp_path: Path) -> None:
    told = document_of(run(TEST_URI, "--name", "pc1", "--json"))
    assert told["name"] == "pc1"
    assert told["facts"]["cores"] == 16
    assert told["facts"]["networks"][0]["address"] == "192.168.122.1/24"
    (missing,) = told["missing"]
    assert missing["what"].startswith("it has i686 processors: only images built for those run")
    assert (
        parse_lab(f"zone: t.test\nhosts:\n{told['stanza']}", tmp_path / "x").hosts[0].name == "pc1"
    )


def test_a_second_host_joins_a_lab_beside_the_first(run: Run, tmp_path: Path) -> None:
    first = document_of(run(TEST_URI, "--json"))["stanza"]
    lab = _lab(first, tmp_path)
    second = document_of(run(TEST_URI, "--lab", lab, "--json"))["stanza"]
    hosts = parse_lab(f"zone: t.test\nhosts:\n{first}{second}", lab).hosts
    assert [host.name for host in hosts] == ["box", "box-2"]
    assert hosts[0].network.subnet != hosts[1].network.subnet


def test_what_the_lab_has_already_is_told(run: Run, tmp_path: Path) -> None:
    lab = _lab(document_of(run(TEST_URI, "--json"))["stanza"], tmp_path)
    again = run(TEST_URI, "--lab", lab)
    assert "note: the lab has this URI as host box already\n" in again.stdout
    taken = run("qemu+tls://pc1/system", "--lab", lab, "--name", "box")
    assert taken.exit_code == Exit.USAGE
    assert "the name box is taken" in taken.stderr


def test_where_there_are_notes_only_nothing_is_missing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = _facts(networks=(), bridges=(), kvm_device=True)
    facts = replace(facts, uri="qemu:///system", shell=Shell(0.0, False, ()))
    monkeypatch.setattr(host_probe, "probe", lambda *_, **__: facts)
    said = run("qemu:///system").stdout
    assert said.endswith(
        "note: no dnsmasq, which only `dhcp: true` needs\n    there: apt install dnsmasq-base\n"
        "nothing is missing\n"
    )


def test_nothing_is_written_anywhere(run: Run, tmp_path: Path) -> None:
    run(TEST_URI)
    assert list(tmp_path.iterdir()) == []


def test_what_another_machine_says_cannot_drive_the_terminal(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = replace(
        _facts(), emulator="\x1b]0;x\x07", pools=(host_probe.FoundPool("\x1b[2J", True, "/"),)
    )
    monkeypatch.setattr(host_probe, "probe", lambda *_, **__: evil)
    result = run("qemu+tls://pc1/system")
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output


def test_help_lists_adding_a_host_before_emptying_it() -> None:
    commands = re.findall(
        r"(?m)^  (add|drain) ", CliRunner().invoke(app, ["host", "--help"]).stdout
    )
    assert commands == ["add", "drain"]


# --- how it fails -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        (
            "qemu+unix:///system?socket=/nowhere/sock",
            r"libvirtd does not run there(.|\n)*systemctl",
        ),
        ("qmeu:///system", r"no driver for that kind(.|\n)*did you mean 'qemu'"),
        ("root@pc1", r"no libvirt URI"),
        ("", r"no libvirt URI"),
        ("qemu+tls://pc1.invalid/system?pkipath=/nowhere", r"cacert\.pem"),
    ],
)
def test_a_host_that_cannot_be_reached(run: Run, uri: str, said: str) -> None:
    result = run(uri)
    assert result.exit_code == Exit.FAILED, result.output
    assert result.stderr.startswith("edgewake: host ")
    assert re.search(said, result.stderr), result.stderr
    assert result.stdout == ""


def test_a_wrong_name_or_lab_is_told_before_anybody_is_asked(run: Run, tmp_path: Path) -> None:
    assert run("qemu+tls://pc1/system", "--name", "PC 1").exit_code == Exit.USAGE
    lab = _lab("  box: {}\n", tmp_path)
    assert run("qemu+tls://pc1/system", "--lab", lab).exit_code == Exit.LAB_INVALID


# --- the doctor's checks of hosts -------------------------------------------------------------


def _facts(**changes: Any) -> HostFacts:
    answers = Answers(
        kind="QEMU",
        version=7002022,
        libvirt=9000000,
        machine="x86_64",
        cores=4,
        numa_nodes=1,
        memory_mib=8192,
        free_mib=4096,
        capabilities="<capabilities/>",
        domain_capabilities=None,
        networks=(Described("lan", True, NET),),
        interfaces=None,
        pools=(),
        dom0=None,
        guests_mib=0,
        streams=True,
    )
    facts = read_facts("qemu+tls://pc1/system", answers, Shell(0.0, True, ("br0",)))
    return replace(facts, **changes)


def _host(uri: str = "qemu+tls://pc1/system", **network: Any) -> Host:
    host = a_host("pc1", cpu=2)
    there = replace(host.network, **{"name": "lan", "create": False, **network})
    return replace(host, uri=uri, network=there)


def _checks(monkeypatch: pytest.MonkeyPatch, facts: HostFacts, *hosts: Host) -> dict[str, Check]:
    monkeypatch.setattr(host_probe, "probe", lambda *_, **__: facts)
    return {check.name: check for check in check_hosts(hosts)}


def test_a_host_that_lacks_nothing_has_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    (check,) = _checks(monkeypatch, _facts(), _host()).values()
    assert check.verdict is Verdict.OK
    assert check.what == "QEMU 7.2.22, 4 cores, 4096 MiB free"


@pytest.mark.parametrize(
    ("facts", "host", "name", "verdict", "to_do"),
    [
        ({"pools": None}, _host(), "storage pc1", Verdict.WARN, "apt install"),
        ({"networks": None}, _host(), "network pc1", Verdict.FAIL, "apt install"),
        ({}, _host(name="gone"), "network pc1", Verdict.FAIL, "net-list"),
        (
            {"networks": (host_probe.FoundNetwork("lan", False, "bridge", "br0", None, False),)},
            _host(),
            "network pc1",
            Verdict.FAIL,
            "net-start lan",
        ),
        (
            {"shell": Shell(0.0, False, ())},
            _host(create=True, bridge="b0", dhcp=True),
            "dhcp pc1",
            Verdict.FAIL,
            "dnsmasq-base",
        ),
        ({"architecture": "aarch64"}, _host(), "arch pc1", Verdict.FAIL, "write `arch: aarch64`"),
        (
            {},
            replace(_host(), guest_cpus=(1, 3, 4)),
            "guest_cpus pc1",
            Verdict.FAIL,
            "0-3 are all",
        ),
        ({}, replace(_host(), guest_cpus=(7,)), "guest_cpus pc1", Verdict.FAIL, "0-3 are all"),
        ({}, replace(_host(), guest_cpus=(1,)), "capacity pc1", Verdict.WARN, "as `reserve`"),
        ({"memory_mib": 512}, _host(), "capacity pc1", Verdict.WARN, "capacity"),
        ({"shell": Shell(60.0, True, ())}, _host(), "clock pc1", Verdict.WARN, "chrony"),
        (
            {"kind": "Xen", "shell": Shell(0.0, True, (), xenstore=False)},
            _host(),
            "xenstore pc1",
            Verdict.WARN,
            "xenstore-utils",
        ),
    ],
)
def test_what_a_host_lacks_is_a_check_of_its_own(  # noqa: PLR0917 - a table
    monkeypatch: pytest.MonkeyPatch,
    facts: dict[str, Any],
    host: Host,
    name: str,
    verdict: Verdict,
    to_do: str,
) -> None:
    found = _checks(monkeypatch, _facts(**facts), host)
    assert set(found) == {f"libvirt {host.uri}", name}
    assert found[name].verdict is verdict
    assert to_do in found[name].to_do


def test_a_weak_uri_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_probe, "probe", lambda *_, **__: _facts())
    _, weak = check_hosts((_host("qemu+tls://pc1/system?no_verify=1"),))
    assert weak.verdict is Verdict.WARN
    assert "certificate is not checked" in weak.what


def test_hosts_are_asked_at_the_same_time_and_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits for the other to be asked: one after the other, they would never be done."""
    meeting = Barrier(8)

    def probe(uri: str, *, name: str, timeout_s: float) -> HostFacts:
        assert timeout_s == host_checks.HOST_S
        meeting.wait(30)
        raise HostUnreachable(name, f"no connection to {uri}", hint="is it up?")

    monkeypatch.setattr(host_probe, "probe", probe)
    hosts = tuple(_host(f"qemu+tls://pc{n}/system") for n in range(8))
    checks = list(check_hosts(hosts))
    assert [check.verdict for check in checks] == [Verdict.FAIL] * 8
    assert [check.name for check in checks] == [f"libvirt {host.uri}" for host in hosts]
    assert checks[0].to_do == "is it up?"


def test_hosts_that_share_a_libvirt_are_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def probe(uri: str, **_: object) -> HostFacts:
        asked.append(uri)
        return _facts()

    monkeypatch.setattr(host_probe, "probe", probe)
    twins = tuple(replace(_host(), name=name, capacity=Capacity(1, 64)) for name in ("a", "b"))
    assert len(list(check_hosts(twins))) == 1
    assert asked == ["qemu+tls://pc1/system"]


# --- for real ---------------------------------------------------------------------------------


@pytest.mark.real
def test_a_real_host_behind_ssh(run: Run, sshd: Sshd, tmp_path: Path) -> None:
    result = run(sshd.uri(), "--name", "far")
    assert result.exit_code == 0, result.output
    assert re.search(r"hypervisor +QEMU \d", result.stdout)
    assert re.search(r"clock +as ours", result.stdout)
    assert "ip route add" not in result.stdout  # its host is 127.0.0.1
    assert load_lab(_lab(_entry(result.stdout), tmp_path)).hosts


@pytest.mark.real
@pytest.mark.timeout(900)  # the bed may have to be built first
def test_a_real_xen_behind_ssh_with_its_key_pinned(run: Run, xen_bed: Bed, tmp_path: Path) -> None:
    result = run(xen_bed.ssh_uri, "--name", "pc1")
    assert result.exit_code == 0, result.output
    assert re.search(r"hypervisor +Xen 4\.\d+\.0, libvirt \d", result.stdout)
    assert re.search(r"guests +PV, PVH", result.stdout)
    assert re.search(r"dom0 +512 MiB, 1 virtual", result.stdout)
    assert re.search(r"networks +xenbr0 \(bridge on xenbr0\)", result.stdout)
    assert re.search(r"clock +as ours", result.stdout)
    (host,) = load_lab(_lab(_entry(result.stdout), tmp_path)).hosts
    assert host.network.name == "xenbr0"
    assert host.network.subnet == xen_bed.state.lan.subnet
    assert host.reserve.memory_mib >= 512
    assert [check.verdict for check in check_hosts((host,))] == [Verdict.OK]


@pytest.mark.real
@pytest.mark.timeout(900)
def test_a_real_xen_with_another_key_is_not_connected_to(
    run: Run, xen_bed: Bed, tmp_path: Path
) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\nexec ssh -F/dev/null -oUserKnownHostsFile=/dev/null "$@"\n')
    ssh.chmod(0o755)
    result = run(xen_bed.ssh_uri.partition("?")[0] + f"?command={ssh}")
    assert result.exit_code == Exit.FAILED
    assert "the host's ssh key is not known here" in result.stderr
