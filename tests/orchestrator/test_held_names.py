"""A name that something on a host holds is not tried there again, and costs no other host."""

from collections.abc import Callable

from orchestrator.errors import NameHeld
from orchestrator.hypervisors.base import Stamp
from orchestrator.hypervisors.memory import MemoryHypervisor
from orchestrator.model import Client, Guest
from tests.world import World


def hold(driver: MemoryHypervisor, *names: str) -> list[str]:
    """Have a host hold names of guests; return those that were tried, as they are."""
    build, tried = driver.start, []

    def start(guest: Guest, stamp: Stamp) -> None:
        tried.append(guest.name)
        if guest.name in names:
            raise NameHeld(driver.host.name, f"{guest.name} is locked", hint="free it")
        build(guest, stamp)

    driver.start = start  # type: ignore[method-assign]
    return tried


def wake(world: World) -> str:
    (end,) = world.control.summon("web", Client()).endpoints.result(10)
    return end.instance


def test_the_same_wake_boots_by_another_name_on_the_only_host(
    make_world: Callable[..., World],
) -> None:
    world = make_world()
    tried = hold(world.drivers["a"], "ew-t-web-0", "ew-t-web-1")
    assert wake(world) == "ew-t-web-2"
    assert tried == [f"ew-t-web-{index}" for index in range(3)]
    told = [event.text for event in world.control.events(100) if event.kind == "boot-failed"]
    assert told
    assert all("free it" in text for text in told)


def test_it_is_not_tried_again_until_the_host_was_lost(make_world: Callable[..., World]) -> None:
    world = make_world()
    tried = hold(world.drivers["a"], "ew-t-web-0")
    for _again in range(2):
        assert wake(world) == "ew-t-web-1"
        world.control.release("web")
    assert tried == ["ew-t-web-0", "ew-t-web-1", "ew-t-web-1"]
    world.control.fleet.host_lost("a", "its libvirtd is restarted")
    world.control.fleet.host_answered("a", world.drivers["a"].free())
    assert wake(world) == "ew-t-web-1"
    assert tried[3:] == ["ew-t-web-0", "ew-t-web-1"]
