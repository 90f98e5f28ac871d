"""What must go together below ``dns`` in a lab file: the zone's own records, and its name server.

For `orchestrator.lab_checks`. Names are absolute and in lower case here.
"""

from collections import Counter
from collections.abc import Iterator

from orchestrator.lab_report import Report, Where
from orchestrator.lab_schema import DnsEntry
from orchestrator.lab_values import LONGEST_DNS_NAME
from orchestrator.model import Lab, StaticRecord

OURS_AT_SERVICES = frozenset({"A", "AAAA", "CNAME"})


def key_references(entry: DnsEntry) -> Iterator[tuple[Where, str, str]]:
    """Yield where each TSIG key is named, its name, and that it should name a key."""
    for index, name in enumerate(entry.transfer.keys):
        yield ("dns", "transfer", "keys", index), name, "key"
    for index, secondary in enumerate(entry.transfer.notify):
        if secondary.key is not None:
            yield ("dns", "transfer", "notify", index, "key"), secondary.key, "key"


def check_dns(lab: Lab, report: Report) -> None:
    """Report each record that the zone cannot have, and addresses that have no name."""
    zone, dns = lab.dns.zone, lab.dns
    nameserver = dns.nameserver or f"ns.{zone}"
    if dns.nameserver_addresses and not _within(nameserver, zone):
        message = f"has no meaning: {nameserver} is outside of the zone {zone}"
        report.add(("dns", "nameserver_address"), message)
    services = {name: service.name for service in lab.services for name in service.names}
    at_name = Counter(record.name for record in dns.records)
    for index, record in enumerate(dns.records):
        for problem in _problems(record, zone, nameserver, services, at_name):
            report.add(("dns", "records", index), problem)


def _problems(
    record: StaticRecord,
    zone: str,
    nameserver: str,
    services: dict[str, str],
    at_name: Counter[str],
) -> Iterator[str]:
    name = record.name
    if not _within(name, zone):
        yield f"{name} is not in the zone {zone}"
    if len(name) > LONGEST_DNS_NAME:
        yield f"is longer than {LONGEST_DNS_NAME} characters with the zone {zone}"
    if name in services and record.type in OURS_AT_SERVICES:
        yield f"{name} belongs to service {services[name]!r}, which has its own {record.type}"
    if name == nameserver and record.type in OURS_AT_SERVICES:
        yield f"{name} is the name server: its addresses go into 'nameserver_address'"
    if record.type == "NS" and name != zone:
        yield "only the zone itself ('@') may have NS records"
    if record.type == "CNAME":
        if name == zone or at_name[name] > 1:
            yield f"{name} has other records, and so cannot have a CNAME"
        if _within(record.value.removesuffix(".").lower(), zone):
            yield f"leads to a name of {zone} itself: add {name} to the names of that service"


def _within(name: str, zone: str) -> bool:
    return name == zone or name.endswith(f".{zone}")
