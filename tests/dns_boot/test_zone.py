"""The static part: what the lab file lists, and what a copy of it says of services."""

from ipaddress import ip_address

import pytest
from dnslib import QTYPE

from dns_boot.answers import NXDOMAIN
from dns_boot.names import name_of
from dns_boot.serial import Serials
from dns_boot.zone import Zone
from orchestrator.model import DnsSettings, StaticRecord

RECORDS = (
    StaticRecord("edge.test", "MX", "10 mail.example.org.", 600),
    StaticRecord("edge.test", "NS", "ns2.example.org"),
    StaticRecord("text.edge.test", "TXT", "ä" * 200, 60),
    StaticRecord("alias.edge.test", "CNAME", "www.example.org."),
    StaticRecord("two.edge.test", "A", "192.0.2.1", 60),
    StaticRecord("two.edge.test", "A", "192.0.2.2", 30),
    StaticRecord("two.edge.test", "AAAA", "2001:db8::1"),
    StaticRecord("_acme.web.edge.test", "TXT", "secret"),
)
SETTINGS = DnsSettings("edge.test", listen="192.0.2.53", records=RECORDS)


def said(zone: Zone, name: str, qtype: str) -> list[tuple[int, str]]:
    answer = zone.find(name_of(name), getattr(QTYPE, qtype))
    return [(rr.ttl, str(rr.rdata)) for rr in answer.answers] if answer else []


@pytest.mark.parametrize(
    ("name", "qtype", "wanted"),
    [
        ("edge.test", "MX", [(600, "10 mail.example.org.")]),
        ("edge.test", "NS", [(3600, "ns.edge.test."), (3600, "ns2.example.org.")]),
        ("alias.edge.test", "CNAME", [(3600, "www.example.org.")]),
        ("alias.edge.test", "A", [(3600, "www.example.org.")]),
        ("two.edge.test", "A", [(30, "192.0.2.1"), (30, "192.0.2.2")]),
        ("two.edge.test", "AAAA", [(3600, "2001:db8::1")]),
        ("two.edge.test", "MX", []),
        ("_acme.web.edge.test", "TXT", [(3600, '"secret"')]),
        ("ns.edge.test", "A", [(3600, "192.0.2.53")]),
        ("web.edge.test", "A", []),
    ],
)
def test_what_the_lab_file_lists_is_said(
    name: str, qtype: str, wanted: list[tuple[int, str]]
) -> None:
    assert said(Zone(SETTINGS), name, qtype) == wanted


def test_a_long_text_is_cut_into_strings() -> None:
    answer = Zone(SETTINGS).find(name_of("text.edge.test"), QTYPE.TXT)
    assert answer
    parts = answer.answers[0].rdata.data
    assert [len(part) for part in parts] == [255, 145]
    assert b"".join(parts).decode() == "ä" * 200


def test_a_name_server_may_have_any_addresses() -> None:
    addresses = (ip_address("198.51.100.1"), ip_address("2001:db8::53"))
    zone = Zone(DnsSettings("edge.test", listen="0.0.0.0", nameserver_addresses=addresses))
    assert said(zone, "ns.edge.test", "A") == [(3600, "198.51.100.1")]
    assert said(zone, "ns.edge.test", "AAAA") == [(3600, "2001:db8::53")]
    glue = zone.find(zone.apex, QTYPE.NS)
    assert glue
    assert [str(rr.rdata) for rr in glue.additional] == [str(each) for each in addresses]


def copy_of(zone: Zone) -> list[str]:
    return [f"{rr.rname} {QTYPE[rr.rtype]} {rr.rdata}" for rr in zone.transfer().answers]


def test_a_copy_delegates_the_names_of_services_and_has_nothing_below_them() -> None:
    services = ["web.edge.test", "a.web.edge.test", "six.deep.edge.test", "edge.test"]
    zone = Zone(SETTINGS, [name_of(name) for name in services])
    first, *rest, last = copy_of(zone)
    assert first == last
    assert first.startswith("edge.test. SOA ns.edge.test. hostmaster.edge.test.")
    assert [line for line in rest if " NS ns.edge" in line] == [
        "edge.test. NS ns.edge.test.",
        "six.deep.edge.test. NS ns.edge.test.",
        "web.edge.test. NS ns.edge.test.",
    ]
    assert "ns.edge.test. A 192.0.2.53" in rest
    assert not [line for line in rest if line.startswith("_acme")]
    assert len([line for line in rest if line.startswith("two")]) == 3


def test_the_address_of_our_name_server_is_in_the_copy_even_below_a_delegation() -> None:
    settings = DnsSettings("edge.test", listen="192.0.2.53", nameserver="ns.web.edge.test")
    lines = copy_of(Zone(settings, [name_of("web.edge.test")]))
    assert "ns.web.edge.test. A 192.0.2.53" in lines


def test_the_serial_grows_with_what_is_copied_and_with_nothing_else() -> None:
    serials = Serials()
    web = name_of("web.edge.test")

    def serial(settings: DnsSettings, *services: tuple[bytes, ...]) -> int:
        return Zone(settings, services, serials.of).serial

    first = serial(SETTINGS, web)
    assert serial(SETTINGS, web) == first
    assert serial(DnsSettings("edge.test", listen="192.0.2.53", records=RECORDS, port=99), web) == (
        first
    )
    assert serial(SETTINGS, web, name_of("a.web.edge.test")) == first  # it is below web
    changed = [
        serial(SETTINGS, web, name_of("new.edge.test")),
        serial(DnsSettings("edge.test", listen="192.0.2.54", records=RECORDS), web),
        serial(DnsSettings("edge.test", listen="192.0.2.54", records=RECORDS[1:]), web),
        serial(DnsSettings("edge.test", listen="192.0.2.54", negative_ttl_s=7), web),
        serial(SETTINGS, web),
    ]
    assert changed == sorted({first, *changed} - {first})
    zone = Zone(SETTINGS, [web], serials.of)
    assert zone.nxdomain.rcode == NXDOMAIN
    assert zone.nxdomain.authority[0].rdata.times[0] == zone.serial == changed[-1]
