"""The ready-made programs by name, and how their parameters become an `App`.

For the lab file, the command line and scenarios, which all write a program as a name and texts:
``run: ping, to: r3``. Programs of ours are given to an interpreter as its input; the others are
Debian's. Decides nothing about where they run.
"""

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from ipaddress import ip_address
from pathlib import Path

from orchestrator.errors import CannotSay, RuleError
from orchestrator.network import App, Network, StubKind
from orchestrator.rules.nft import to_nft
from orchestrator.rules.parse import parse
from orchestrator.units import SECONDS

AddressOf = Callable[[str], str]

_HERE = Path(__file__).parent
_SYSTEM_PYTHON = Path("/usr/bin/python3")
_RIGHTS = frozenset(("net_raw", "net_admin", "net_bind_service"))


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter: what it means, how its text is read, and what it is if not given.

    `read` returns the text for the command, or raises ValueError; `default` None: it is required.
    """

    about: str
    read: Callable[[str], str]
    default: str | None = None
    is_address: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """What is run; see `network.App`."""

    argv: tuple[str, ...]
    rights: tuple[str, ...] = ()
    input: str = ""


@dataclass(frozen=True, slots=True)
class ReadyMade:
    """A program that can be run by name; `free` allows parameters that are not listed."""

    about: str
    parameters: Mapping[str, Parameter]
    command: Callable[[Mapping[str, str]], Command]
    free: bool = False


def app(name: str, node: str, program: str, given: Mapping[str, str], address_of: AddressOf) -> App:
    """Return a ready-made program with these parameters, for a router or clients' stub.

    `address_of` returns the address of a router or stub, as text, and raises KeyError for others.
    ValueError says which parameter is wrong, and what there is.
    """
    ready = ready_made(program)
    texts = _texts(program, ready, given, address_of)
    made = ready.command(texts)
    return App(name, node, made.argv, rights=made.rights, input=made.input)


def check(program: str, given: Mapping[str, str], nodes: Iterable[str]) -> None:
    """Raise ValueError if a program could not be made of this, whatever the addresses will be."""
    known = dict.fromkeys(nodes, "192.0.2.1")
    app("check", "check", program, given, known.__getitem__)


def ready_made(program: str) -> ReadyMade:
    """Return the program of that name; ValueError lists those that there are."""
    if program not in PROGRAMS:
        raise ValueError(f"there is no program {program!r}; {_suggestion(program, PROGRAMS)}")
    return PROGRAMS[program]


def addresses(network: Network) -> dict[str, str]:
    """Return the IPv4 address of every router, and of the clients in every stub, as text."""
    found = {router.name: str(router.address) for router in network.routers}
    for stub in network.stubs:
        clients = stub.kind is StubKind.CLIENTS
        found[stub.name] = str(stub.gateway + 1 if clients else stub.gateway)
    return found


def _texts(
    program: str, ready: ReadyMade, given: Mapping[str, str], address_of: AddressOf
) -> dict[str, str]:
    unknown = [name for name in given if name not in ready.parameters]
    if unknown and not ready.free:
        raise ValueError(
            f"{program} has no parameter {unknown[0]!r}; "
            f"{_suggestion(unknown[0], ready.parameters)}"
        )
    texts = {name: _address(given[name], address_of) for name in unknown}
    for name, parameter in ready.parameters.items():
        text = given.get(name, parameter.default)
        if text is None:
            raise ValueError(f"{program} needs {name}: {parameter.about}")
        try:
            placed = _address(text, address_of) if parameter.is_address else text
            texts[name] = parameter.read(placed)
        except ValueError as error:
            raise ValueError(f"{name} of {program} {error}") from None
    return texts


def _address(text: str, address_of: AddressOf) -> str:
    try:
        return address_of(text)
    except KeyError:
        return text


def _suggestion(word: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = get_close_matches(word, names, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return f"{meant}known: {', '.join(names) or 'none'}"


# --- kinds of parameters --------------------------------------------------------------------------


def _read_address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError(f"must be a router, a stub or an IP address, not {text[:60]!r}") from None


def _whole(least: int, most: int) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            raise ValueError(f"must be a whole number, {least} to {most}, not {text[:60]!r}")
        return str(int(text))

    return read


def _read_seconds(text: str) -> str:
    seconds = float(SECONDS.parse(text))
    if not 0.001 <= seconds <= 86400:
        raise ValueError(f"must be 1 ms to 1 day, not {text[:60]!r}")
    return f"{seconds:g}"


def _read_rate(text: str) -> str:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0.001 <= rate <= 1e6:
        raise ValueError(f"must be a number per second, 0.001 to 1000000, not {text[:60]!r}")
    return f"{rate:g}"


def _read_target(text: str) -> str:
    module, _, name = text.partition(":")
    if not (name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise ValueError(f"must be written package.module:name, not {text[:60]!r}")
    return text


def _read_folder(text: str) -> str:
    return str(Path(text).absolute()) if text else ""


def _read_rule(text: str) -> str:
    try:
        if text:
            to_nft(parse(text), inet=True)
    except (RuleError, CannotSay) as error:
        raise ValueError(f"cannot be read: {error}") from None
    return text


def _read_line(text: str) -> str:
    try:
        if shlex.split(text):
            return text
    except ValueError as error:
        raise ValueError(f"cannot be read: {error}") from None
    raise ValueError("must be a command and its arguments")


def _read_rights(text: str) -> str:
    wrong = [each for each in text.split() if each not in _RIGHTS]
    if wrong:
        raise ValueError(f"has {wrong[0]!r}; known: {', '.join(sorted(_RIGHTS))}")
    return text


def _read_origin(text: str) -> str:
    host, _, port = text.rpartition(":")
    if text and not (host and port.isdigit()):
        raise ValueError(f"must be written HOST:PORT, not {text[:60]!r}")
    return text


def _read_text(text: str) -> str:
    return text


# --- the programs ---------------------------------------------------------------------------------


def _ping(given: Mapping[str, str]) -> Command:
    count = () if given["count"] == "0" else ("-c", given["count"])
    pace = ("-i", given["every"], "-s", given["size"])
    return Command(("ping", "-n", "-O", *count, *pace, given["to"]), rights=("net_raw",))


def _datagrams(verb: str, *names: str) -> Callable[[Mapping[str, str]], Command]:
    return lambda given: _ours("datagrams", verb, *(given[name] for name in names))


def _iperf3_server(given: Mapping[str, str]) -> Command:
    return Command(("iperf3", "--server", "--port", given["port"], "--forceflush"))


def _iperf3_client(given: Mapping[str, str]) -> Command:
    rate = ("--udp", "--bitrate", given["udp"]) if given["udp"] else ()
    where = ("--client", given["to"], "--port", given["port"], "--time", given["seconds"])
    return Command(("iperf3", *where, *rate, "--json"))


def _cache(given: Mapping[str, str]) -> Command:
    origin = (given["origin"],) if given["origin"] else ()
    return _ours("cache", given["port"], *origin)


def _firewall(given: Mapping[str, str]) -> Command:
    def matches(text: str) -> tuple[str, ...]:
        return to_nft(parse(text), inet=True) if text else ()

    rules = [f"{match} counter drop;" for match in matches(given["drop"])]
    if given["allow"]:
        rules += ["ct state established,related counter accept;"]
        rules += [f"{match} counter accept;" for match in matches(given["allow"])]
        rules += ["counter drop;"]
    chains = " ".join(
        f"chain {hook} {{ type filter hook {hook} priority 0; policy accept; {' '.join(rules)} }};"
        for hook in given["where"].split(",")
    )
    made = _ours("firewall", f"edgewake-{given['table']}", chains, given["every"])
    return Command(made.argv, rights=("net_admin",), input=made.input)


def _read_where(text: str) -> str:
    hooks = [part.strip() for part in text.split(",")]
    if not hooks or not set(hooks) <= {"forward", "input", "output"}:
        raise ValueError(f"must be of forward, input, output, not {text[:60]!r}")
    return ",".join(hooks)


def _read_table(text: str) -> str:
    if not (text.isascii() and text.replace("-", "").isalnum()):
        raise ValueError(f"must be of letters, digits and hyphens, not {text[:60]!r}")
    return text


def _python(given: Mapping[str, str]) -> Command:
    arguments = {k: v for k, v in given.items() if k not in {"function", "path"}}
    made = _ours("call", given["function"], given["path"], json.dumps(arguments))
    return Command((made.argv[0], "-B", "-", *made.argv[4:]), input=made.input)


def _command(given: Mapping[str, str]) -> Command:
    return Command(tuple(shlex.split(given["line"])), rights=tuple(given["rights"].split()))


def _ours(script: str, *arguments: str) -> Command:
    """Return a program of ours; ``-I -S``: nothing but the standard library is looked at."""
    source = (_HERE / f"{script}.py").read_text()
    return Command((str(_interpreter()), "-I", "-S", "-", *arguments), input=source)


@cache
def _interpreter() -> Path:
    """Return a Python that any user may run: the system's if ours is in somebody's home."""
    ours = Path(sys.executable).resolve()
    open_to_all = all(each.stat().st_mode & 0o001 for each in (ours, *ours.parents))
    return ours if open_to_all or not os.access(_SYSTEM_PYTHON, os.X_OK) else _SYSTEM_PYTHON


def _port(default: int) -> Parameter:
    return Parameter("port number", _whole(1024, 65535), str(default))


_TO = Parameter("a router, a stub, or an IP address", _read_address, is_address=True)
_REPORTS = Parameter("time between two reports", _read_seconds, "1 s")

PROGRAMS: Mapping[str, ReadyMade] = {
    "ping": ReadyMade(
        "Sends ICMP echo requests, and prints each reply (iputils).",
        {
            "to": _TO,
            "count": Parameter("how many; 0 is without end", _whole(0, 10**9), "0"),
            "every": Parameter("time between two", _read_seconds, "1 s"),
            "size": Parameter("bytes of data", _whole(0, 65507), "56"),
        },
        _ping,
    ),
    "send": ReadyMade(
        "Sends numbered datagrams with the time, for `receive`.",
        {
            "to": _TO,
            "port": _port(5001),
            "rate": Parameter("datagrams per second", _read_rate, "10"),
            "size": Parameter("bytes of a datagram", _whole(24, 65507), "200"),
            "count": Parameter("how many; 0 is without end", _whole(0, 10**9), "0"),
        },
        _datagrams("send", "to", "port", "rate", "size", "count"),
    ),
    "receive": ReadyMade(
        "Receives what `send` sends; prints loss, reordering and latency as JSON lines.",
        {"port": _port(5001), "every": _REPORTS},
        _datagrams("receive", "port", "every"),
    ),
    "echo": ReadyMade(
        "Sends back what it receives, over UDP and TCP.",
        {"port": _port(7007)},
        _datagrams("echo", "port"),
    ),
    "iperf3-server": ReadyMade(
        "Measures throughput: the side that is asked.", {"port": _port(5201)}, _iperf3_server
    ),
    "iperf3-client": ReadyMade(
        "Measures throughput: the side that asks; prints JSON at its end.",
        {
            "to": _TO,
            "port": _port(5201),
            "seconds": Parameter("how long", _whole(1, 86400), "10"),
            "udp": Parameter("send UDP at this rate, such as 10M; else TCP", _read_text, ""),
        },
        _iperf3_client,
    ),
    "firewall": ReadyMade(
        "Filters packets with nftables, in a table of its own, while it runs.",
        {
            "drop": Parameter("a traffic rule: what it matches is dropped", _read_rule, ""),
            "allow": Parameter("a traffic rule: all that it does not match is", _read_rule, ""),
            "where": Parameter("hooks: of forward, input, output", _read_where, "forward"),
            "table": Parameter("the table is edgewake-TABLE", _read_table, "firewall"),
            "every": Parameter("time between two prints of the counters", _read_seconds, "10 s"),
        },
        _firewall,
    ),
    "cache": ReadyMade(
        "A small shared HTTP cache: a forward proxy, or one before an origin.",
        {
            "port": _port(3128),
            "origin": Parameter("HOST:PORT that it stands before", _read_origin, ""),
        },
        _cache,
    ),
    "python": ReadyMade(
        "Calls a Python function; other parameters are passed to it by name, as texts.",
        {
            "function": Parameter("package.module:name", _read_target),
            "path": Parameter("folder where modules are looked for first", _read_folder, ""),
        },
        _python,
        free=True,
    ),
    "command": ReadyMade(
        "Any program of this machine.",
        {
            "line": Parameter("the program and its arguments; no shell reads it", _read_line),
            "rights": Parameter("capabilities that it needs, parted by blanks", _read_rights, ""),
        },
        _command,
    ),
}
