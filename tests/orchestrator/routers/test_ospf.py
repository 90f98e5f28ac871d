"""What routing daemons are told, compared with golden files: `UPDATE_GOLDEN=1` rewrites them."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import CannotNetwork
from orchestrator.labfile import load_lab
from orchestrator.network import Network, VirtualLink
from orchestrator.routers.ospf import MOST_COST, bird_config, costs_of
from orchestrator.wanted_network import network_of

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden" / "bird"
FIVE = network_of(load_lab(ROOT / "examples" / "five-routers.yaml"))
LOG = Path("/run/edgewake/ospf/0123456789ab/r1.log")

WITHOUT_SIX = replace(
    FIVE,
    routers=tuple(replace(router, address6=None) for router in FIVE.routers),
    stubs=(),
    links=(),
)
PICTURES = {
    "r1": bird_config(FIVE, FIVE.router("r1"), LOG),
    "r4-without-bfd": bird_config(FIVE, FIVE.router("r4"), LOG, bfd=False),
    "alone-without-ipv6": bird_config(WITHOUT_SIX, WITHOUT_SIX.router("r1"), LOG),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_configuration_is_as_the_golden_file_shows(name: str) -> None:
    golden = GOLDEN / f"{name}.conf"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(PICTURES[name])
    assert PICTURES[name] == golden.read_text()


def test_no_golden_file_is_left_over() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == set(PICTURES)


def weighing(*weights: float) -> Network:
    links = (VirtualLink(f"a{n}", f"b{n}", weight=weight) for n, weight in enumerate(weights))
    return Network("lab", links=tuple(links))


@pytest.mark.parametrize(
    ("weights", "costs"),
    [
        ((), []),
        ((1, 2, 65535), [1, 2, 65535]),
        ((2, 4), [2, 4]),
        ((1, 2.5), [2, 5]),
        ((0.1, 0.25), [2, 5]),
        ((65536, 131072), [1, 2]),
    ],
)
def test_costs_are_weights_in_whole_numbers(weights: tuple[float, ...], costs: list[int]) -> None:
    assert list(costs_of(weighing(*weights)).values()) == costs


def test_weights_that_ospf_cannot_tell_apart_are_refused() -> None:
    with pytest.raises(CannotNetwork, match="link a1--b1: its weight 65536 is too large"):
        costs_of(weighing(1, 65536))


@given(st.lists(st.decimals("0.01", 600, places=2).map(float), min_size=1))
def test_costs_are_in_proportion_to_weights(weights: list[float]) -> None:
    costs = list(costs_of(weighing(*weights)).values())
    assert all(1 <= cost <= MOST_COST for cost in costs)
    for weight, cost in zip(weights, costs, strict=True):
        assert cost * weights[0] == pytest.approx(costs[0] * weight, rel=1e-12)
