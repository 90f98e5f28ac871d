"""Copies for secondaries: who gets one, what Knot and NSD make of it, how they hear of changes."""

import base64
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dnslib import DNSRecord

from dns_boot import tsig
from dns_boot.names import name_of, tsig_in
from dns_boot.notify import Notifier
from dns_boot.resolver import Resolver
from dns_boot.server import DnsServer
from orchestrator.model import Secondary, StaticRecord, Transfer, TsigKey
from orchestrator.steering.base import Route
from tests.ports import free_port

SECRET = base64.b64encode(bytes(range(32))).decode()
WRONG = base64.b64encode(bytes(32)).decode()
AXFR, IXFR = 252, 251
RECORDS = (
    StaticRecord("edge.test", "MX", "10 mail.example.org.", 600),
    StaticRecord("text.edge.test", "TXT", "hello", 60),
)
LOOPBACK = ip_network("127.0.0.0/8")
Ask = Callable[..., Any]


def tool(name: str, package: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        pytest.fail(f"{name} is missing: apt-get install {package}")
    return found


@pytest.fixture
def key(tmp_path: Path) -> TsigKey:
    file = tmp_path / "copy.key"
    file.write_text(SECRET)
    file.chmod(0o600)
    return TsigKey("copy", "hmac-sha256", file)


@pytest.fixture
def primary(make_resolver: Ask, key: TsigKey) -> Resolver:
    resolver: Resolver = make_resolver(
        listen="127.0.0.1", records=RECORDS, keys=(key,), transfer=Transfer(keys=("copy",))
    )
    return resolver


@pytest.fixture
def served(primary: Resolver) -> Iterator[int]:
    """Serve the primary; return its port."""
    server = DnsServer(primary, "127.0.0.1", 0)
    server.start()
    yield server.address[1]
    server.stop()


def dig(port: int, *arguments: str) -> str:
    command = [tool("dig", "dnsutils"), "@127.0.0.1", "-p", str(port), "+tries=1", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout


# --- who gets a copy --------------------------------------------------------------------------


def test_dig_gets_a_copy_with_the_key_and_not_without(served: int) -> None:
    output = dig(served, "edge.test", "AXFR", "-y", f"hmac-sha256:copy:{SECRET}")
    assert "messages 1" in output
    lines = [line.split() for line in output.splitlines() if line and line[0] != ";"]
    said = {(line[0], line[3], " ".join(line[4:])) for line in lines}
    assert ("edge.test.", "NS", "ns.edge.test.") in said
    assert ("ns.edge.test.", "A", "127.0.0.1") in said
    assert ("edge.test.", "MX", "10 mail.example.org.") in said
    assert ("text.edge.test.", "TXT", '"hello"') in said
    assert ("web.edge.test.", "NS", "ns.edge.test.") in said
    assert ("six.deep.edge.test.", "NS", "ns.edge.test.") in said
    assert "TSIG" in {line[3] for line in lines}
    assert "verify" not in output
    for wrong in (
        (),
        ("-y", f"hmac-sha256:copy:{WRONG}"),
        ("-y", f"hmac-sha256:no:{SECRET}"),
    ):
        assert "Transfer failed" in dig(served, "edge.test", "AXFR", *wrong)


@pytest.mark.parametrize("options", [(), ("+tcp",), ("+noedns",), ("+subnet=192.0.2.0/24",)])
def test_dig_checks_the_signature_of_any_answer(served: int, options: tuple[str, ...]) -> None:
    for name, status in (("web.edge.test", "NOERROR"), ("no.edge.test", "NXDOMAIN")):
        output = dig(served, name, "-y", f"hmac-sha256:copy:{SECRET}", *options)
        assert f"status: {status}" in output
        assert "TSIG PSEUDOSECTION" in output
        assert "verify" not in output
    wrong = dig(served, "web.edge.test", "-y", f"hmac-sha256:copy:{WRONG}", *options)
    assert "status: NOTAUTH" in wrong


@pytest.mark.parametrize(
    ("algorithm", "status"), [("hmac-sha512", "BADKEY"), ("hmac-sha256", "NOERROR")]
)
def test_kdig_agrees(served: int, algorithm: str, status: str) -> None:
    command = [tool("kdig", "knot-dnsutils"), "@127.0.0.1", "-p", str(served)]
    command += ["-y", f"{algorithm}:copy:{SECRET}", "web.edge.test"]
    output = subprocess.run(command, check=False, capture_output=True, text=True)
    assert f"status: {status}" in output.stdout
    assert ("failed to verify" in output.stdout + output.stderr) == (status == "BADKEY")


@pytest.mark.parametrize(
    ("transfer", "udp", "qtype", "rcode", "answers"),
    [
        (Transfer(), False, AXFR, 5, 0),
        (Transfer(keys=("copy",)), False, AXFR, 5, 0),
        (Transfer(allow=(ip_network("198.51.100.0/24"),)), False, AXFR, 5, 0),
        (Transfer(allow=(ip_network("2001:db8::/32"),)), False, AXFR, 5, 0),
        (Transfer(allow=(ip_network("192.0.2.0/24"),)), False, AXFR, 0, 9),
        (Transfer(allow=(ip_network("192.0.2.0/24"),)), False, IXFR, 0, 9),
        (Transfer(allow=(ip_network("192.0.2.0/24"),)), True, IXFR, 0, 1),
        (Transfer(allow=(ip_network("192.0.2.0/24"),)), True, AXFR, 5, 0),
    ],
)
def test_who_may_have_a_copy_and_how(
    *,
    lab: SimpleNamespace,
    make_resolver: Ask,
    asker: Ask,
    key: TsigKey,
    summoner: Any,
    transfer: Transfer,
    udp: bool,
    qtype: int,
    rcode: int,
    answers: int,
) -> None:
    resolver = make_resolver(records=RECORDS, keys=(key,), transfer=transfer)
    ask = asker(resolver, udp=udp)
    record = DNSRecord.parse(ask(lab.query("EDGE.test", qtype, edns=1232)))
    assert (record.header.rcode, len(record.rr)) == (rcode, answers)
    assert DNSRecord.parse(ask(lab.query("web.edge.test", qtype))).header.rcode == 5
    assert DNSRecord.parse(ask(lab.query("edge.test", qtype, 3))).header.rcode == 5
    assert not summoner.calls
    assert len(resolver.packed) == 0


def test_a_copy_of_more_than_one_message_is_refused_with_words(
    lab: SimpleNamespace, make_resolver: Ask, asker: Ask
) -> None:
    texts = tuple(StaticRecord(f"t{n}.edge.test", "TXT", "x" * 1000) for n in range(70))
    resolver = make_resolver(records=texts, transfer=Transfer(allow=(ip_network("192.0.2.0/24"),)))
    reply = asker(resolver, udp=False)(lab.query("edge.test", AXFR, edns=1232))
    assert lab.ede(reply) == (0, "the zone's static part is more than one message")


def test_a_held_query_that_was_signed_gets_a_signed_answer(
    lab: SimpleNamespace, primary: Resolver, asker: Ask, summoner: Any, key: TsigKey
) -> None:
    ours = tsig.load_keys([key])[name_of("copy")]
    wake = summoner.sleeping("web")
    asked = asker(primary)
    packet, mac = tsig.sign_request(lab.query(), ours)
    asked.send(packet)
    wake.set_result((lab.endpoint("web"),))
    (reply,) = asked.replies
    assert tsig.check_reply(reply, tsig_in(reply), ours, mac)
    assert len(DNSRecord.parse(reply).rr) == 1


# --- real secondaries -------------------------------------------------------------------------


def knot(folder: Path, primary: int, port: int) -> list[str]:
    config = folder / "knot.conf"
    config.write_text(f"""
server:
    listen: 127.0.0.1@{port}
    rundir: "{folder}"
database:
    storage: "{folder}/db"
log:
  - target: stderr
    any: info
key:
  - id: copy
    algorithm: hmac-sha256
    secret: "{SECRET}"
remote:
  - id: primary
    address: 127.0.0.1@{primary}
    key: copy
acl:
  - id: told
    address: 127.0.0.1
    key: copy
    action: notify
zone:
  - domain: edge.test
    storage: "{folder}"
    master: primary
    acl: told
""")
    return [tool("knotd", "knot"), "-c", str(config)]


def nsd(folder: Path, primary: int, port: int) -> list[str]:
    config = folder / "nsd.conf"
    config.write_text(f"""
server:
  ip-address: 127.0.0.1@{port}
  username: ""
  chroot: ""
  zonesdir: "{folder}"
  database: ""
  pidfile: "{folder}/nsd.pid"
  xfrdfile: "{folder}/xfrd.state"
  xfrdir: "{folder}"
  zonelistfile: "{folder}/zone.list"
remote-control:
  control-enable: no
key:
  name: "copy"
  algorithm: hmac-sha256
  secret: "{SECRET}"
zone:
  name: "edge.test"
  zonefile: "edge.test.zone"
  request-xfr: AXFR 127.0.0.1@{primary} copy
  allow-notify: 127.0.0.1 copy
""")
    return [tool("nsd", "nsd"), "-d", "-c", str(config)]


@pytest.mark.parametrize("program", [knot, nsd])
def test_a_real_secondary_copies_the_zone_and_hears_of_changes(
    *,
    lab: SimpleNamespace,
    make_resolver: Ask,
    key: TsigKey,
    tmp_path: Path,
    program: Callable[[Path, int, int], list[str]],
) -> None:
    port = free_port()
    transfer = Transfer(keys=("copy",), notify=(Secondary("127.0.0.1", port, key="copy"),))
    resolver = make_resolver(listen="127.0.0.1", records=RECORDS, keys=(key,), transfer=transfer)
    server = DnsServer(resolver, "127.0.0.1", 0)
    server.start()
    folder = tmp_path / "secondary"
    folder.mkdir()
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(
        program(folder, server.address[1], port), stdout=log, stderr=subprocess.STDOUT
    )
    try:
        said = eventually(port, "text.edge.test TXT", '"hello"')
        assert "status: NOERROR" in said
        referral = dig(port, "web.edge.test", "A", "+norecurse")
        assert "status: NOERROR" in referral
        assert "ANSWER: 0, AUTHORITY: 1" in referral
        assert "ns.edge.test.\t\t3600\tIN\tA\t127.0.0.1" in referral
        assert "status: NXDOMAIN" in dig(port, "new.edge.test", "A", "+norecurse")
        new = lab.service("new", names=("new.edge.test",))
        resolver.set((Route(lab.WEB), Route(new)))  # as when another lab is applied
        eventually(port, "new.edge.test A +norecurse", "NS\tns.edge.test.")
        assert "status: NXDOMAIN" in dig(port, "six.deep.edge.test", "A", "+norecurse")
        ours, theirs = (
            dig(each, "edge.test", "SOA", "+short") for each in (server.address[1], port)
        )
        assert ours == theirs != ""
    finally:
        process.terminate()
        process.wait(30)
        server.stop()
        log.close()


def eventually(port: int, question: str, wanted: str) -> str:
    end = time.monotonic() + 30
    while wanted not in (said := dig(port, *question.split(), "+time=1")):
        assert time.monotonic() < end, said
        time.sleep(0.1)
    return said


# --- telling ----------------------------------------------------------------------------------


class Deaf:
    """A secondary that answers only the third NOTIFY, and counts them all."""

    def __init__(self, key: tsig.Key | None, deaf_to: int, *, odd: bool = False) -> None:
        self.heard: list[bytes] = []
        self._key, self._deaf_to, self._odd = key, deaf_to, odd
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._socket.settimeout(20)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                packet, peer = self._socket.recvfrom(512)
            except OSError:
                return
            if not packet:
                return
            self.heard.append(packet)
            if len(self.heard) > self._deaf_to:
                self._socket.sendto(self._reply(packet), peer)

    def _reply(self, packet: bytes) -> bytes:
        if self._key is None or self._odd:
            return packet[:2] + bytes((packet[2] | 0x80,)) + packet[3:]
        at = tsig_in(packet)
        bare = packet[:2] + bytes((packet[2] | 0x80,)) + packet[3:10] + b"\0\0" + packet[12:at]
        return tsig.check(packet, at, {self._key.name: self._key}).sign(bare)

    def close(self) -> None:
        self._socket.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()


@pytest.mark.parametrize("is_signed", [False, True])
def test_who_does_not_hear_is_told_again_and_who_has_heard_is_not(
    key: TsigKey, is_signed: bool
) -> None:
    ours = tsig.load_keys([key])[name_of("copy")]
    deaf, good = Deaf(ours if is_signed else None, 2), Deaf(ours if is_signed else None, 0)
    named = "copy" if is_signed else ""
    notifier = Notifier(
        name_of("edge.test"),
        tuple(Secondary("127.0.0.1", each.port, key=named) for each in (deaf, good)),
        {ours.name: ours},
        first_wait_s=0.2,
    )
    for _ in range(5):
        notifier.tell()  # several changes in a row are told once
    end = time.monotonic() + 20
    while len(deaf.heard) < 3 and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.5)
    notifier.close()
    assert (len(deaf.heard), len(good.heard)) == (3, 1)
    assert good.heard[0][2:4] == bytes((0x24, 0))  # opcode 4, authoritative
    assert b"\4edge\4test\0\0\6\0\1" in good.heard[0]
    for each in (deaf, good):
        each.close()


def test_an_unsigned_answer_to_a_signed_notify_is_not_believed(key: TsigKey) -> None:
    ours = tsig.load_keys([key])[name_of("copy")]
    liar = Deaf(ours, 0, odd=True)
    notifier = Notifier(
        name_of("edge.test"),
        (Secondary("127.0.0.1", liar.port, key="copy"),),
        {ours.name: ours},
        first_wait_s=0.05,
    )
    notifier.tell()
    end = time.monotonic() + 20
    while len(liar.heard) < 3 and time.monotonic() < end:
        time.sleep(0.02)
    notifier.close()
    assert len(liar.heard) >= 3
    assert len({packet[:2] for packet in liar.heard}) > 1
    liar.close()
