"""Names: what is one, how it stands in a packet, and which of them exist in a zone."""

import logging
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dns_boot.names import FormatError, NameTable, name_of, read_name, wire
from orchestrator.errors import EdgewakeError
from orchestrator.steering.base import Route


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("web.edge.test", (b"web", b"edge", b"test")),
        ("WEB.Edge.Test.", (b"web", b"edge", b"test")),
        ("_mqtt.edge.test", (b"_mqtt", b"edge", b"test")),
        ("xn--bcher-kva.test", (b"xn--bcher-kva", b"test")),
        ("a" * 63 + ".test", (b"a" * 63, b"test")),
    ],
)
def test_a_text_becomes_a_lower_case_name(text: str, name: tuple[bytes, ...]) -> None:
    assert name_of(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a..b",
        ".a",
        "-a.test",
        "a-.test",
        "a b.test",
        "bücher.test",
        "a" * 64 + ".test",
        ".".join(["a" * 49] * 6),
    ],
)
def test_a_text_that_is_no_host_name_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(EdgewakeError, match="not a DNS name") as caught:
        name_of(text)
    assert "labels" in caught.value.hint


@given(st.lists(st.binary(min_size=1, max_size=63), max_size=3))
def test_a_name_is_read_as_it_was_written(labels: list[bytes]) -> None:
    packet = b"before" + wire(tuple(labels)) + b"after"
    assert read_name(packet, 6) == (tuple(labels), len(packet) - 5)


@given(st.binary(max_size=300))
def test_reading_a_name_ends_within_the_packet_or_fails(packet: bytes) -> None:
    try:
        labels, end = read_name(packet, 0)
    except FormatError:
        return
    assert end <= min(len(packet), 255)
    assert wire(labels) == packet[:end]


def test_a_zone_covers_whole_labels_only() -> None:
    table = NameTable((b"edge", b"test"), ())
    assert table.covers((b"edge", b"test"))
    assert table.covers((b"a", b"b", b"edge", b"test"))
    assert not table.covers((b"test",))
    assert not table.covers((b"notedge", b"test"))
    assert not table.covers((b"web.edge", b"test"))
    assert not table.covers(())


def test_what_is_above_a_name_exists_and_what_is_below_does_not(lab: SimpleNamespace) -> None:
    table = NameTable((b"edge", b"test"), lab.routes)
    for text in ("edge.test", "deep.edge.test", "six.deep.edge.test", "www.edge.test"):
        assert table.exists(name_of(text)), text
        assert wire(name_of(text)) in table.wires
    for text in ("test", "a.web.edge.test", "other.deep.edge.test"):
        assert not table.exists(name_of(text)), text


def test_several_names_lead_to_one_route(lab: SimpleNamespace) -> None:
    table = NameTable((b"edge", b"test"), lab.routes)
    assert table.route(name_of("web.edge.test")) is table.route(name_of("www.edge.test"))
    assert table.route_of("web") == Route(lab.WEB)
    assert table.route(name_of("deep.edge.test")) is None
    assert table.route_of("nobody") is None


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("a.other.test",), "outside of our zone"),
        (("not a name",), "not a DNS name"),
        (("web.edge.test",), "belongs to another"),
    ],
)
def test_a_name_that_cannot_be_answered_is_logged_and_left_out(
    lab: SimpleNamespace, caplog: pytest.LogCaptureFixture, names: tuple[str, ...], words: str
) -> None:
    odd = lab.service("odd", names=(*names, "odd.edge.test"))
    with caplog.at_level(logging.WARNING):
        table = NameTable((b"edge", b"test"), (*lab.routes, Route(odd)))
    assert words in caplog.text
    assert table.route(name_of("odd.edge.test")) == Route(odd)
    assert table.route(name_of("web.edge.test")) == Route(lab.WEB)
