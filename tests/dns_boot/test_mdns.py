"""Local names: on the wire, and on a real link between two network namespaces."""

import json
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address
from types import SimpleNamespace
from typing import Any

import pytest
from dnslib import DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from dns_boot import mdns_wire
from dns_boot.mdns import MdnsResponder
from dns_boot.mdns_wire import Question
from dns_boot.names import FormatError
from orchestrator.errors import EdgewakeError, NotReady
from orchestrator.steering.base import Route

A, AAAA, ANY = 1, 28, 255
WEB = (b"web", b"local")


def packet(*questions: tuple[str, int, int], known: bytes = b"", count: int = 0) -> bytes:
    body = b""
    for name, qtype, qclass in questions:
        labels = b"".join(bytes((len(each),)) + each.encode() for each in name.split("."))
        body += labels + b"\0" + struct.pack("!HH", qtype, qclass)
    return struct.pack("!6H", 7, 0, len(questions), count, 0, 0) + body + known


# --- on the wire ------------------------------------------------------------------------------


def test_several_questions_with_compressed_names_are_read() -> None:
    data = packet(("WEB.local", A, 0x8001)) + b"\1x\xc0\x10" + struct.pack("!HH", AAAA, 1)
    data = data[:4] + b"\0\2" + data[6:]
    query = mdns_wire.read(data)
    assert query is not None
    assert query.questions == (
        Question(WEB, A, unicast=True),
        Question((b"x", b"local"), AAAA, unicast=False),
    )


def test_known_answers_are_read_and_count_for_half_their_life() -> None:
    record = b"\xc0\x0c" + struct.pack("!HHIH", A, 0x8001, 60, 4) + bytes((10, 0, 0, 5))
    query = mdns_wire.read(packet(("web.local", A, 1), known=record, count=1))
    assert query is not None
    there = IPv4Address("10.0.0.5")
    assert [query.knows(WEB, there, ttl_s) for ttl_s in (60, 120, 121)] == [True, True, False]
    assert not query.knows(WEB, IPv4Address("10.0.0.6"), 60)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(11),
        packet(("web.local", A, 1))[:-1],
        bytes(4) + b"\0\1" + bytes(6) + b"\xc0\x0c\0\1\0\1",  # a pointer to itself
        bytes(4) + b"\0\1" + bytes(6) + b"\xc0\xff\0\1\0\1",  # a pointer ahead
        bytes(4) + b"\0\1" + bytes(6) + b"\x40\0\0\1\0\1",
        bytes(4) + b"\0\1" + bytes(6) + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1",
        bytes(4) + b"\xff\xff" + bytes(6),
    ],
)
def test_what_lies_about_itself_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        mdns_wire.read(data)


@pytest.mark.parametrize(("pointers", "fine"), [(3, True), (3000, False)])
def test_a_long_chain_of_pointers_is_not_followed(pointers: int, fine: bool) -> None:
    """Each is right for itself; to follow thousands, for each record anew, costs too much."""
    start = 12 + 1 + 10  # of the data of the first record, which is a root label and the chain
    targets = [start, *range(start + 1, start + 2 * pointers - 1, 2)]
    data = b"\0" + b"".join((0xC000 | target).to_bytes(2, "big") for target in targets)
    first = b"\0" + struct.pack("!HHIH", 16, 1, 0, len(data)) + data
    last = (0xC000 | start + len(data) - 2).to_bytes(2, "big") + struct.pack("!HHIH", 16, 1, 0, 0)
    packet = struct.pack("!6H", 0, 0, 0, 2, 0, 0) + first + last
    if fine:
        assert mdns_wire.read(packet) is not None
        return
    with pytest.raises(FormatError, match="pointer"):
        mdns_wire.read(packet)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_query_or_an_error(data: bytes) -> None:
    for each in (
        data,
        packet(("web.local", A, 1)) + data,
        bytes(4) + b"\0\2\0\2" + bytes(4) + data,
    ):
        try:
            query = mdns_wire.read(each)
        except FormatError:
            continue
        assert query is None or all(isinstance(q.name, tuple) for q in query.questions)


def test_answers_are_well_formed() -> None:
    both = [ip_address("10.0.0.5"), ip_address("fd00::5")]
    record = DNSRecord.parse(mdns_wire.response(WEB, both, 60))
    assert (record.header.id, record.header.bitmap, record.questions) == (0, 0x8400, [])
    assert [(str(rr.rname), rr.rclass, rr.ttl, str(rr.rdata)) for rr in record.rr] == [
        ("web.local.", 0x8001, 60, "10.0.0.5"),
        ("web.local.", 0x8001, 60, "fd00::5"),
    ]
    question = Question(WEB, A, unicast=False)
    record = DNSRecord.parse(mdns_wire.legacy_response(7, question, both[:1], 60))
    assert (record.header.id, str(record.q.qname), record.q.qtype) == (7, "web.local.", A)
    assert [(rr.rclass, rr.ttl) for rr in record.rr] == [(1, 10)]


def test_an_interface_that_is_not_there_is_named() -> None:
    with pytest.raises(EdgewakeError, match="multicast DNS on ewnone0") as caught:
        MdnsResponder("ewnone0", lambda: (), SimpleNamespace())
    assert "dns.mdns" in str(caught.value)


# --- on a link --------------------------------------------------------------------------------

OURS, THEIRS, SPACE = (f"ewn{os.getpid()}{end}" for end in "abn")

# What runs in the other namespace: asks as a client of multicast DNS (port 5353) or as plain DNS
# does, and prints each answer with the seconds after which, and from and to where, it came.
CLIENT = f"""
import json, select, socket, struct, sys, time
asked, port, wait_s, repeat, v6 = json.loads(sys.argv[1])
if v6:
    index = socket.if_nametoindex("{THEIRS}")
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    sock.bind(("::", port))
    group = ("ff02::fb", 5353, 0, index)
    member = socket.inet_pton(socket.AF_INET6, "ff02::fb") + struct.pack("@i", index)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
else:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("0.0.0.0", port))
    group = ("224.0.0.251", 5353)
    member = socket.inet_aton("224.0.0.251") + socket.inet_aton("10.98.7.2")
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
began, heard = time.monotonic(), []
for _ in range(repeat):
    sock.sendto(bytes.fromhex(asked), group)
    time.sleep(0.05)
while (left := began + wait_s - time.monotonic()) > 0:
    if select.select([sock], [], [], left)[0]:
        data, (_, source, *_) = sock.recvfrom(9000)
        if data != bytes.fromhex(asked):
            heard.append((data.hex(), source, time.monotonic() - began))
print(json.dumps(heard))
"""


def ip(*arguments: str, check: bool = True) -> None:
    program = shutil.which("ip", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert program, "ip is missing: apt-get install iproute2"
    subprocess.run([program, *arguments], check=check, capture_output=True)


@pytest.fixture(scope="module")
def link() -> Iterator[str]:
    """Lay a wire between this namespace and another; return the name of our end."""
    ip("netns", "add", SPACE)
    try:
        ip("link", "add", OURS, "type", "veth", "peer", "name", THEIRS, "netns", SPACE)
        ip("address", "add", "10.98.7.1/24", "dev", OURS)
        ip("link", "set", OURS, "up")
        inside = ("-n", SPACE)
        ip(*inside, "address", "add", "10.98.7.2/24", "dev", THEIRS)
        ip(*inside, "link", "set", THEIRS, "up")
        ip(*inside, "route", "add", "224.0.0.0/4", "dev", THEIRS)
        time.sleep(2.5)  # until duplicate address detection lets IPv6 be used
        yield OURS
    finally:
        ip("link", "delete", OURS, check=False)
        ip("netns", "delete", SPACE, check=False)


@pytest.fixture
def responder(lab: SimpleNamespace, link: str, summoner: Any) -> Iterator[MdnsResponder]:
    made = MdnsResponder(link, lambda: (), summoner)
    made.set((Route(lab.WEB), Route(lab.SIX, ipv6=True)))
    made.start()
    yield made
    made.close()


def ask(
    asked: bytes, *, port: int = 5353, wait_s: float = 0.7, repeat: int = 1, v6: bool = False
) -> list[tuple[bytes, int, float]]:
    """Ask from the other namespace; return answers, their source ports, and after how long."""
    order = json.dumps([asked.hex(), port, wait_s, repeat, v6])
    command = ["ip", "netns", "exec", SPACE, sys.executable, "-c", CLIENT, order]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [(bytes.fromhex(data), source, after) for data, source, after in json.loads(said)]


@pytest.mark.parametrize("v6", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        (("web.local", A, 1), ["10.0.0.5"]),
        (("WEB.LOCAL", A, 0x8001), ["10.0.0.5"]),
        (("web.local", AAAA, 1), None),
        (("six.local", AAAA, 1), ["fd00::5"]),
        (("six.local", ANY, 255), ["10.0.0.5", "fd00::5"]),
        (("web.local", 16, 1), None),
        (("nobody.local", A, 1), None),
        (("web.edge.test", A, 1), None),
        (("web.local", A, 3), None),
    ],
)
def test_what_is_awake_is_answered(
    *,
    responder: MdnsResponder,
    summoner: Any,
    question: tuple[str, int, int],
    wanted: list[str] | None,
    v6: bool,
) -> None:
    heard = ask(packet(question), v6=v6)
    if wanted is None:
        assert heard == []
        assert summoner.calls == []
        return
    ((data, source, _),) = heard
    record = DNSRecord.parse(data)
    assert source == 5353
    assert (record.header.id, record.questions) == (0, [])
    assert [str(rr.rdata) for rr in record.rr] == wanted
    assert {rr.ttl for rr in record.rr} == {7}
    assert summoner.calls[0][1].address is not None  # who pays for a wake
    assert question[0].lower().removesuffix(".local") in summoner.asked


def test_a_wake_is_answered_once_to_everybody_when_it_is_over(
    lab: SimpleNamespace, responder: MdnsResponder, summoner: Any
) -> None:
    wake = summoner.sleeping("web")
    threading.Timer(1.0, wake.set_result, [(lab.endpoint("web", 9),)]).start()
    heard = ask(packet(("web.local", A, 0x8001)), wait_s=2.5, repeat=4)
    ((data, source, after_s),) = heard
    record = DNSRecord.parse(data)
    assert [(str(rr.rdata), rr.ttl) for rr in record.rr] == [("10.0.0.9", 2)]
    assert (source, len(summoner.calls)) == (5353, 1)
    assert after_s > 0.3
    assert summoner.traces["web"].wake(1).stamps[-1][0] == "reply"


def test_a_wake_that_fails_is_silence_and_the_next_one_is_begun(
    lab: SimpleNamespace, responder: MdnsResponder, summoner: Any
) -> None:
    summoner.sleeping("web").set_exception(NotReady("web", "no"))
    assert ask(packet(("web.local", A, 1))) == []
    del summoner.futures["web"]
    assert len(ask(packet(("web.local", A, 1)))) == 1


def test_what_is_known_or_was_just_said_is_not_repeated(responder: MdnsResponder) -> None:
    record = b"\xc0\x0c" + struct.pack("!HHIH", A, 0x8001, 6, 4) + bytes((10, 0, 0, 5))
    assert ask(packet(("web.local", A, 1), known=record, count=1)) == []
    assert len(ask(packet(("web.local", A, 1)), repeat=5)) == 1
    assert len(ask(packet(("web.local", A, 0x8001)), repeat=5)) == 5  # each wants its own


def test_who_asks_as_in_plain_dns_is_answered_so(responder: MdnsResponder) -> None:
    ((data, _, _),) = ask(packet(("web.local", A, 1)), port=40_053)
    record = DNSRecord.parse(data)
    assert (record.header.id, str(record.q.qname)) == (7, "web.local.")
    assert [(str(rr.rdata), rr.ttl, rr.rclass) for rr in record.rr] == [("10.0.0.5", 7, 1)]


def test_rubbish_does_no_harm(responder: MdnsResponder) -> None:
    for data in (b"\xff", os.urandom(200), packet(("web.local", A, 1))[:-1]):
        assert ask(data, wait_s=0.1) == []
    assert len(ask(packet(("web.local", A, 1)))) == 1
