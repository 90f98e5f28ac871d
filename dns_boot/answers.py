"""What is said: endpoints or a failure become a reply, byte for byte.

The whole policy of TTLs, response codes and Extended DNS Errors (RFC 8914) is on this page; it is
pure. dnslib encodes the records, which costs some 40 µs a reply: replies that are asked for often
are kept by `dns_boot.packed`. Whether to answer, wake or forward is up to `dns_boot.resolver`.
"""
# mypy: disable-error-code="no-untyped-call"
# dnslib has no annotations; everything that leaves this module does.

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import MappingProxyType

from dnslib import (
    AAAA,
    EDNS0,
    HTTPS,
    NS,
    QTYPE,
    RR,
    SOA,
    A,
    DNSHeader,
    DNSQuestion,
    DNSRecord,
    EDNSOption,
)
from dnslib.label import DNSLabel

from dns_boot.names import (
    AA,
    CD,
    EDNS_UDP_BYTES,
    HEADER_BYTES,
    OPCODE,
    QR,
    RA,
    RD,
    TC,
    Malformed,
    Name,
    Query,
    name_of,
)
from orchestrator.errors import WakeError, WakeReason
from orchestrator.model import DnsSettings, Endpoint, Service

NOERROR, SERVFAIL, NXDOMAIN, REFUSED = 0, 2, 3, 5
BADVERS = 16  # RFC 6891, section 6.1.3; the upper bits go to the OPT record

APEX_TTL_S = 3600  # of SOA and NS records asked for by type; they change with the lab file only
SOA_TIMERS_S = (86_400, 7_200, 3_600_000)  # refresh, retry, expire: RIPE-203; nobody transfers
EDE_TEXT_BYTES = 200  # leaves room for the longest question in 512 bytes
EDE_OPTION = 15  # RFC 8914, section 2
ALPN_KEY, PORT_KEY, IPV4HINT_KEY, IPV6HINT_KEY = 1, 3, 4, 6  # RFC 9460, section 14.3.2
HTTPS_PORT = 443


class Ede(IntEnum):
    """The Extended DNS Errors we give (RFC 8914, section 4)."""

    OTHER = 0
    NOT_READY = 14
    NOT_AUTHORITATIVE = 20
    NOT_SUPPORTED = 21
    NO_REACHABLE_AUTHORITY = 22
    NETWORK_ERROR = 23


EDE_OF_REASON: Mapping[WakeReason, Ede] = MappingProxyType(
    {
        WakeReason.NOT_READY: Ede.NOT_READY,
        WakeReason.GUEST_DIED: Ede.NOT_READY,
        WakeReason.BACKING_OFF: Ede.NOT_READY,
        WakeReason.NO_HOST_REACHABLE: Ede.NETWORK_ERROR,
    }
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What to say, apart from the client's own details: rcode, sections and a reason for failure.

    `ours` is true for what we say with authority over the zone.
    """

    rcode: int = NOERROR
    answers: tuple[RR, ...] = ()
    authority: tuple[RR, ...] = ()
    additional: tuple[RR, ...] = ()
    ours: bool = False
    ede: tuple[Ede, str] | None = None


NOT_OURS = Answer(REFUSED, ede=(Ede.NOT_AUTHORITATIVE, "not in a zone of this server"))
NOT_SUPPORTED = Answer(REFUSED, ede=(Ede.NOT_SUPPORTED, "no such class or query type here"))
NO_FORWARDER = Answer(
    SERVFAIL, ede=(Ede.NO_REACHABLE_AUTHORITY, "no resolver that queries are forwarded to answered")
)
BAD_VERSION = Answer(BADVERS)


class Zone:
    """The records that make our zone a zone: SOA, NS and the name server's own address."""

    def __init__(self, settings: DnsSettings) -> None:
        self.apex = name_of(settings.zone)
        self.nameserver = name_of(settings.nameserver or f"ns.{settings.zone}")
        self._soa = SOA(
            DNSLabel(self.nameserver),
            DNSLabel(_mailbox(settings.hostmaster or f"hostmaster.{settings.zone}")),
            # The serial only has to grow from one start to the next: nobody transfers the zone.
            (int(time.time()), *SOA_TIMERS_S, settings.negative_ttl_s),
        )
        negative = (self._record(self.apex, QTYPE.SOA, settings.negative_ttl_s, self._soa),)
        self.nodata = Answer(NOERROR, authority=negative, ours=True)
        self.nxdomain = Answer(NXDOMAIN, authority=negative, ours=True)
        self._listen = _certain(settings.listen)

    def apex_records(self, qtype: int) -> Answer:
        """Return the answer to a question for the zone's own SOA or NS record."""
        if qtype == QTYPE.SOA:
            soa = self._record(self.apex, QTYPE.SOA, APEX_TTL_S, self._soa)
            return Answer(answers=(soa,), ours=True)
        ns = self._record(self.apex, QTYPE.NS, APEX_TTL_S, NS(DNSLabel(self.nameserver)))
        in_zone = self.nameserver[-len(self.apex) :] == self.apex
        glue = self._addresses(QTYPE.A) + self._addresses(QTYPE.AAAA) if in_zone else ()
        return Answer(answers=(ns,), additional=glue, ours=True)

    def nameserver_address(self, qtype: int) -> Answer:
        """Return the answer to a question for the name server's own name."""
        records = self._addresses(qtype)
        return Answer(answers=records, ours=True) if records else self.nodata

    def _addresses(self, qtype: int) -> tuple[RR, ...]:
        if self._listen is None or qtype != _address_type(self._listen):
            return ()
        return (self._record(self.nameserver, qtype, APEX_TTL_S, _address(self._listen)),)

    def _record(self, owner: Name, rtype: int, ttl_s: int, rdata: object) -> RR:
        return RR(DNSLabel(owner), rtype, ttl=ttl_s, rdata=rdata)


def _certain(listen: str) -> IPv4Address | IPv6Address | None:
    """Return the address we listen on if it is one that clients can use; any other is a guess."""
    try:
        address = ip_address(listen)
    except ValueError:
        return None
    return None if address.is_unspecified else address


def _mailbox(hostmaster: str) -> Name:
    """Return an address such as ``admin@edge.example`` the way a SOA wants it."""
    local, at, domain = hostmaster.partition("@")
    return (local.encode(), *name_of(domain)) if at else name_of(hostmaster)


def _address_type(address: IPv4Address | IPv6Address) -> int:
    return int(QTYPE.A if address.version == 4 else QTYPE.AAAA)


def _address(address: IPv4Address | IPv6Address) -> A | AAAA:
    return A(str(address)) if address.version == 4 else AAAA(str(address))


def served(query: Query, service: Service, endpoints: Sequence[Endpoint]) -> Answer:
    """Return the answer that gives these endpoints, in this order, for A, AAAA, HTTPS or SVCB.

    The TTL is the shortest of the endpoints' own: all records of a set have one (RFC 2181, 5.2).
    """
    ttl_s = min(endpoint.ttl_s for endpoint in endpoints)
    rdatas: list[A | AAAA | HTTPS]
    if query.qtype == QTYPE.A:
        rdatas = [_address(endpoint.address) for endpoint in endpoints]
    elif query.qtype == QTYPE.AAAA:
        rdatas = [_address(endpoint.address6) for endpoint in endpoints if endpoint.address6]
    else:
        rdatas = [_binding(service, endpoints)]
    owner = DNSLabel(query.name)
    records = tuple(RR(owner, query.qtype, ttl=ttl_s, rdata=rdata) for rdata in rdatas)
    return Answer(answers=records, ours=True)


def _binding(service: Service, endpoints: Sequence[Endpoint]) -> HTTPS:
    """Return the service binding (RFC 9460): the name itself, its protocols, port and addresses."""
    tcp = [port.number for port in service.ports if port.protocol == "tcp"]
    ipv4 = b"".join(endpoint.address.packed for endpoint in endpoints)
    ipv6 = b"".join(endpoint.address6.packed for endpoint in endpoints if endpoint.address6)
    alpn = b"".join(bytes((len(name),)) + name.encode() for name in service.alpn)
    params = [(ALPN_KEY, alpn)]
    if tcp and HTTPS_PORT not in tcp:
        params.append((PORT_KEY, tcp[0].to_bytes(2, "big")))
    params.append((IPV4HINT_KEY, ipv4))
    if ipv6:
        params.append((IPV6HINT_KEY, ipv6))
    return HTTPS(1, [], params)


def failure(error: BaseException) -> Answer:
    """Return the SERVFAIL that says why a service could not be woken.

    What is not a `WakeError` is a defect of ours; its text is for the log, not for the client. Nor
    is what is wrong with an image: that speaks of files and hosts, and is long.
    """
    if isinstance(error, WakeError):
        code = EDE_OF_REASON.get(error.reason, Ede.OTHER)
        text = error.message
        if error.reason is WakeReason.IMAGE_UNUSABLE:
            text = f"{error.service}: its image cannot be booted; `edgewake status` says why"
        return Answer(SERVFAIL, ede=(code, text))
    if isinstance(error, CancelledError):
        return Answer(SERVFAIL, ede=(Ede.NOT_READY, "the wake was given up; ask again"))
    return Answer(SERVFAIL, ede=(Ede.OTHER, "internal error; the server's log says more"))


def late(service: Service) -> Answer:
    """Return the SERVFAIL for a wake that did not end, either way, when it had to."""
    text = f"{service.name}: no answer within its deadline of {service.deadline_s:g} s"
    return Answer(SERVFAIL, ede=(Ede.NOT_READY, text))


def pack(query: Query, answer: Answer, *, forwarding: bool, limit: int) -> bytes:
    """Return the reply in at most `limit` bytes, without records and with TC if need be."""
    reply = _pack(query, answer, forwarding=forwarding)
    if len(reply) > limit and answer.additional:
        reply = _pack(query, replace(answer, additional=()), forwarding=forwarding)
    if len(reply) > limit:
        empty = replace(answer, answers=(), authority=(), additional=(), ede=None)
        reply = _pack(query, empty, forwarding=forwarding, flags=TC)
    return reply


def _pack(query: Query, answer: Answer, *, forwarding: bool, flags: int = 0) -> bytes:
    flags |= QR | query.flags & (RD | CD) | answer.rcode & 0xF
    flags |= AA if answer.ours else 0
    flags |= RA if forwarding else 0
    additional = [*answer.additional, *([_opt(query, answer)] if query.edns else [])]
    record = DNSRecord(
        DNSHeader(id=query.id, bitmap=flags),
        questions=[DNSQuestion(DNSLabel(query.name), query.qtype, query.qclass)],
        rr=answer.answers,
        auth=answer.authority,
        ar=additional,
    )
    packed = bytes(record.pack())
    # Encoded in lower case, because dnslib compresses only names of the same case; what the client
    # sees is its own question, letter for letter, and owner names point into it.
    end = HEADER_BYTES + len(query.question)
    return packed[:HEADER_BYTES] + query.question + packed[end:]


def _opt(query: Query, answer: Answer) -> EDNS0:
    options = []
    if answer.ede is not None:
        code, text = answer.ede
        data = int(code).to_bytes(2, "big") + _cut(text, EDE_TEXT_BYTES)
        options.append(EDNSOption(EDE_OPTION, data))
    return EDNS0(
        ext_rcode=answer.rcode >> 4,
        flags="do" if query.edns and query.edns.do else "",
        udp_len=EDNS_UDP_BYTES,
        opts=options,
    )


def _cut(text: str, size: int) -> bytes:
    """Return the longest beginning of a text that is `size` bytes of whole UTF-8 characters."""
    return text.encode(errors="replace")[:size].decode(errors="ignore").encode()


def bare(malformed: Malformed) -> bytes:
    """Return the reply to a packet that could not be read: a header and nothing else."""
    flags = QR | malformed.flags & (OPCODE | RD | CD) | malformed.rcode
    return malformed.id.to_bytes(2, "big") + flags.to_bytes(2, "big") + bytes(8)


def truncated(query: Query) -> bytes:
    """Return the reply that makes a client ask again over TCP."""
    return _pack(query, Answer(), forwarding=True, flags=TC)
