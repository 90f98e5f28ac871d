"""What is said: endpoints or a failure become a reply, byte for byte.

The whole policy of TTLs, response codes and Extended DNS Errors (RFC 8914) is on this page; it is
pure. dnslib encodes the records, which costs some 40 µs a reply: replies that are asked for often
are kept by `dns_boot.packed`. Whether to answer, wake or forward is up to `dns_boot.resolver`.
"""
# mypy: disable-error-code="no-untyped-call"
# dnslib has no annotations; everything that leaves this module does.

from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType

from dnslib import (
    AAAA,
    EDNS0,
    HTTPS,
    QTYPE,
    RR,
    A,
    DNSHeader,
    DNSQuestion,
    DNSRecord,
    EDNSOption,
)
from dnslib.label import DNSLabel

from dns_boot import cookies
from dns_boot.names import (
    AA,
    CD,
    EDNS_UDP_BYTES,
    HEADER_BYTES,
    OPCODE,
    OPT_BYTES,
    QR,
    RA,
    RD,
    SUBNET_OPTION,
    TC,
    Malformed,
    Query,
    opt_of,
)
from dns_boot.subnet import ClientSubnet
from orchestrator.errors import WakeError, WakeReason
from orchestrator.model import Endpoint, Service

NOERROR, SERVFAIL, NXDOMAIN, REFUSED, NOTAUTH = 0, 2, 3, 5, 9
BADVERS = 16  # RFC 6891, section 6.1.3; the upper bits go to the OPT record
BADCOOKIE = 23  # RFC 7873, section 8

EDE_TEXT_BYTES = 200  # leaves room for the longest question in 512 bytes
EDE_OPTION = 15  # RFC 8914, section 2
_COOKIE_HEAD = bytes((0, cookies.OPTION, 0, cookies.FULL_BYTES))
ALPN_KEY, PORT_KEY, IPV4HINT_KEY, IPV6HINT_KEY = 1, 3, 4, 6  # RFC 9460, section 14.3.2
HTTPS_PORT = 443


class Ede(IntEnum):
    """The Extended DNS Errors we give (RFC 8914, section 4)."""

    OTHER = 0
    NOT_READY = 14
    PROHIBITED = 18
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

    `ours` is true for what we say with authority over the zone. `scope` is how many bits of the
    client's address it depends on; 0 if everybody gets the same.
    """

    rcode: int = NOERROR
    answers: tuple[RR, ...] = ()
    authority: tuple[RR, ...] = ()
    additional: tuple[RR, ...] = ()
    ours: bool = False
    ede: tuple[Ede, str] | None = None
    scope: int = 0


NOT_OURS = Answer(REFUSED, ede=(Ede.NOT_AUTHORITATIVE, "not in a zone of this server"))
NOT_SUPPORTED = Answer(REFUSED, ede=(Ede.NOT_SUPPORTED, "no such class or query type here"))
PROHIBITED = Answer(REFUSED, ede=(Ede.PROHIBITED, "the zone is copied to known servers only"))
BADLY_SIGNED = Answer(NOTAUTH)
TOO_LARGE = Answer(SERVFAIL, ede=(Ede.OTHER, "the zone's static part is more than one message"))
NO_FORWARDER = Answer(
    SERVFAIL, ede=(Ede.NO_REACHABLE_AUTHORITY, "no resolver that queries are forwarded to answered")
)
BAD_VERSION = Answer(BADVERS)
BAD_COOKIE = Answer(BADCOOKIE)


def address_rdata(address: IPv4Address | IPv6Address) -> A | AAAA:
    """Return the data of an address record."""
    return A(str(address)) if address.version == 4 else AAAA(str(address))


def served(
    query: Query, service: Service, endpoints: Sequence[Endpoint], *, waited: bool = False
) -> Answer:
    """Return the answer that gives these endpoints, in this order, for A, AAAA, HTTPS or SVCB.

    The TTL is the shortest of the endpoints' own: all records of a set have one (RFC 2181, 5.2).
    An answer that `waited` for a wake is short-lived: it names the first copy that answered, soon
    there may be more and nearer ones, and what has just booted dies more often than what has stood.
    """
    ttl_s = min(endpoint.ttl_s for endpoint in endpoints)
    if waited:
        ttl_s = min(ttl_s, service.ttl_waking_s)
    rdatas: list[A | AAAA | HTTPS]
    if query.qtype == QTYPE.A:
        rdatas = [address_rdata(endpoint.address) for endpoint in endpoints]
    elif query.qtype == QTYPE.AAAA:
        rdatas = [address_rdata(endpoint.address6) for endpoint in endpoints if endpoint.address6]
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


def pack(
    query: Query,
    answer: Answer,
    *,
    forwarding: bool,
    limit: int,
    subnet: ClientSubnet | None = None,
) -> bytes:
    """Return the reply in at most `limit` bytes, without records and with TC if need be.

    `subnet` is the client subnet of the query, if it is believed: it comes back with the scope.
    """
    flags = RA if forwarding else 0
    reply = _pack(query, answer, subnet, flags)
    if len(reply) > limit and answer.additional:
        reply = _pack(query, replace(answer, additional=()), subnet, flags)
    if len(reply) > limit:
        empty = replace(answer, answers=(), authority=(), additional=(), ede=None)
        reply = _pack(query, empty, subnet, flags | TC)
    return reply


def _pack(query: Query, answer: Answer, subnet: ClientSubnet | None, flags: int) -> bytes:
    flags |= QR | query.flags & (RD | CD) | answer.rcode & 0xF
    flags |= AA if answer.ours else 0
    opts = [_opt(query, answer, subnet)] if query.edns else []
    additional = [*answer.additional, *opts]
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


def _opt(query: Query, answer: Answer, subnet: ClientSubnet | None) -> EDNS0:
    options = []
    if answer.ede is not None:
        code, text = answer.ede
        data = int(code).to_bytes(2, "big") + _cut(text, EDE_TEXT_BYTES)
        options.append(EDNSOption(EDE_OPTION, data))
    if query.edns and query.edns.cookie:
        options.append(EDNSOption(cookies.OPTION, query.edns.cookie))
    if subnet is not None:
        options.append(EDNSOption(SUBNET_OPTION, subnet.option(answer.scope)))
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


def with_cookie(query: Query, reply: bytes) -> bytes:
    """Return a reply of another server with the cookie that one of ours would carry."""
    if query.edns is None or not query.edns.cookie:
        return reply
    span = opt_of(reply)
    if span is None:
        return reply
    start, end = span
    options = reply[start + OPT_BYTES : end] + _COOKIE_HEAD + query.edns.cookie
    length = len(options).to_bytes(2, "big")
    return reply[: start + OPT_BYTES - 2] + length + options + reply[end:]


def truncated(query: Query) -> bytes:
    """Return the reply that makes a client ask again over TCP."""
    return _pack(query, Answer(), None, RA | TC)
