"""Services that cannot be woken: other hosts and flavours are tried, then they are left alone."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from dns_boot.answers import Ede, failure
from images.bootspec import Image
from orchestrator.errors import BackingOff, GuestDied, NotReady
from orchestrator.hypervisors.base import Stamp
from orchestrator.model import Client, Guest, Host, Lab
from tests.world import World, a_host, a_service, an_image

MakeWorld = Callable[..., World]
FIRST_S = 0.2  # the first pause between wakes, here


@pytest.fixture(autouse=True)
def _shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.failures.FIRST_DELAY_S", FIRST_S)


def two_hosts() -> list[Host]:
    return [a_host("a"), a_host("b", 1)]


def starts(world: World) -> int:
    return sum(len(driver.starts) for driver in world.drivers.values())


def image_of(guest: Guest) -> str:
    kernel = guest.boot.kernel
    assert kernel is not None
    return kernel.parent.name


@contextmanager
def dying(world: World, *bad: str) -> Iterator[list[tuple[str, str]]]:
    """Have guests of some images die before they answer; yields what is started: host, image."""
    started: list[tuple[str, str]] = []
    before = {name: driver.start for name, driver in world.drivers.items()}
    doomed: set[IPv4Address] = set()
    service_at, killers = world.service_at, []
    world.answer_s["doomed"] = None
    world.service_at = lambda at: "doomed" if at in doomed else service_at(at)  # type: ignore[method-assign]

    def kill(host: str, name: str) -> None:
        world.eventually(lambda: world.control._boots.waiting_for(name))
        world.drivers[host].kill(name, "crashed")

    def start(host: str, guest: Guest, stamp: Stamp) -> None:
        started.append((host, image_of(guest)))
        doomed.discard(guest.mark.address)
        if image_of(guest) in bad:
            doomed.add(guest.mark.address)
        before[host](guest, stamp)
        if image_of(guest) in bad:
            killers.append(threading.Thread(target=kill, args=(host, guest.name)))
            killers[-1].start()

    for name, driver in world.drivers.items():
        driver.start = lambda guest, stamp, name=name: start(name, guest, stamp)  # type: ignore[method-assign,misc]
    yield started
    for killer in killers:
        killer.join()
    for name, driver in world.drivers.items():
        driver.start = before[name]  # type: ignore[method-assign]
    world.service_at = service_at  # type: ignore[method-assign]


@pytest.fixture
def flavours(tmp_path: Path) -> tuple[Image, ...]:
    """Return two images, `fast` and `plain`, of the same program."""
    found = []
    for name in ("fast", "plain"):
        (tmp_path / name).mkdir()
        image = replace(an_image(tmp_path / name), name=name)
        image.main_file.write_bytes(image.main_file.read_bytes() + name.encode())
        found.append(image)
    return tuple(found)


@pytest.fixture
def make(make_world: MakeWorld, flavours: tuple[Image, ...]) -> Callable[..., World]:
    """Return a maker of worlds whose service has two flavours."""

    def made(*hosts: Host, **changes: object) -> World:
        web = a_service("web", images=("fast", "plain"), **{"deadline_s": 4.0, **changes})
        world = make_world(web, hosts=hosts, start=False)
        world.lab = replace(world.lab, images=flavours)
        world.start()
        return world

    return made


# --- other flavours, other hosts ------------------------------------------------------------------


def test_a_flavour_that_dies_is_followed_by_the_next_in_the_same_wake(
    make: Callable[..., World],
) -> None:
    world = make(a_host("a"))
    with dying(world, "fast") as started:
        assert world.ask("web")
    assert started == [("a", "fast"), ("a", "plain")]
    (told,) = world.events("other-flavour")
    assert told.text.startswith("ew-t-web-0 on a boots image plain: image fast failed there once")
    assert "crashed" in told.text


def test_another_host_goes_before_another_flavour(make: Callable[..., World]) -> None:
    world = make(*two_hosts())
    with dying(world, "fast") as started:
        (end,) = world.ask("web")
    assert [image for _, image in started] == ["fast", "fast", "plain"]
    assert {host for host, _ in started[:2]} == {"a", "b"}
    assert end.host == started[-1][0]


def test_a_flavour_that_failed_twice_is_passed_over(make: Callable[..., World]) -> None:
    world = make(a_host("a"))
    with dying(world, "fast") as started:
        for _ in range(3):
            world.ask("web")
            world.control.release("web")
    images = [image for _, image in started]
    assert images == ["fast", "plain", "fast", "plain", "plain"]
    assert "2 times in a row" in world.events("other-flavour")[-1].text
    (choice,) = world.control.explain("web")
    assert choice.image == "plain"


def test_what_a_host_boots_is_what_its_instance_is_taken_for(
    make: Callable[..., World], flavours: tuple[Image, ...]
) -> None:
    world = make(a_host("a"))
    boots, web = world.control._boots, world.lab.service("web")
    preferred = boots.fit_of(web, "a")
    with dying(world, "fast"):
        world.ask("web")
        assert boots.fit_of(web, "a") != preferred, "it runs the other flavour"
        world.control.release("web")
    assert boots.fit_of(web, "a") == preferred, "one failure is not enough to pass it over"


@pytest.mark.parametrize("mended", ["calm", "applied", "rebuilt"])
def test_the_preferred_flavour_is_tried_again(
    make: Callable[..., World],
    flavours: tuple[Image, ...],
    monkeypatch: pytest.MonkeyPatch,
    mended: str,
) -> None:
    world = make(a_host("a"))
    with dying(world, "fast") as started:
        for _ in range(2):
            world.ask("web")
            world.control.release("web")
        started.clear()
        world.ask("web")
        world.control.release("web")
        assert started == [("a", "plain")]
        if mended == "calm":
            monkeypatch.setattr("orchestrator.flavours.CALM_S", 0.0)
        elif mended == "applied":
            world.control.apply(world.lab)
        else:
            kernel = flavours[0].kernel
            assert kernel is not None
            kernel.write_bytes(kernel.read_bytes() + b"\0")
        started.clear()
        world.ask("web")
    assert started[0] == ("a", "fast")


def test_a_host_on_which_everything_fails_comes_last(make_world: MakeWorld) -> None:
    world = make_world(hosts=two_hosts())
    (first,) = world.ask("web")
    bad, good = first.host, "b" if first.host == "a" else "a"
    world.control.release("web")
    world.drivers[bad].fail = "no more loop devices"
    for _ in range(2):
        assert [end.host for end in world.ask("web")] == [good]
        world.control.release("web")
    world.drivers[bad].fail = ""
    assert [end.host for end in world.ask("web")] == [good], "it failed there twice in a row"


def test_a_guest_that_dies_soon_after_it_answered_counts_as_well(
    make: Callable[..., World],
) -> None:
    world = make(a_host("a"))
    for _ in range(2):
        world.ask("web")
        world.drivers["a"].kill("ew-t-web-0")
        world.eventually(lambda: world.seen.hosts_of("web") == [])
    with dying(world) as started:
        world.ask("web")
    assert started == [("a", "plain")]


# --- the deadline is shared -----------------------------------------------------------------------


def test_a_host_whose_guests_never_answer_leaves_time_for_the_other(
    make_world: MakeWorld,
) -> None:
    world = make_world(a_service("web", deadline_s=2.0), hosts=two_hosts())
    silent: list[str] = []

    def service_at(address: object) -> str:
        """Be silent wherever the first guest was started."""
        hosts = {str(each.network.subnet).rpartition(".")[0]: each.name for each in world.lab.hosts}
        host = hosts[str(address).rpartition(".")[0]]
        silent[:] = silent or [host]
        return "silent" if host in silent else "web"

    world.service_at = service_at  # type: ignore[method-assign,assignment]
    world.answer_s["silent"] = None
    (end,) = world.ask("web")
    assert end.host not in silent
    wake = world.control.wakes.last("web")[-1]
    assert wake.outcome == "ready"
    stages = [stage for stage, _ in wake.stamps]
    assert stages.count("decided") == 2
    assert stages.count("silent") == 1


def test_the_only_host_has_all_of_the_time(make_world: MakeWorld) -> None:
    world = make_world(a_service("web", deadline_s=1.0))
    world.answer_s["web"] = 0.8
    assert world.ask("web")


def test_after_a_failed_wake_a_guest_may_take_all_of_the_time(make_world: MakeWorld) -> None:
    """It was given a half on each host; it was only slow."""
    world = make_world(a_service("web", deadline_s=1.2), hosts=two_hosts())
    world.answer_s["web"] = 0.9
    assert isinstance(world.summon("web").exception(5), NotReady)
    assert world.ask("web")
    world.control.release("web")
    assert world.ask("web"), "from now on it is known to be slow"


# --- backing off ----------------------------------------------------------------------------------


def hopeless(make_world: MakeWorld, failures: int = 2) -> World:
    """Return a world whose service failed so many times in a row."""
    world = make_world(hosts=[a_host("a")])
    with dying(world, image_folder(world)):
        for _ in range(failures):
            wait_out(world)
            assert isinstance(world.summon("web").exception(5), GuestDied)
    return world


def image_folder(world: World) -> str:
    return world.lab.images[0].main_file.parent.name


def wait_out(world: World) -> None:
    world.eventually(lambda: world.control._hopeless.refusal("web") is None)


def test_one_failure_is_tried_again_at_once(make_world: MakeWorld) -> None:
    world = hopeless(make_world, failures=1)
    assert world.ask("web")
    assert world.events("backing-off") == []


def test_failures_in_a_row_are_refused_at_once_with_the_reason(make_world: MakeWorld) -> None:
    world = hopeless(make_world)
    booted = starts(world)
    errors = [world.summon("web").exception(0) for _ in range(50)]
    assert starts(world) == booted, "nothing was booted for them"
    error = errors[0]
    assert isinstance(error, BackingOff)
    assert "web: 2 wakes in a row failed, the next try is in 1 s; the last: ew-t-web-0" in str(
        error
    )
    assert "edgewake wake web" in error.hint
    assert len(world.control.wakes.last("web", 100)) == 2, "a refusal is no wake"
    answer = failure(error)
    assert answer.ede is not None
    assert answer.ede[0] is Ede.NOT_READY
    assert "the next try is in 1 s" in answer.ede[1][:100]


def test_the_pause_doubles_and_is_told(make_world: MakeWorld) -> None:
    world = hopeless(make_world, failures=4)
    trouble = world.control.status().services[0].trouble
    assert trouble.startswith("4 wakes in a row failed, the next try is ")
    texts = [event.text for event in world.events("backing-off")]
    assert [text.split(" for ")[1].split(" s;")[0] for text in texts] == ["0.2", "0.4", "0.8"]


def test_a_success_ends_it(make_world: MakeWorld) -> None:
    world = hopeless(make_world)
    wait_out(world)
    assert world.ask("web")
    world.control.release("web")
    assert world.control.status().services[0].trouble == ""
    with dying(world, image_folder(world)):
        assert isinstance(world.summon("web").exception(5), GuestDied)
    assert world.ask("web"), "the row begins anew"


def test_a_person_need_not_wait(make_world: MakeWorld) -> None:
    world = hopeless(make_world, failures=3)
    assert isinstance(world.summon("web").exception(0), BackingOff)
    insisting = world.control.summon("web", Client(), insist=True)
    assert insisting.endpoints.result(5)


def test_a_query_joins_the_wake_of_a_person(make_world: MakeWorld) -> None:
    world = hopeless(make_world, failures=3)
    world.answer_s["web"] = 0.3
    insisting = world.control.summon("web", Client(), insist=True)
    assert world.summon("web").result(5) == insisting.endpoints.result(5)


@pytest.mark.parametrize("news", ["applied", "a new host", "a new image"])
def test_something_new_is_tried_without_waiting(make_world: MakeWorld, news: str) -> None:
    world = hopeless(make_world, failures=3)
    lab: Lab = world.lab
    if news == "applied":
        world.control.apply(lab)
    elif news == "a new host":
        world.control._hopeless.look_for_news()
        assert world.control._hopeless.refusal("web"), "there was no news before"
        driver = world.control._boots.hosts
        driver["b"] = world.open_host(a_host("b", 1))
        world.control.fleet.use(replace(lab, hosts=(*lab.hosts, a_host("b", 1))))
        driver["b"].hypervisor.set_network(a_host("b", 1).network)
        world.control._hopeless.look_for_news()
    else:
        kernel = lab.images[0].main_file
        kernel.write_bytes(kernel.read_bytes() + b"\0")
        world.control.expire()
    assert world.ask("web")


def test_a_full_host_is_no_reason_to_back_off(make_world: MakeWorld) -> None:
    """There may be room at any moment, and asking for it boots nothing."""
    big = a_service("big", resources=replace(a_service("x").resources, memory_mib=9999))
    world = make_world(big, hosts=[a_host("a")])
    for _ in range(5):
        error = world.summon("big").exception(5)
        assert error is not None
        assert not isinstance(error, BackingOff)


def test_the_journal_does_not_fill_up(make_world: MakeWorld) -> None:
    world = hopeless(make_world, failures=3)
    before = time.monotonic()
    while time.monotonic() < before + FIRST_S:
        world.summon("web")
        world.control.expire()
    assert len(world.events("wake-failed")) == 3
    assert len(world.events("backing-off")) == 2
