"""Which passages are wanted of which routes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from orchestrator.errors import CannotNetwork
from orchestrator.model import Chain, ChainFunction
from orchestrator.rules.parse import parse
from orchestrator.steering.chained import ChainSteering
from orchestrator.steering.chains import MACHINE, Passage, Station
from orchestrator.steering.functions import Function, Intercept
from tests.world import World, a_service, straight_to_cold

MakeWorld = Callable[..., World]
AWAKE = straight_to_cold(None)
EDGE = Station("ew-lab-edge", IPv4Address("10.0.0.1"))


class Kernel:
    """Remembers the passages it was to set."""

    def __init__(self) -> None:
        self.passages: tuple[Passage, ...] = ()
        self.refuses = False

    def set(self, passages: Sequence[Passage]) -> None:
        if self.refuses:
            raise CannotNetwork("no VXLAN")
        self.passages = tuple(passages)


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    world = make_world(*(a_service(name, idle=AWAKE) for name in ("firewall", "shop")))
    world.control.apply(replace(world.lab, chains=(Chain("shop", ("firewall", "shop")),)))
    return world


def steering(world: World, kernel: Kernel) -> ChainSteering:
    return ChainSteering(
        kernel,
        lambda: world.control.lab,
        endpoints_of=world.control.fleet.endpoints,
        namespace_of=lambda instance: f"of-{instance}",
        entries=lambda _lab: (EDGE,),
        again_s=0.02,
    )


def test_a_chain_whose_functions_answer_is_a_passage(world: World) -> None:
    kernel = Kernel()
    told = steering(world, kernel)
    told.set(world.control.fleet.routes())
    assert not len(kernel.passages)
    (end,) = world.ask("shop")
    told.set(world.control.fleet.routes())
    (passage,) = kernel.passages
    (firewall,) = world.control.fleet.endpoints("firewall")
    assert passage.entries[0].namespace == MACHINE
    assert passage.entries[1:] == (EDGE,)
    assert passage.target == end.address
    assert passage.stations == tuple(
        Station(f"of-{each.instance}", each.address) for each in (firewall, end)
    )
    kernel.passages = ()
    told.set(world.control.fleet.routes())
    assert kernel.passages == (), "the kernel is not asked again for what is the same"


def test_a_function_says_what_it_does_to_packets(world: World) -> None:
    does = ChainFunction(parse("tcp and dst port 80"), ((parse("udp"), 53),))
    services = [replace(each, function=does) for each in world.lab.services]
    world.control.apply(replace(world.control.lab, services=tuple(services)))
    kernel = Kernel()
    world.ask("shop")
    steering(world, kernel).set(world.control.fleet.routes())
    wanted = Function(parse("tcp and dst port 80"), (Intercept(parse("udp"), 53),))
    assert [each.function for each in kernel.passages[0].stations] == [wanted, wanted]


def test_it_is_closed_while_a_function_is_missing(world: World) -> None:
    kernel = Kernel()
    told = steering(world, kernel)
    world.ask("shop")
    told.set(world.control.fleet.routes())
    (whole,) = kernel.passages
    world.control.release("firewall")
    told.set(world.control.fleet.routes())
    assert kernel.passages == (replace(whole, stations=(), entries=kernel.passages[0].entries),)
    assert [each.namespace for each in kernel.passages[0].entries] == [MACHINE, EDGE.namespace]
    world.ask("shop")
    told.set(world.control.fleet.routes())
    assert kernel.passages == (whole,)


def test_it_is_closed_from_the_start_if_a_function_died_meanwhile(world: World) -> None:
    world.ask("shop")
    world.control.release("firewall")
    kernel = Kernel()
    steering(world, kernel).set(world.control.fleet.routes())
    (passage,) = kernel.passages
    assert passage.stations == ()


def test_a_function_may_be_the_end_of_another_chain(make_world: MakeWorld) -> None:
    names = ("scrubber", "firewall", "shop")
    world = make_world(*(a_service(name, idle=AWAKE) for name in names))
    chains = Chain("inner", ("scrubber", "firewall")), Chain("shop", ("firewall", "shop"))
    world.control.apply(replace(world.lab, chains=chains))
    world.ask("shop")
    kernel = Kernel()
    steering(world, kernel).set(world.control.fleet.routes())
    stations = {each.name: len(each.stations) for each in kernel.passages}
    assert stations == {"inner": 0, "shop": 2}


def test_a_host_that_the_lab_no_longer_has_closes_the_chain(world: World) -> None:
    world.ask("shop")
    kernel = Kernel()
    told = steering(world, kernel)
    told._lab = lambda: replace(world.control.lab, hosts=())
    told.set(world.control.fleet.routes())
    (passage,) = kernel.passages
    assert passage.stations == ()


def test_there_is_none_when_its_end_sleeps(world: World) -> None:
    kernel = Kernel()
    told = steering(world, kernel)
    world.ask("shop")
    told.set(world.control.fleet.routes())
    world.control.release("shop")
    told.set(world.control.fleet.routes())
    assert not len(kernel.passages)


def test_what_leads_to_guests_ends_with_them(world: World) -> None:
    world.ask("shop")
    world.control.close(end_guests=True)
    assert [route for route in world.seen.history[-1] if route.endpoints] == []


def test_what_the_kernel_refuses_is_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    kernel = Kernel()
    kernel.refuses = True
    world.ask("shop")
    steering(world, kernel).set(world.control.fleet.routes())
    assert "no VXLAN" in caplog.text


def test_what_the_kernel_refused_is_tried_again(world: World) -> None:
    kernel = Kernel()
    kernel.refuses = True
    world.ask("shop")
    told = steering(world, kernel)
    told.set(world.control.fleet.routes())
    kernel.refuses = False
    world.eventually(lambda: len(kernel.passages) == 1)
    told.close()


def test_what_could_not_be_removed_is_when_no_chain_is_left(world: World) -> None:
    kernel = Kernel()
    world.ask("shop")
    told = steering(world, kernel)
    told.set(world.control.fleet.routes())
    kernel.refuses = True
    world.control.release("shop")
    told.set(world.control.fleet.routes())
    told.close()
    kernel.refuses = False
    world.control.apply(replace(world.control.lab, chains=()))
    told.set(world.control.fleet.routes())
    assert not len(kernel.passages)


def test_namespaces_are_looked_up_once(world: World) -> None:
    """A record is read for that, of each host, and every wake of any service comes by here."""
    asked: list[str] = []

    def look_up(instance: str) -> str:
        asked.append(instance)
        return f"of-{instance}"

    told = steering(world, Kernel())
    told._namespace_of = look_up
    world.ask("shop")
    for _ in range(3):
        told.set(world.control.fleet.routes())
    assert len(asked) == 2
    world.control.release("firewall")
    told.set(world.control.fleet.routes())
    world.ask("shop")
    told.set(world.control.fleet.routes())
    assert len(asked) == 3, "what was made anew may be elsewhere"
