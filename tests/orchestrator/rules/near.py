"""Rules and packets that are near each other: few values of each field, at and around the edges."""

import struct
from ipaddress import ip_network

from hypothesis import strategies as st

from orchestrator.rules.tree import (
    ANY,
    Address,
    Dscp,
    Fragment,
    Not,
    Port,
    Protocol,
    Rule,
    Side,
    Test,
    Version,
    all_of,
    any_of,
)

PORTS = (0, 1, 79, 80, 81, 8000, 8080, 65535)
PROTOCOLS = (0, 1, 6, 17, 44, 58, 132, 255)
DSCPS = (0, 1, 46, 63)
ADDRESSES4 = (0, 0x0A000001, 0x0A00FFFF, 0xCB007109, 0xCB00710A, 0xFFFFFFFF)
ADDRESSES6 = (0, 1, 0x20010DB8 << 96, (0x20010DB8 << 96) + 10, (0x20010DB8FF << 88) + 10)
PREFIXES4, PREFIXES6 = (0, 8, 24, 31, 32), (0, 32, 40, 64, 127, 128)
FRAGMENTS = (0, 1, 0x1FFF, 0x2000, 0x2001, 0x4000, 0x8000, 0xFFFF)
ETHERTYPES = (0x0800, 0x86DD, 0x0806, 0x8100)

_sides = st.sampled_from(Side)


def _address(version: int) -> st.SearchStrategy[Address]:
    pool = (ADDRESSES4, ADDRESSES6)[version == 6]
    lengths = (PREFIXES4, PREFIXES6)[version == 6]
    width = (4, 16)[version == 6]
    networks = st.builds(
        lambda number, length: ip_network((number.to_bytes(width), length), strict=False),
        st.sampled_from(pool),
        st.sampled_from(lengths),
    )
    return st.builds(Address, _sides, networks)


_ports = st.builds(
    lambda side, ends: Port(side, min(ends), max(ends)),
    _sides,
    st.tuples(st.sampled_from(PORTS), st.sampled_from(PORTS)),
)

tests: st.SearchStrategy[Test] = st.one_of(
    st.builds(Version, st.sampled_from((4, 6))),
    st.builds(Protocol, st.sampled_from(PROTOCOLS)),
    _address(4),
    _address(6),
    _ports,
    st.builds(Dscp, st.sampled_from(DSCPS)),
    st.just(Fragment()),
)

rules: st.SearchStrategy[Rule] = st.recursive(
    st.one_of(tests, tests, tests, st.just(ANY)),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=4).map(lambda parts: all_of(*parts)),
        st.lists(inner, min_size=2, max_size=4).map(lambda parts: any_of(*parts)),
        inner.map(Not),
    ),
    max_leaves=8,
)


@st.composite
def packets(draw: st.DrawFn, *, sound: bool = False) -> bytes:
    """Return an Ethernet frame; `sound`: its headers are whole, as far as rules look at them."""
    ethertype = draw(st.sampled_from(ETHERTYPES if not sound else ETHERTYPES[:2]))
    version = {0x0800: 4, 0x86DD: 6}.get(ethertype) or draw(st.sampled_from((4, 6)))
    header = draw(_header4(5 if sound else 0) if version == 4 else _header6())
    body = struct.pack("!HH", draw(st.sampled_from(PORTS)), draw(st.sampled_from(PORTS)))
    frame = bytes(12) + ethertype.to_bytes(2) + header + body + bytes(16)
    if sound or draw(st.booleans()):
        return frame
    return frame[: draw(st.integers(0, len(frame)))]


@st.composite
def _header4(draw: st.DrawFn, least: int) -> bytes:
    words = draw(st.sampled_from((5, 5, 6, 15, least)))
    return (
        struct.pack(
            "!BBHHHBBHII",
            0x40 | words,
            draw(st.sampled_from(DSCPS)) << 2 | draw(st.integers(0, 3)),
            words * 4 + 20,
            0,
            draw(st.sampled_from(FRAGMENTS)),
            64,
            draw(st.sampled_from(PROTOCOLS)),
            0,
            draw(st.sampled_from(ADDRESSES4)),
            draw(st.sampled_from(ADDRESSES4)),
        )
        + draw(st.just(bytes(40)) | st.binary(min_size=40, max_size=40))[: max(0, words - 5) * 4]
    )


@st.composite
def _header6(draw: st.DrawFn) -> bytes:
    first = 6 << 28 | draw(st.sampled_from(DSCPS)) << 22 | draw(st.sampled_from((0, 0x3FFFFF)))
    ends = b"".join(draw(st.sampled_from(ADDRESSES6)).to_bytes(16) for _ in "sd")
    return struct.pack("!IHBB", first, 20, draw(st.sampled_from(PROTOCOLS)), 64) + ends
