"""Engines are chosen by what they do, refused in clear words, and tell what tc would."""

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from pyroute2 import IPRoute

from orchestrator.errors import CannotNetwork
from orchestrator.linux import namespaces, taps
from orchestrator.network import LinkEngine, Quality
from orchestrator.routers import shaping
from orchestrator.routers.shaping import (
    Netem,
    choose,
    netem_message,
    probe,
    qdiscs,
    shape,
    tc_lines,
)

NONE, SHAPER, NETEM, USER = LinkEngine
ALL = dict.fromkeys(LinkEngine, "")
NO_NETEM = {**ALL, NETEM: "there is none"}
SLOW, NARROW = Quality(latency_ms=6), Quality(bandwidth_mbps=20)
LOOPBACK = 1


# --- choosing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quality", "engines", "chosen"),
    [
        (Quality(), ALL, NONE),
        (NARROW, ALL, SHAPER),
        (SLOW, ALL, NETEM),
        (SLOW, NO_NETEM, USER),
        (Quality(jitter_ms=1), NO_NETEM, USER),
        (Quality(loss=0.1, bandwidth_mbps=1), ALL, NETEM),
        (NARROW, {**NO_NETEM, SHAPER: "there is none"}, USER),
    ],
)
def test_the_cheapest_engine_that_does_it_is_chosen(
    quality: Quality, engines: dict[LinkEngine, str], chosen: LinkEngine
) -> None:
    assert choose(quality, None, engines) is chosen


@pytest.mark.parametrize("forced", LinkEngine)
def test_a_perfect_link_can_be_forced_to_any(forced: LinkEngine) -> None:
    assert choose(Quality(), forced, ALL) is forced


@pytest.mark.parametrize(
    ("quality", "forced", "engines", "said"),
    [
        (SLOW, SHAPER, ALL, "engine shaper makes bandwidth, and a link has latency"),
        (NARROW, NONE, ALL, "engine none makes nothing, and a link has bandwidth"),
        (SLOW, NETEM, NO_NETEM, "engine netem is asked for and cannot be had here: there is none"),
        (SLOW, None, {NONE: "", SHAPER: ""}, "a link with latency: netem: unknown; user: unknown"),
    ],
)
def test_what_cannot_be_is_refused_in_words(
    quality: Quality, forced: LinkEngine | None, engines: dict[LinkEngine, str], said: str
) -> None:
    with pytest.raises(CannotNetwork, match=said):
        choose(quality, forced, engines)


# --- what the kernel is told ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quality", "engine", "lines"),
    [
        (Quality(), SHAPER, []),
        (SLOW, USER, []),
        (SLOW, NONE, []),
        (
            NARROW,
            SHAPER,
            ["qdisc replace dev eth0 root handle ed2: tbf rate 2500000bps burst 5000 limit 250000"],
        ),
        (
            Quality(bandwidth_mbps=0.1),
            SHAPER,
            ["qdisc replace dev eth0 root handle ed2: tbf rate 12500bps burst 4542 limit 15140"],
        ),
        (
            Quality(6, 1, 0.015, 20),
            NETEM,
            [
                "qdisc replace dev eth0 root handle ed1: netem limit 30000 "
                "delay 6000us 1000us loss 1.5% rate 4000000000bps",
                "qdisc replace dev eth0 parent ed1:1 handle ed2: "
                "tbf rate 2500000bps burst 5000 limit 250000",
            ],
        ),
    ],
)
def test_lines_for_tc(quality: Quality, engine: LinkEngine, lines: list[str]) -> None:
    assert tc_lines("eth0", qdiscs(quality, engine)) == lines


def test_netem_is_told_byte_for_byte_what_tc_tells() -> None:
    # strace of iproute2 6.1, netem limit 30000 delay 6ms 1ms loss 1.5% rate 32gbit
    (netem,) = qdiscs(Quality(6, 1, 0.015), NETEM)
    assert isinstance(netem, Netem)
    message = netem_message(LOOPBACK, netem, there=False)
    message.encode()
    assert bytes(message.data)[16:].hex() == (
        "00000000010000000000d10effffffff000000000a0001006e6574656d000000"
        "30000200366e0100307500003d0ad7030000000000000000093d000014000600"
        "00286bee000000000000000000000000"
    )
    assert message["header"]["type"] == 0x24
    assert message["header"]["flags"] == 0x605


# --- with the kernel ------------------------------------------------------------------------------


@pytest.fixture
def ip() -> Iterator[Any]:
    """Speak with the kernel in a namespace whose loopback is as good as any device."""
    name = "ewtest-shaping"
    namespaces.make(name)
    try:
        with namespaces.netlink(name) as speaker:
            yield speaker
    finally:
        namespaces.remove(name)


def there() -> str:
    argv = ["tc", "-n", "ewtest-shaping", "qdisc", "show", "dev", "lo"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.real
def test_a_bucket_is_put_changed_and_removed(ip: Any) -> None:
    shape(ip, LOOPBACK, NARROW, SHAPER)
    assert "tbf ed2: root" in there()
    assert "rate 20Mbit burst 5000b" in there()
    shape(ip, LOOPBACK, Quality(bandwidth_mbps=50), SHAPER)
    assert "rate 50Mbit" in there()
    shape(ip, LOOPBACK, Quality(bandwidth_mbps=100_000), SHAPER)
    assert "rate 34359Mbit" in there()
    for _ in range(2):
        shape(ip, LOOPBACK, Quality(), NONE)
        assert there() == ""


@pytest.mark.real
def test_what_is_somebody_elses_is_left_alone(ip: Any) -> None:
    ip.tc("add", "tbf", LOOPBACK, 0x10000, parent=0xFFFF_FFFF, rate="1mbit", burst=2000, limit=9000)
    before = there()
    for quality, engine in ((NARROW, SHAPER), (Quality(), NONE)):
        with pytest.raises(CannotNetwork, match="discipline 1: which is not edgewake's"):
            shape(ip, LOOPBACK, quality, engine)
    assert there() == before


@pytest.mark.real
def test_netem_as_far_as_this_kernel_has_it(ip: Any) -> None:
    """Where it has it, with all changes; where not, nothing is left and the refusal says so."""
    if probe()[NETEM]:
        with pytest.raises(CannotNetwork, match="refuses netem on device 1: No such file"):
            shape(ip, LOOPBACK, SLOW, NETEM)
        assert "ed1:" not in there()
        return
    shape(ip, LOOPBACK, Quality(6, 1, 0.015, 20), NETEM)
    assert "netem ed1: root refcnt 2 limit 30000 delay 6ms  1ms loss 1.5% rate 32Gbit" in there()
    assert "tbf ed2: parent ed1:1 rate 20Mbit" in there()
    shape(ip, LOOPBACK, SLOW, NETEM)
    assert "delay 6ms rate" in there()
    assert "tbf" not in there()
    shape(ip, LOOPBACK, NARROW, SHAPER)
    assert "tbf ed2: root" in there()
    assert "netem" not in there()


@pytest.mark.real
def test_this_machine_is_probed_and_nothing_stays() -> None:
    before = namespaces.names()
    found = probe()
    assert found[NONE] == ""
    assert found[USER] == ""
    assert found[SHAPER] == ""
    assert found.keys() == set(LinkEngine)
    assert namespaces.names() == before
    assert (
        "ewprobe0"
        not in subprocess.run(["ip", "link"], capture_output=True, text=True, check=True)
        .stdout.replace(":", " ")
        .split()
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(2, "No such file"), "there is no /dev/net/tun; try `modprobe tun`"),
        (PermissionError(1, "no"), "no permission: run as root"),
        (OSError(16, "Device or resource busy"), "Device or resource busy"),
    ],
)
@pytest.mark.real
def test_why_an_engine_cannot_be_had_is_said(
    error: OSError, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> int:
        raise error

    monkeypatch.setattr(taps, "make_passing", fail)
    assert said in shaping.probe()[USER]


@pytest.mark.real
def test_netlink_objects_of_others_do_as_well() -> None:
    """Back ends may have an IPRoute of their own, for the namespace they are in."""

    def inside() -> None:
        with IPRoute() as speaker:
            shape(speaker, LOOPBACK, NARROW, SHAPER)
            kinds = [found.get_attr("TCA_KIND") for found in speaker.get_qdiscs(LOOPBACK)]
            assert kinds == ["tbf"]

    namespaces.passing(inside)
