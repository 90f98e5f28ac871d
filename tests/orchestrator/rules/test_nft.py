"""nftables says what the evaluator says: the kernel itself is asked, in a namespace."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress

import pytest
from hypothesis import Phase, given, settings

from orchestrator.errors import CannotSay
from orchestrator.linux import namespaces
from orchestrator.rules.evaluate import evaluate
from orchestrator.rules.nft import to_nft
from orchestrator.rules.parse import parse
from orchestrator.rules.tree import Rule
from tests.orchestrator.rules.near import packets, rules

NAME = f"ew-nft-{os.getpid()}"
FIRST = 0x020000000000  # MAC of the first frame
SOON_S = 30.0
VLAN, TAGGED = 0x8100, 20  # bytes of an Ethernet header, a VLAN tag and the type after it


def test_the_racs_rule_as_nft() -> None:
    rule = "<4==ip_version && proto==TCP && (80==dst_port || 8080==dst_port)>"
    assert to_nft(parse(rule)) == (
        "ether type ip ip protocol 6 ip frag-off & 0x1fff == 0 th dport 80",
        "ether type ip ip protocol 6 ip frag-off & 0x1fff == 0 th dport 8080",
    )


@pytest.fixture(scope="module")
def wire() -> Iterator[socket.socket]:
    """Yield a socket; what is sent on it arrives at the device ``in`` of a namespace."""
    namespaces.make(NAME)
    try:
        _ip("link", "add", "name", "out", "type", "veth", "peer", "name", "in")
        for device in ("out", "in"):
            _ip("link", "set", device, "up")
        with namespaces.inside(NAME, _sender) as sender:
            yield sender
    finally:
        namespaces.remove(NAME)


def _sender() -> socket.socket:
    sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sender.bind(("out", 0))
    return sender


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", "-n", NAME, *arguments], check=True)


def _nft(*arguments: str, text: str = "") -> str:
    command = ["ip", "netns", "exec", NAME, "nft", *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _table(matches: list[tuple[str, ...]]) -> str:
    """Return a table in which each rule notes who sent what it is true of, in a set of its own."""
    lines = ["table netdev edgewake-test {"]
    for number, each in enumerate(matches):
        lines.append(f"set s{number} {{ type ether_addr; size 65535; flags dynamic; }}")
        lines.append(f"chain c{number} {{")
        lines.append("type filter hook ingress device in priority 0;")
        lines += [f"{match} add @s{number} {{ ether saddr }}" for match in each]
        lines.append("}")
    lines += ["set seen { type ether_addr; size 65535; flags dynamic; }"]
    lines += ["chain seen { type filter hook ingress device in priority 1;"]
    lines += ["add @seen { ether saddr }", "}", "}"]
    return "\n".join(lines)


def _sets() -> dict[str, frozenset[int]]:
    objects = json.loads(_nft("-j", "list", "table", "netdev", "edgewake-test"))["nftables"]
    sets = [each["set"] for each in objects if "set" in each]
    return {
        each["name"]: frozenset(int(mac.replace(":", ""), 16) for mac in each.get("elem", ()))
        for each in sets
    }


def _collected(count: int) -> tuple[list[Rule], list[bytes], list[bytes]]:
    """Return that many rules, sound frames and others, to be judged all at once."""
    found: tuple[list[Rule], list[bytes], list[bytes]] = [], [], []

    @settings(max_examples=count, phases=[Phase.generate], database=None)
    @given(rules, packets(sound=True), packets())
    def collect(rule: Rule, sound: bytes, cut: bytes) -> None:
        found[0].append(rule)
        found[1].append(sound)
        found[2].append(cut)

    collect()
    return found


def _arrives(frame: bytes) -> bool:
    """Whether the kernel lets a frame into its ingress hook: none that ends in its VLAN tag."""
    return len(frame) >= (TAGGED if frame[12:14] == VLAN.to_bytes(2) else 14)


def test_the_kernel_agrees(wire: socket.socket) -> None:
    """Packets are told apart by their source MAC, and each is sent for all rules at once."""
    wanted, sound, cut = _collected(100)
    said: list[tuple[Rule, tuple[str, ...]]] = []
    for rule in wanted:
        with suppress(CannotSay):
            said.append((rule, to_nft(rule)))
    assert len(said) > len(wanted) / 2
    _nft("-f", "-", text=_table([matches for _, matches in said]))
    sent = {
        number: frame[:6] + number.to_bytes(6) + frame[12:]
        for number, frame in enumerate([*sound, *cut], start=FIRST)
        if _arrives(frame)
    }
    found = _sent_until_seen(wire, sent)
    for index, (rule, matches) in enumerate(said):
        noted = found[f"s{index}"]
        for number, frame in sent.items():
            true = evaluate(rule, frame)
            assert (number in noted) <= true, (rule, matches, frame)
            if number < FIRST + len(sound):
                assert (number in noted) == true, (rule, matches, frame)


def _sent_until_seen(wire: socket.socket, sent: Mapping[int, bytes]) -> dict[str, frozenset[int]]:
    """Send each frame until it has arrived: a busy kernel drops some; sets take them twice."""
    end = time.monotonic() + SOON_S
    while missing := sent.keys() - (found := _sets())["seen"]:
        lost = [sent[number].hex() for number in missing]
        assert time.monotonic() < end, f"frames got lost on the way: {lost}"
        for number in missing:
            wire.send(sent[number])
    return found
