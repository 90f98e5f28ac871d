"""One DNS question to one server, for the demo, the examples and the tests.

Not a resolver: no cache, no retry, no recursion of its own. What people would use `dig` for.
"""

# dnslib has no annotations; everything that leaves this module does.
# mypy: disable-error-code="no-untyped-call"

import secrets
import socket
import time
from dataclasses import dataclass

from dnslib import EDNS0, QTYPE, RCODE, DNSError, DNSQuestion, DNSRecord

from orchestrator.errors import EdgewakeError

EDE_OPTION = 15  # RFC 8914


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: `addresses` of the answer, and `text` of an Extended DNS Error if any."""

    name: str
    rcode: str
    addresses: tuple[str, ...]
    ttl_s: int
    seconds: float
    text: str = ""


def ask(server: tuple[str, int], name: str, qtype: str = "A", *, timeout_s: float = 5.0) -> Reply:
    """Send one question over UDP and return the answer; EdgewakeError if none comes in time."""
    question = DNSRecord(q=DNSQuestion(name, getattr(QTYPE, qtype)))
    question.header.id = secrets.randbits(16)
    question.add_ar(EDNS0(udp_len=1232))
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    began = time.monotonic()
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout_s)
        sock.connect(server)
        sock.send(question.pack())
        try:
            while (reply := DNSRecord.parse(sock.recv(65535))).header.id != question.header.id:
                pass
        except TimeoutError:
            raise EdgewakeError(f"{name}: no answer from {server[0]}:{server[1]}") from None
        except (OSError, DNSError) as error:
            raise EdgewakeError(f"{name}: {server[0]}:{server[1]}: {error}") from error
    return _reply(name, reply, time.monotonic() - began)


def _reply(name: str, record: DNSRecord, seconds: float) -> Reply:
    answers = [rr for rr in record.rr if rr.rtype in {QTYPE.A, QTYPE.AAAA}]
    errors = [
        option.data[2:].decode(errors="replace")
        for extra in record.ar
        if extra.rtype == QTYPE.OPT
        for option in extra.rdata
        if option.code == EDE_OPTION
    ]
    return Reply(
        name=name,
        rcode=RCODE[record.header.rcode],
        addresses=tuple(str(rr.rdata) for rr in answers),
        ttl_s=min((rr.ttl for rr in answers), default=0),
        seconds=seconds,
        text="; ".join(errors),
    )
