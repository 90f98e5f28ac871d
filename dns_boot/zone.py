"""What of the zone has nothing to do with wakes: SOA, NS, the name server, records of the lab file.

For `dns_boot.resolver`. This is also what secondaries copy. They cannot wake anybody, so that copy
has no address of a service; but it delegates every name of a service to our own name server, so
that whoever asks a secondary for one is sent to us, and never hears that there is no such name.
"""
# mypy: disable-error-code="no-untyped-call"
# dnslib has no annotations; everything that leaves this module does.

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from dnslib import AAAA, CNAME, MX, NS, QTYPE, RR, SOA, TXT, A
from dnslib.label import DNSLabel

from dns_boot.answers import NXDOMAIN, Answer, address_rdata
from dns_boot.names import Name, name_of
from orchestrator.model import DnsSettings, StaticRecord

APEX_TTL_S = 3600  # of SOA and NS records asked for by type; they change with the lab file only
SOA_TIMERS_S = (86_400, 7_200, 3_600_000)  # refresh, retry, expire: RIPE-203
TXT_PART_BYTES = 255  # RFC 1035, section 3.3.14: a text is strings of at most this

Found = dict[tuple[Name, int], tuple[RR, ...]]


class Zone:
    """The static part of the zone. Never changed once made.

    `services` are the names of services; `serial_of` gives a content its serial. Raises
    EdgewakeError if the zone's own names are no DNS names.
    """

    def __init__(
        self,
        settings: DnsSettings,
        services: Collection[Name] = (),
        serial_of: Callable[[str], int] = lambda _content: 1,
    ) -> None:
        self._settings = settings
        self.apex = name_of(settings.zone)
        self.nameserver = name_of(settings.nameserver or f"ns.{settings.zone}")
        self._records = self._found()
        self._cuts = frozenset(_topmost(set(services) - {self.apex}))
        content = "\n".join(str(rr) for rr in (self._soa(0), *self._copied()))
        self.serial = serial_of(hashlib.sha256(content.encode()).hexdigest())
        soa = self._soa(self.serial)
        self._records[self.apex, QTYPE.SOA] = (soa,)
        negative = (_with_ttl(soa, settings.negative_ttl_s),)
        self.nodata = Answer(authority=negative, ours=True)
        self.nxdomain = Answer(NXDOMAIN, authority=negative, ours=True)

    @property
    def names(self) -> frozenset[Name]:
        """The names that exist although no service has them."""
        return frozenset({self.nameserver, *(name for name, _ in self._records)})

    def find(self, name: Name, qtype: int) -> Answer | None:
        """Return the answer to a question that static records answer, or None."""
        records = self._records.get((name, qtype)) or self._records.get((name, QTYPE.CNAME))
        if not records:
            return None
        glue = self._addresses() if (name, qtype) == (self.apex, QTYPE.NS) else ()
        return Answer(answers=records, additional=glue, ours=True)

    def transfer(self) -> Answer:
        """Return the copy for a secondary: from SOA to SOA (RFC 5936, section 2.2)."""
        soa = self._records[self.apex, QTYPE.SOA]
        return Answer(answers=(*soa, *self._copied(), *soa), ours=True)

    def _copied(self) -> Iterator[RR]:
        """Yield what a copy has beside SOA; what is below a delegation is answered by us alone."""
        for (name, qtype), records in self._records.items():
            if qtype != QTYPE.SOA and (name == self.nameserver or not self._is_cut(name)):
                yield from records
        for cut in sorted(self._cuts):
            yield self._record(cut, QTYPE.NS, APEX_TTL_S, NS(DNSLabel(self.nameserver)))

    def _is_cut(self, name: Name) -> bool:
        return any(name[depth:] in self._cuts for depth in range(len(name)))

    def _found(self) -> Found:
        found: defaultdict[tuple[Name, int], list[RR]] = defaultdict(list)
        nameserver = self._record(self.apex, QTYPE.NS, APEX_TTL_S, NS(DNSLabel(self.nameserver)))
        found[self.apex, QTYPE.NS].append(nameserver)
        for rr in self._addresses():
            found[self.nameserver, rr.rtype].append(rr)
        for record in self._settings.records:
            rtype, rdata = _rdata(record)
            rr = self._record(name_of(record.name), rtype, record.ttl_s, rdata)
            found[name_of(record.name), rtype].append(rr)
        return {key: _alike(records) for key, records in found.items()}

    def _addresses(self) -> tuple[RR, ...]:
        """Return the addresses of the name server, if it is in the zone and they are known."""
        if self.nameserver[-len(self.apex) :] != self.apex:
            return ()
        return tuple(
            self._record(
                self.nameserver,
                QTYPE.A if address.version == 4 else QTYPE.AAAA,
                APEX_TTL_S,
                address_rdata(address),
            )
            for address in self._settings.nameserver_addresses or _certain(self._settings.listen)
        )

    def _soa(self, serial: int) -> RR:
        settings = self._settings
        soa = SOA(
            DNSLabel(self.nameserver),
            DNSLabel(_mailbox(settings.hostmaster or f"hostmaster.{settings.zone}")),
            (serial, *SOA_TIMERS_S, settings.negative_ttl_s),
        )
        return self._record(self.apex, QTYPE.SOA, APEX_TTL_S, soa)

    def _record(self, owner: Name, rtype: int, ttl_s: int, rdata: object) -> RR:
        return RR(DNSLabel(owner), rtype, ttl=ttl_s, rdata=rdata)


def _topmost(names: set[Name]) -> set[Name]:
    """Return the names that are below none of the others."""
    return {
        name for name in names if not any(name[depth:] in names for depth in range(1, len(name)))
    }


def _alike(records: list[RR]) -> tuple[RR, ...]:
    """Return a record set with one TTL, the shortest (RFC 2181, section 5.2)."""
    ttl_s = min(rr.ttl for rr in records)
    return tuple(_with_ttl(rr, ttl_s) for rr in records)


def _with_ttl(rr: RR, ttl_s: int) -> RR:
    return RR(rr.rname, rr.rtype, ttl=ttl_s, rdata=rr.rdata)


def _rdata(record: StaticRecord) -> tuple[int, object]:
    """Return the type and the data of a record; the lab file has been checked."""
    value = record.value
    match record.type:
        case "A":
            return QTYPE.A, A(value)
        case "AAAA":
            return QTYPE.AAAA, AAAA(value)
        case "CNAME":
            return QTYPE.CNAME, CNAME(DNSLabel(name_of(value)))
        case "MX":
            preference, _, exchange = value.partition(" ")
            return QTYPE.MX, MX(DNSLabel(name_of(exchange.strip())), int(preference))
        case "NS":
            return QTYPE.NS, NS(DNSLabel(name_of(value)))
        case _:
            text = value.encode()
            parts = range(0, len(text), TXT_PART_BYTES)
            return QTYPE.TXT, TXT([text[at : at + TXT_PART_BYTES] for at in parts])


def _certain(listen: str) -> tuple[IPv4Address | IPv6Address, ...]:
    """Return the address we listen on if it is one that clients can use; any other is a guess."""
    try:
        address = ip_address(listen)
    except ValueError:
        return ()
    return () if address.is_unspecified else (address,)


def _mailbox(hostmaster: str) -> Name:
    """Return an address such as ``admin@edge.example`` the way a SOA wants it."""
    local, at, domain = hostmaster.partition("@")
    return (local.encode(), *name_of(domain)) if at else name_of(hostmaster)
