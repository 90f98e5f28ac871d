"""Algorithms that misbehave, for the tests of this folder: named as ``plug_ins.py:name``."""

import ctypes
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from placement.heuristics.bins import first_fit
from placement.problem import Options, Plan, Problem


def good(problem: Problem, options: Options) -> Plan:
    return first_fit(problem, options)


def counted(problem: Problem, options: Options, *, log: str, pause_s: float = 0.0) -> Plan:
    """Note that it has begun, and take its time."""
    with Path(log).open("a") as file:
        file.write("run\n")
    time.sleep(pause_s)
    return first_fit(problem, options)


def seeded(problem: Problem, options: Options, seed: int) -> Plan:
    """Show the seed as a bound."""
    return replace(first_fit(problem, options), bound=seed / 2**40)


def talks(problem: Problem, options: Options) -> Plan:
    sys.stdout.write("this is not an answer\n")
    sys.stdout.flush()
    os.write(1, b"{}\n")
    return first_fit(problem, options)


def raises(problem: Problem, options: Options) -> Plan:
    raise KeyError("what was not there")


def nothing(problem: Problem, options: Options) -> None:
    """Forget to return the plan."""


def vanishes(problem: Problem, options: Options) -> Plan:
    os._exit(3)


def leaves_a_child(problem: Problem, options: Options) -> Plan:
    """Leave a process that holds all that was open, and never ends by itself."""
    if os.fork() == 0:
        time.sleep(300)
    return first_fit(problem, options)


def exits(problem: Problem, options: Options) -> Plan:
    sys.exit("I have had enough")


def crashes(problem: Problem, options: Options) -> Plan:
    sys.stderr.write("about to fall\n")
    sys.stderr.flush()
    ctypes.string_at(0)
    raise AssertionError("unreachable")


def kills_its_worker(problem: Problem, options: Options) -> Plan:
    os.kill(os.getppid(), 9)
    time.sleep(60)
    raise AssertionError("unreachable")


def sleeps(problem: Problem, options: Options, *, log: str = "") -> Plan:
    """Start a program that sleeps, too, as solvers that are programs of their own do."""
    child = subprocess.Popen(["sleep", "300"])
    if log:
        Path(log).write_text(str(child.pid))
    time.sleep(300)
    raise AssertionError("unreachable")


def eats(problem: Problem, options: Options) -> Plan:
    eaten = []
    while True:
        eaten.append(bytearray(16 << 20))


def overfull(problem: Problem, options: Options) -> Plan:
    """Put everything on the first host, whatever fits."""
    first = problem.hosts[0].name
    plan = first_fit(problem, options)
    return replace(plan, hosts={name: (first,) * len(at) for name, at in plan.hosts.items()})


class Wandering:
    """Moves every copy to another host in every epoch."""

    name = "wandering"

    def solve(self, problem: Problem, options: Options) -> Plan:
        plan = first_fit(problem, options)
        hosts = [host.name for host in problem.hosts]
        moved = {
            name: tuple(hosts[(hosts.index(host) + 1) % len(hosts)] for host in at)
            for name, at in problem.current.items()
        }
        return replace(plan, hosts={**plan.hosts, **moved})


wandering = Wandering()
