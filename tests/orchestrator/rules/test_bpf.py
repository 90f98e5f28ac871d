"""Classic BPF says exactly what the evaluator says: by our own machine, and by the kernel."""

import re
import socket
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import CannotSay
from orchestrator.packet_filter import RETURN, WHOLE, attach
from orchestrator.rules import bpf
from orchestrator.rules.bpf import to_bpf
from orchestrator.rules.evaluate import ETHERNET_HEADER, Layer, evaluate
from orchestrator.rules.parse import parse
from orchestrator.rules.tree import Rule
from tests.orchestrator.rules.bpf_machine import run
from tests.orchestrator.rules.near import packets, rules

RACS = "<4==ip_version && proto==TCP && (80==dst_port || 8080==dst_port)>"
RACS_BPF = (
    (0x28, 0, 0, 12),
    (0x15, 0, 9, 0x0800),
    (0x30, 0, 0, 23),
    (0x15, 0, 7, 6),
    (0x28, 0, 0, 20),
    (0x45, 5, 0, 0x1FFF),
    (0xB1, 0, 0, 14),
    (0x48, 0, 0, 16),
    (0x15, 1, 0, 80),
    (0x15, 0, 1, 8080),
    (0x06, 0, 0, WHOLE),
    (0x06, 0, 0, 0),
)


def test_the_racs_rule_is_twelve_instructions() -> None:
    assert to_bpf(parse(RACS)) == RACS_BPF


def test_libpcap_writes_the_same_program() -> None:
    rule = "ip and tcp and (dst port 80 or dst port 8080)"
    command = ["tcpdump", "-y", "EN10MB", "-s", str(WHOLE), "-ddd", rule]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    theirs = [tuple(map(int, line.split())) for line in told.splitlines()[1:]]
    assert [*theirs] == [*to_bpf(parse(rule))]


@given(rules, st.lists(packets(), min_size=1, max_size=20))
def test_the_program_and_the_evaluator_agree(rule: Rule, frames: list[bytes]) -> None:
    program = to_bpf(rule)
    bare = to_bpf(rule, Layer.IP)
    for frame in frames:
        assert bool(run(program, frame)) == evaluate(rule, frame)
        packet = frame[ETHERNET_HEADER:]
        assert bool(run(bare, packet)) == evaluate(rule, packet, Layer.IP)


@given(rules, st.binary(max_size=80))
def test_they_agree_on_any_octets(rule: Rule, octets: bytes) -> None:
    frame = bytes(12) + octets
    assert bool(run(to_bpf(rule), frame)) == evaluate(rule, frame)


@settings(max_examples=50)
@given(rules, st.lists(packets(), min_size=50, max_size=50))
def test_the_kernel_agrees(rule: Rule, frames: list[bytes]) -> None:
    """A datagram that a socket's filter refuses is thrown away before anybody can read it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        attach(theirs, to_bpf(rule))
        theirs.setblocking(False)
        for frame in frames:
            ours.send(frame)
            assert _arrived(theirs, frame) == evaluate(rule, frame)


def _arrived(there: socket.socket, frame: bytes) -> bool:
    try:
        return there.recv(2048) == frame
    except BlockingIOError:
        return False


def test_jumps_that_are_too_far_for_a_condition_go_on() -> None:
    rule = parse(" or ".join(f"dst host {each:x}::{each:x}:0:1" for each in range(100)))
    program = to_bpf(rule)
    assert len(program) > 300
    last = bytes(12) + b"\x86\xdd" + bytes(24) + bytes.fromhex("00630000000000000000006300000001")
    for frame in (last, last[:-1] + b"\2", last[:-5] + b"\x64" + last[-4:]):
        assert bool(run(program, frame)) == evaluate(rule, frame)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        attach(theirs, program)  # the kernel checks every jump


@given(rules)
def test_every_jump_goes_forward_to_an_instruction(rule: Rule) -> None:
    program = to_bpf(rule)
    assert program[-1][0] == RETURN
    for at, (code, yes, no, value) in enumerate(program):
        if code & 7 == 5:
            ways = (value,) if code == 5 else (yes, no)
            assert all(at + 1 + way < len(program) for way in ways)


def test_a_program_longer_than_the_kernel_takes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpf, "MOST_INSTRUCTIONS", 11)
    with pytest.raises(CannotSay, match=re.escape("more than 11 instructions")):
        to_bpf(parse(RACS))
