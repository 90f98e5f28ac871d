"""Messages between `wires` and its process: what is said is what is heard, and nothing else is."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.network import Quality
from orchestrator.routers.wire_messages import (
    MESSAGE_BYTES,
    WIRES_PER_MESSAGE,
    Add,
    Change,
    End,
    Listing,
    Remove,
    Request,
    Traffic,
    Wire,
    WireState,
    parse_answer,
    parse_request,
    parse_states,
    request_text,
    states_text,
)

names = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1).filter(
    lambda name: name not in {".", ".."}
)
qualities = st.builds(
    Quality,
    st.floats(0, 60_000),
    st.floats(0, 60_000),
    st.floats(0, 1),
    st.none() | st.floats(0.001, 1e6),
)
ends = st.builds(End, names, names)
wires = st.builds(Wire, names, ends, ends, qualities, st.booleans())
numbers = st.integers(0, 2**63)
inodes = st.tuples(numbers, numbers)
traffic = st.builds(Traffic, numbers, numbers, numbers, numbers)
states = st.builds(WireState, wires, st.booleans(), inodes, traffic, traffic)


def several(items: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(items, max_size=4).map(tuple)


requests = st.one_of(
    st.builds(Listing, numbers),
    st.builds(Add, several(st.tuples(wires, inodes))),
    st.builds(Change, several(st.tuples(names, qualities, st.booleans()))),
    st.builds(Remove, several(names)),
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda part: (
        st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=5), part, max_size=3)
    ),
    max_leaves=8,
)


@given(requests)
def test_a_request_is_heard_as_it_was_said(request: Request) -> None:
    assert parse_request(request_text(request)) == request


@given(several(states), st.none() | numbers)
def test_states_are_heard_as_they_were_said(
    said: tuple[WireState, ...], following: int | None
) -> None:
    assert parse_states(parse_answer(states_text(said, following))) == (said, following)


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_request(noise)


@given(requests, st.data())
def test_a_request_with_a_part_replaced_is_a_request_or_refused(
    request: Request, data: st.DataObject
) -> None:
    body = json.loads(request_text(request))
    place = body
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(anything)
    try:
        heard = parse_request(json.dumps(body).encode())
    except ValueError:
        return
    assert parse_request(request_text(heard)) == heard


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"loss": 1.5}, "from 0 to 1"),
        ({"loss": float("nan")}, "from 0 to 1"),
        ({"latency_ms": -1}, "from 0 to 60000"),
        ({"latency_ms": 10**400}, "from 0 to 60000"),
        ({"jitter_ms": "6"}, "a number was expected"),
        ({"bandwidth_mbps": 0}, "bandwidth of 0"),
        ({"bandwidth_mbps": True}, "a number was expected"),
    ],
)
def test_a_quality_that_cannot_be_is_refused(change: dict[str, Any], reason: str) -> None:
    body = json.loads(request_text(Change((("a--b", Quality(), True),))))
    body["wires"][0]["quality"] |= change
    with pytest.raises(ValueError, match=reason):
        parse_request(json.dumps(body).encode())


def test_what_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(ValueError, match="deep"):
        parse_request(b"[" * 50_000)


def test_names_of_namespaces_lead_nowhere_else() -> None:
    wire = Wire("a--b", End("../../etc", "tap0"), End("b", "tap0"))
    with pytest.raises(ValueError, match="no name of a namespace"):
        parse_request(request_text(Add(((wire, (1, 2)),))))


def test_a_full_message_is_not_too_long() -> None:
    end = End("n" * 64, "d" * 15)
    wire = Wire("w" * 130, end, end, Quality(0.1 + 0.2, 0.1 + 0.2, 0.1 + 0.2, 0.1 + 0.2))
    most = Traffic(*[2**63] * 4)
    state = WireState(wire, alive=True, namespaces=(2**32, 2**32), a_to_b=most, b_to_a=most)
    assert len(states_text((state,) * WIRES_PER_MESSAGE, 10**6)) < MESSAGE_BYTES
    assert len(request_text(Add(((wire, (2**32, 2**32)),) * WIRES_PER_MESSAGE))) < MESSAGE_BYTES
    with pytest.raises(ValueError, match="more than"):
        parse_request(request_text(Remove(("a",) * (WIRES_PER_MESSAGE + 1))))
