"""The bed's command line: ``python -m tests.xenbed``, from the repository's folder."""

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from tests.xenbed import bed as beds
from tests.xenbed import build, notes, plan
from tests.xenbed import state as states
from tests.xenbed.errors import BedError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code: 0 done, 1 not done (and why), 130 interrupted."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except BedError as error:
        sys.stderr.write(f"xenbed: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def _build(options: argparse.Namespace) -> int:
    built = build.ensure(
        options.cache, update=options.update, clean=options.clean, progress=_progress
    )
    cost = f"{built.fetched / 1e6:.0f} MB fetched, {built.seconds:.0f} s"
    _say(f"{built.folder}: {f'built ({cost})' if built.seconds else 'up to date'}\n")
    return 0


def _start(options: argparse.Namespace) -> int:
    old = states.read(options.cache, options.name)
    if old is not None and old.pid() is not None:
        _progress(f"bed {options.name} runs already")
        _say(notes.describe(beds.Bed(options.cache, old)))
        return 0
    started = time.monotonic()
    bed = beds.Bed.start(options.cache, _wanted(options), progress=_progress)
    _progress(f"ready after {time.monotonic() - started:.1f} s")
    _say(notes.describe(bed))
    return 0


def _run(options: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    bed = beds.Bed.start(options.cache, _wanted(options), owned=True, progress=_progress)
    try:
        _say(notes.describe(bed) + "\nCtrl-C stops it.\n")
        while bed.state.pid() is not None:
            time.sleep(0.5)
        raise BedError(
            f"bed {options.name} ended by itself; it was stopped from elsewhere, or dom0 did"
        )
    except KeyboardInterrupt:
        return 0
    finally:
        bed.stop()


def _stop(options: argparse.Namespace) -> int:
    names = [options.name] if not options.all else [s.name for s in states.all_beds(options.cache)]
    for name in names:
        if not beds.remove(options.cache, name) and not options.all:
            there = ", ".join(state.name for state in states.all_beds(options.cache)) or "none"
            raise BedError(f"there is no bed {name} to stop; beds in {options.cache}: {there}")
        _progress(f"bed {name}: stopped")
    return 0


def _status(options: argparse.Namespace) -> int:
    found = list(states.all_beds(options.cache))
    if not found:
        _progress(f"no beds in {options.cache}")
    for state in found:
        pid = state.pid()
        where = f"runs as process {pid}" if pid else "does not run; `stop` removes what it left"
        _progress(f"bed {state.name} {where}")
    _say(json.dumps([state.document() for state in found], indent=2) + "\n")
    return 0


def _forward(options: argparse.Namespace) -> int:
    port = beds.Bed.open(options.cache, options.name).forward(options.address, options.port)
    _say(f"127.0.0.1:{port}\n")
    return 0


def _guard(options: argparse.Namespace) -> int:
    """Wait until the owner closes our standard input, also by dying, and stop its bed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while sys.stdin.buffer.read(4096):
        pass
    state = states.read(options.cache, options.name)
    if state is not None and str(state.id) == options.id:
        beds.remove(options.cache, options.name)
    return 0


def _wanted(options: argparse.Namespace) -> plan.Wanted:
    usual = plan.Wanted(name=options.name)
    return plan.Wanted(
        name=options.name,
        subnet=options.subnet,
        join=options.join,
        tap=usual.tap and not options.user_network,
        memory_mib=options.memory,
        cold=options.cold,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.xenbed",
        description="A Xen host for tests: Xen 4.17, dom0, libvirt, emulated. See docs/xenbed.md.",
    )
    parser.add_argument(
        "--cache", type=_path, default=build.default_cache(),
        help="folder of what is built and of beds (%(default)s; $EDGEWAKE_XENBED)",
    )  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("build", help="build what a bed boots, unless it is there")
    command.add_argument("--update", action="store_true", help="look for newer Debian packages")
    command.add_argument("--clean", action="store_true", help="build anew")
    command.set_defaults(command=_build)
    for name, function, text in (
        ("start", _start, "start a bed that runs until `stop`"),
        ("run", _run, "start a bed that runs until Ctrl-C"),
    ):
        _add_start_options(commands.add_parser(name, help=text), function)
    command = commands.add_parser("stop", help="stop a bed, or remove what a killed one left")
    _add_name(command)
    command.add_argument("--all", action="store_true", help="every bed of this cache")
    command.set_defaults(command=_stop)
    command = commands.add_parser("status", help="show the beds of this cache, a list in JSON")
    command.set_defaults(command=_status)
    command = commands.add_parser("forward", help="lead a port here to a guest (no root needed)")
    command.add_argument("name")
    command.add_argument("address", type=IPv4Address)
    command.add_argument("port", type=int)
    command.set_defaults(command=_forward)
    command = commands.add_parser("guard")  # started by Bed.start
    command.add_argument("name")
    command.add_argument("id")
    command.set_defaults(command=_guard)
    return parser


def _add_name(command: argparse.ArgumentParser) -> None:
    usual = states.DEFAULT_NAME
    command.add_argument("name", nargs="?", default=usual, help="which bed; default: %(default)s")


def _add_start_options(
    command: argparse.ArgumentParser, function: Callable[[argparse.Namespace], int]
) -> None:
    _add_name(command)
    command.add_argument(
        "--subnet", type=IPv4Network, help="the guests' subnet; default: a free one"
    )
    command.add_argument("--join", default="", help="be on the network of that other bed")
    command.add_argument(
        "--user-network", action="store_true", help="keep guests inside QEMU, as without root"
    )
    command.add_argument("--cold", action="store_true", help="boot; do not use a snapshot")
    command.add_argument(
        "--memory",
        type=int,
        default=plan.MEMORY_MIB,
        help=f"MiB of the whole bed (%(default)s; {plan.DOM0_MIB + plan.SPARE_MIB} at least)",
    )
    command.set_defaults(command=function)


def _path(text: str) -> Path:
    return Path(text).absolute()


def _progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
