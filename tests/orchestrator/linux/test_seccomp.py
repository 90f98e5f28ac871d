"""The filter does what its table says, call by call, as the kernel would run it."""

import socket
from errno import ENOSYS, EOPNOTSUPP, EPERM

import pytest

from orchestrator.linux.seccomp import DENIED, MACHINES, Instruction, Machine, program

ALLOWED, KILLED = 0x7FFF0000, 0x80000000


def result(instructions: list[Instruction], number: int, audit: int, argument: int = 0) -> int:
    """Run a filter as linux/kernel/seccomp.c does, over a call's data."""
    data = {0: number, 4: audit, 16: argument}
    loaded, at = 0, 0
    while True:
        code, if_true, if_false, value = instructions[at]
        at += 1
        if code == 0x06:
            return value
        if code == 0x20:
            loaded = data[value]
            continue
        true = {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}[code]
        at += if_true if true else if_false


@pytest.fixture(params=MACHINES.values(), ids=MACHINES)
def machine(request: pytest.FixtureRequest) -> Machine:
    assert isinstance(request.param, Machine)
    return request.param


def test_exactly_the_calls_of_the_table_are_denied(machine: Machine) -> None:
    instructions = program(machine)
    denied = {
        number
        for number in range(1000)
        if result(instructions, number, machine.audit) == 0x50000 | EPERM
    }
    assert denied == set(machine.denied)
    others = set(range(1000)) - denied - {435, machine.fallocate}
    assert {result(instructions, number, machine.audit) for number in others} == {ALLOWED}


def test_processes_are_made_and_namespaces_are_not(machine: Machine) -> None:
    instructions = program(machine)
    for flags, wanted in (
        (0x11, ALLOWED),  # fork
        (0x3D0F00, ALLOWED),  # a thread
        (0x10000000 | 0x11, 0x50000 | EPERM),
        (0x40000000, 0x50000 | EPERM),
    ):
        assert result(instructions, machine.clone, machine.audit, flags) == wanted
    assert result(instructions, 435, machine.audit) == 0x50000 | ENOSYS, "clone3: ask clone instead"


def test_no_socket_leads_to_virtual_machines_and_no_room_is_reserved(machine: Machine) -> None:
    instructions = program(machine)
    for family in range(50):
        wanted = 0x50000 | EPERM if family == socket.AF_VSOCK else ALLOWED
        assert result(instructions, machine.socket, machine.audit, family) == wanted
    assert result(instructions, machine.fallocate, machine.audit) == 0x50000 | EOPNOTSUPP


def test_another_convention_ends_the_program(machine: Machine) -> None:
    instructions = program(machine)
    assert result(instructions, 1, 0x40000003) == KILLED
    assert result(instructions, 0x40000000 | 1, machine.audit) == 0x50000 | ENOSYS


def test_the_table_names_each_call_once() -> None:
    names = [name for name, _, _ in DENIED]
    assert len(names) == len(set(names))
    for machine in MACHINES.values():
        assert len(machine.denied) == len(set(machine.denied))
        assert machine.clone not in machine.denied
