"""What `wires` and its process say to each other: one JSON object per message, both ways.

A message travels whole over a UNIX socket (SOCK_SEQPACKET), at most `MESSAGE_BYTES` long. To `Add`
belong the open TAP devices of its wires, two files each, sent with it. The answer is an object with
``error``, or without.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from orchestrator.network import Quality

PROTOCOL = 1  # of both; another one's process is ended and started anew
MESSAGE_BYTES = 96 * 1024  # less than net.core.wmem_default
WIRES_PER_MESSAGE = 64  # 128 files; the kernel sends at most 253 (unix(7))

_MOST_NAME = 255  # characters
_MOST_MS = 60_000.0
_MOST_MBPS = 1e6

_PERFECT = Quality()

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class End:
    """One end of a wire: a TAP device, persistent, in a namespace that has a name."""

    namespace: str
    device: str


@dataclass(frozen=True, slots=True)
class Wire:
    """A wire between two devices; one that is not `up` has its cable pulled at both ends."""

    name: str
    a: End
    b: End
    quality: Quality = _PERFECT
    up: bool = True


@dataclass(frozen=True, slots=True)
class Traffic:
    """What went one way since the wire was made; a TCP segment of 64 KiB is one frame.

    `frames` and `bytes` came out at the other end. `lost` frames were lost on purpose; `dropped`
    ones found no room, or no device that took them, or a wire that is down.
    """

    frames: int = 0
    bytes: int = 0
    lost: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class WireState:
    """A wire as it is. One that is not `alive` lost a device or a namespace, and carries nothing.

    `namespaces` are the inodes of those of `a` and `b`, which tell one from a later namesake.
    """

    wire: Wire
    alive: bool
    namespaces: tuple[int, int]
    a_to_b: Traffic = Traffic()
    b_to_a: Traffic = Traffic()


@dataclass(frozen=True, slots=True)
class Listing:
    """Asks for the states of wires, from that place on in the order of their names."""

    start: int = 0


@dataclass(frozen=True, slots=True)
class Add:
    """Takes on wires that are not there, each with the inodes of its namespaces."""

    wires: tuple[tuple[Wire, tuple[int, int]], ...]


@dataclass(frozen=True, slots=True)
class Change:
    """Gives wires another quality, or pulls or puts in their cables; by name."""

    wires: tuple[tuple[str, Quality, bool], ...]


@dataclass(frozen=True, slots=True)
class Remove:
    """Lets go of wires."""

    names: tuple[str, ...]


Request = Listing | Add | Change | Remove


def request_text(request: Request) -> bytes:
    """Return the message that a request is."""
    match request:
        case Listing(start):
            body: dict[str, Any] = {"do": "list", "start": start}
        case Add(wires):
            body = {
                "do": "add",
                "wires": [{**asdict(wire), "namespaces": namespaces} for wire, namespaces in wires],
            }
        case Change(changes):
            body = {
                "do": "change",
                "wires": [
                    {"name": name, "quality": asdict(quality), "up": up}
                    for name, quality, up in changes
                ],
            }
        case Remove(names):
            body = {"do": "remove", "names": names}
    return json.dumps(body).encode()


def parse_request(text: bytes) -> Request:
    """Return the request that a message is; ValueError says what is wrong with it."""
    body = _object(_json(text))
    match body.get("do"):
        case "list":
            return Listing(_whole(body.get("start")))
        case "add":
            return Add(_list(body.get("wires"), _added))
        case "change":
            return Change(_list(body.get("wires"), _changed))
        case "remove":
            return Remove(_list(body.get("names"), _name))
        case other:
            raise ValueError(f"no such thing to do: {other!r}")


def states_text(states: tuple[WireState, ...], following: int | None) -> bytes:
    """Return the answer to `Listing`; `following` is where to go on, None after the last."""
    body = {
        "protocol": PROTOCOL,
        "states": [asdict(state) for state in states],
        "following": following,
    }
    return json.dumps(body).encode()


def parse_states(body: dict[str, Any]) -> tuple[tuple[WireState, ...], int | None]:
    """Return states and where to go on; ValueError if a body is no answer to `Listing`."""
    following = body.get("following")
    states = _list(body.get("states"), _state)
    return states, None if following is None else _whole(following)


def parse_answer(text: bytes) -> dict[str, Any]:
    """Return the object that an answer is; ValueError if it is none."""
    return _object(_json(text))


# --- parts --------------------------------------------------------------------------------------


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _added(value: Any) -> tuple[Wire, tuple[int, int]]:
    return _wire(value), _inodes(_object(value).get("namespaces"))


def _changed(value: Any) -> tuple[str, Quality, bool]:
    body = _object(value)
    return _name(body.get("name")), _quality(body.get("quality")), _flag(body.get("up"))


def _state(value: Any) -> WireState:
    body = _object(value)
    return WireState(
        wire=_wire(body.get("wire")),
        alive=_flag(body.get("alive")),
        namespaces=_inodes(body.get("namespaces")),
        a_to_b=_traffic(body.get("a_to_b")),
        b_to_a=_traffic(body.get("b_to_a")),
    )


def _wire(value: Any) -> Wire:
    body = _object(value)
    return Wire(
        name=_name(body.get("name")),
        a=_end(body.get("a")),
        b=_end(body.get("b")),
        quality=_quality(body.get("quality")),
        up=_flag(body.get("up")),
    )


def _end(value: Any) -> End:
    body = _object(value)
    namespace = _name(body.get("namespace"))
    if "/" in namespace or namespace in {".", ".."}:
        raise ValueError(f"no name of a namespace: {namespace!r}")
    return End(namespace, _name(body.get("device")))


def _quality(value: Any) -> Quality:
    body = _object(value)
    mbps = body.get("bandwidth_mbps")
    quality = Quality(
        latency_ms=_number(body.get("latency_ms"), _MOST_MS),
        jitter_ms=_number(body.get("jitter_ms"), _MOST_MS),
        loss=_number(body.get("loss"), 1.0),
        bandwidth_mbps=None if mbps is None else _number(mbps, _MOST_MBPS),
    )
    if quality.bandwidth_mbps == 0:
        raise ValueError("a bandwidth of 0")
    return quality


def _traffic(value: Any) -> Traffic:
    body = _object(value)
    return Traffic(*(_whole(body.get(field)) for field in Traffic.__slots__))


def _inodes(value: Any) -> tuple[int, int]:
    first, *rest = _list(value, _whole) or (0,)
    if len(rest) != 1:
        raise ValueError("a wire has two namespaces")
    return first, rest[0]


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"an object was expected, not {type(value).__name__}")  # noqa: TRY004
    return value


def _list(value: Any, parse: Callable[[Any], Item]) -> tuple[Item, ...]:
    if not isinstance(value, list):
        raise ValueError(f"a list was expected, not {type(value).__name__}")  # noqa: TRY004
    if len(value) > WIRES_PER_MESSAGE:
        raise ValueError(f"more than {WIRES_PER_MESSAGE} in one message")
    return tuple(parse(one) for one in value)


def _name(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MOST_NAME or "\0" in value:
        raise ValueError(f"a name was expected, not {value!r:.50}")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"true or false was expected, not {value!r:.50}")  # noqa: TRY004
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"a whole number was expected, not {value!r:.50}")
    return value


def _number(value: Any, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"a number was expected, not {value!r:.50}")  # noqa: TRY004
    if not 0 <= value <= most:  # which no NaN is
        raise ValueError(f"a number from 0 to {most:g} was expected, not {value!r:.50}")
    return float(value)
