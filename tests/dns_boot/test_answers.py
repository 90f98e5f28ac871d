"""What replies look like: TTLs, order, hints, failures in words, and sizes."""

from concurrent.futures import CancelledError
from types import SimpleNamespace

import pytest
from dnslib import DNSRecord

from dns_boot import answers
from dns_boot.answers import Answer
from dns_boot.names import Malformed, Query, name_of, parse_query
from dns_boot.zone import Zone
from orchestrator import errors
from orchestrator.model import DnsSettings

A, AAAA, SVCB, HTTPS = 1, 28, 64, 65


def parsed(lab: SimpleNamespace, *args: object, **options: object) -> Query:
    query = parse_query(lab.query(*args, **options))
    assert isinstance(query, Query)
    return query


def packed(query: Query, answer: Answer, limit: int = 1232) -> DNSRecord:
    reply = answers.pack(query, answer, forwarding=False, limit=limit)
    assert len(reply) <= limit
    return DNSRecord.parse(reply)


def test_endpoints_are_given_in_their_order_with_the_shortest_ttl(lab: SimpleNamespace) -> None:
    query = parsed(lab, "web.edge.test", A)
    endpoints = [lab.endpoint("web", 9, ttl_s=30), lab.endpoint("web", 3, ttl_s=5)]
    reply = packed(query, answers.served(query, lab.WEB, endpoints))
    assert [(str(rr.rdata), rr.ttl) for rr in reply.rr] == [("10.0.0.9", 5), ("10.0.0.3", 5)]
    assert reply.header.aa
    assert not reply.header.ra


def test_only_endpoints_with_an_ipv6_address_are_given_for_aaaa(lab: SimpleNamespace) -> None:
    query = parsed(lab, "six.deep.edge.test", AAAA)
    endpoints = [lab.endpoint("six", 1), lab.endpoint("six", 2, ipv6=True)]
    reply = packed(query, answers.served(query, lab.SIX, endpoints))
    assert [str(rr.rdata) for rr in reply.rr] == ["fd00::2"]


@pytest.mark.parametrize("qtype", [HTTPS, SVCB])
def test_a_service_binding_names_protocols_port_and_addresses(
    lab: SimpleNamespace, qtype: int
) -> None:
    query = parsed(lab, "six.deep.edge.test", qtype)
    endpoints = [lab.endpoint("six", 1, ipv6=True), lab.endpoint("six", 2)]
    (record,) = packed(query, answers.served(query, lab.SIX, endpoints)).rr
    assert record.rtype == qtype
    rdata = answers.served(query, lab.SIX, endpoints).answers[0].rdata
    assert str(rdata) == (
        "1 . alpn=h2,http/1.1 port=8443 ipv4hint=10.0.0.1,10.0.0.2 ipv6hint=fd00::1"
    )


def test_the_https_port_itself_is_not_mentioned(lab: SimpleNamespace) -> None:
    query = parsed(lab, "web.edge.test", HTTPS)
    service = lab.service("web", alpn=("h2",))
    answer = answers.served(query, service, [lab.endpoint("web")])
    assert str(answer.answers[0].rdata) == "1 . alpn=h2 ipv4hint=10.0.0.5"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (
            errors.NotReady("web", "guest not ready within 10 s"),
            14,
            "web: guest not ready within 10 s",
        ),
        (errors.GuestDied("web", "guest crashed"), 14, "web: guest crashed"),
        (errors.NoHostReachable("web", "all hosts down"), 23, "web: all hosts down"),
        (errors.NoCapacity("web", "no memory"), 0, "web: no memory"),
        (
            errors.ImageUnusable("web", "image missing"),
            0,
            "web: its image cannot be booted; `edgewake status` says why",
        ),
        (errors.UnknownService("web", "no such service"), 0, "web: no such service"),
        (errors.Overloaded("web", "too many wakes"), 0, "web: too many wakes"),
        (errors.BackingOff("web", "3 failed"), 14, "web: 3 failed"),
        (errors.WakeError("web", "odd"), 0, "web: odd"),
        (CancelledError(), 14, "the wake was given up; ask again"),
        (KeyError("secret"), 0, "internal error; the server's log says more"),
    ],
)
def test_a_failure_is_a_servfail_that_says_why(
    lab: SimpleNamespace, error: BaseException, code: int, words: str
) -> None:
    query = parsed(lab, edns=1232)
    reply = answers.pack(query, answers.failure(error), forwarding=False, limit=512)
    record = DNSRecord.parse(reply)
    assert record.header.rcode == 2
    assert not record.header.aa
    assert not record.rr
    assert not record.auth
    assert lab.ede(reply) == (code, words)


def test_a_client_without_edns_gets_no_opt_record(lab: SimpleNamespace) -> None:
    reply = packed(parsed(lab), answers.failure(errors.NoCapacity("web", "no memory")))
    assert not reply.ar


def test_a_long_reason_is_cut_between_characters(lab: SimpleNamespace) -> None:
    query = parsed(lab, edns=1232)
    answer = answers.failure(errors.NotReady("web", "é" * 500))
    found = lab.ede(answers.pack(query, answer, forwarding=False, limit=512))
    assert found is not None
    assert found[1] == "web: " + "é" * 97  # 5 + 194 bytes; one more would make 201


@pytest.mark.parametrize(
    ("edns", "do"), [(None, False), (512, False), (1232, True), (4096, False), (100, True)]
)
def test_a_reply_that_does_not_fit_is_truncated(
    lab: SimpleNamespace, edns: int | None, do: bool
) -> None:
    query = parsed(lab, edns=edns, do=do)
    endpoints = [lab.endpoint("web", number) for number in range(1, 200)]
    reply = packed(query, answers.served(query, lab.WEB, endpoints), limit=query.udp_limit)
    assert reply.header.tc
    assert not reply.rr
    assert [rr.get_do() for rr in reply.ar] == ([] if edns is None else [int(do)])
    assert len(packed(query, answers.served(query, lab.WEB, endpoints), limit=65_535).rr) == 199


@pytest.mark.parametrize(
    ("edns", "limit"), [(None, 512), (0, 512), (512, 512), (900, 900), (1232, 1232), (65_535, 1232)]
)
def test_the_size_of_a_udp_reply(lab: SimpleNamespace, edns: int | None, limit: int) -> None:
    assert parsed(lab, edns=edns).udp_limit == limit


def test_additional_records_go_before_answers_do(lab: SimpleNamespace) -> None:
    answer = Zone(DnsSettings("edge.test")).find(name_of("edge.test"), 2)
    assert answer is not None
    query = parsed(lab, "edge.test", 2)
    whole = answers.pack(query, answer, forwarding=False, limit=512)
    reply = packed(query, answer, limit=len(whole) - 1)
    assert not reply.header.tc
    assert len(reply.rr) == 1
    assert not reply.ar


@pytest.mark.parametrize(
    ("settings", "nameserver", "mailbox"),
    [
        ({}, "ns.edge.test.", "hostmaster.edge.test."),
        ({"nameserver": "dns.example"}, "dns.example.", "hostmaster.edge.test."),
        ({"hostmaster": "admin@edge.test"}, "ns.edge.test.", "admin.edge.test."),
        ({"hostmaster": "dns.admin.example"}, "ns.edge.test.", "dns.admin.example."),
    ],
)
def test_the_soa_comes_from_the_settings(
    lab: SimpleNamespace, settings: dict[str, str], nameserver: str, mailbox: str
) -> None:
    zone = Zone(DnsSettings("edge.test", negative_ttl_s=9, **settings))  # type: ignore[arg-type]
    (soa,) = packed(parsed(lab, "no.edge.test"), zone.nxdomain).auth
    assert str(soa.rname) == "edge.test."
    assert soa.ttl == 9
    assert soa.rdata.times[4] == 9
    assert (str(soa.rdata.mname), str(soa.rdata.rname)) == (nameserver, mailbox)


@pytest.mark.parametrize(
    ("listen", "qtype", "address"),
    [
        ("192.0.2.53", A, "192.0.2.53"),
        ("2001:db8::53", AAAA, "2001:db8::53"),
        ("192.0.2.53", AAAA, None),
        ("0.0.0.0", A, None),
        ("::", AAAA, None),
        ("localhost", A, None),
    ],
)
def test_the_name_server_has_the_address_we_listen_on_if_that_is_certain(
    lab: SimpleNamespace, listen: str, qtype: int, address: str | None
) -> None:
    zone = Zone(DnsSettings("edge.test", listen=listen))
    found = zone.find(name_of("ns.edge.test"), qtype)
    assert [str(rr.rdata) for rr in found.answers] == [address] if found else address is None
    ns = zone.find(zone.apex, 2)
    assert ns is not None
    glue = [str(rr.rdata) for rr in packed(parsed(lab, "edge.test", 2), ns).ar]
    assert glue == ([] if listen in {"0.0.0.0", "::", "localhost"} else [listen])


def test_a_name_server_elsewhere_gets_no_glue(lab: SimpleNamespace) -> None:
    zone = Zone(DnsSettings("edge.test", listen="192.0.2.53", nameserver="ns.elsewhere.test"))
    assert zone.nameserver == name_of("ns.elsewhere.test")
    ns = zone.find(zone.apex, 2)
    assert ns is not None
    assert not ns.additional


def test_a_zone_that_is_no_name_is_refused() -> None:
    with pytest.raises(errors.EdgewakeError, match="not a DNS name"):
        Zone(DnsSettings("not a zone"))


def test_a_bare_reply_is_a_header_with_the_opcode_it_was_asked_with() -> None:
    reply = answers.bare(Malformed(0xBEEF, 5 << 11 | 0x0110, 4))
    assert reply.hex() == "beef" + f"{0x8000 | 5 << 11 | 0x0110 | 4:04x}" + "00" * 8
