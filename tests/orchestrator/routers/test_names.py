"""Names and marks are derived by rule, fit the kernel, and can be read back."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.linux.bridges import NAME_MAX
from orchestrator.network import LinkEngine, LinkState, Quality, VirtualLink
from orchestrator.routers.names import (
    NAMESPACE_MAX,
    clients_mark,
    device_to,
    link_local,
    link_mark,
    link_marked,
    mac_of,
    mark_of,
    namespace_of,
    node_marked,
    port_of,
    router_mark,
    stub_mark,
    stub_marked,
    tunnel_numbers,
)

MARK = mark_of("owner", "")
NAMES = st.text("aZ9-._ :/%\0ü", min_size=1, max_size=90)
NUMBERS = st.floats(0, 1e6, allow_nan=False)


def test_short_names_are_kept() -> None:
    assert namespace_of("lab", "edge-1") == "ew-lab-edge-1"
    assert device_to("edge-1") == "edge-1"


@pytest.mark.parametrize("taken", ["lo", "all", "default"])
def test_names_that_the_kernel_has_taken_are_not_used(taken: str) -> None:
    assert device_to(taken) == f"to-{taken}"


@given(NAMES, NAMES)
def test_any_name_fits(network: str, name: str) -> None:
    for made, most in (
        (namespace_of(network, name), NAMESPACE_MAX),
        (device_to(name), NAME_MAX),
        (port_of(MARK, name), NAME_MAX),
    ):
        assert re.fullmatch(r"[A-Za-z0-9_.-]+", made)
        assert len(made) <= most
        assert made not in {".", "..", "lo", "all", "default"}


def test_long_names_stay_different() -> None:
    long = "a" * 80
    assert device_to(f"{long}1") != device_to(f"{long}2")
    assert namespace_of("lab", f"{long}1") != namespace_of("lab", f"{long}2")


def test_a_link_local_address_is_what_the_kernel_makes_of_a_mac() -> None:
    assert str(link_local(bytes.fromhex("02ed9e123456"))) == "fe80::ed:9eff:fe12:3456"
    assert mac_of("a", "b") != mac_of("ab", "")


@given(
    NAMES,
    NAMES,
    st.builds(Quality, NUMBERS, NUMBERS, NUMBERS, st.none() | NUMBERS),
    NUMBERS,
    st.sampled_from(LinkEngine),
)
def test_a_links_mark_says_all_of_it(
    a: str, b: str, quality: Quality, weight: float, engine: LinkEngine
) -> None:
    state = LinkState(VirtualLink(a, b, quality, weight), engine)
    assert link_marked(MARK, link_mark(MARK, state)) == state


@given(NAMES)
def test_marks_say_whose_they_are(name: str) -> None:
    assert node_marked(MARK, router_mark(MARK, "lab", name)) == (name, True)
    assert node_marked(MARK, clients_mark(MARK, "lab", name)) == (name, False)
    assert stub_marked(MARK, stub_mark(MARK, name, ()))[0] == name
    other = mark_of("owner", "another machine")
    assert node_marked(other, router_mark(MARK, "lab", name)) == ("", False)
    assert stub_marked(other, stub_mark(MARK, name, ()))[0] == ""
    assert link_marked(MARK, router_mark(MARK, "lab", name)) is None


def test_tunnels_have_different_numbers_on_which_machines_agree() -> None:
    links = [f"a--b{number}" for number in range(5000)]  # so that some hashes are the same
    numbers = tunnel_numbers("lab", links)
    assert len(set(numbers.values())) == len(links)
    assert all(0 <= number < 2**24 for number in numbers.values())
    assert tunnel_numbers("lab", links[::-1]) == numbers
