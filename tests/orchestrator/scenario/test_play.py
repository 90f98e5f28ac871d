"""A scenario is played, and whatever is not as it should be is found, and told with its event."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.errors import CannotNetwork
from orchestrator.network import App, AppState, Found, LinkState, Network, PortCounters
from orchestrator.routers.base import Done, Progress
from orchestrator.routers.memory import MemoryRouters
from orchestrator.routers.memory_apps import MemoryApps
from orchestrator.scenario.chance import Picker
from orchestrator.scenario.generate import events_of, start_of
from orchestrator.scenario.ground import MemoryGround
from orchestrator.scenario.play import Player, Row, lost_by
from orchestrator.scenario.results import COLUMNS, csv_text, json_line, told
from orchestrator.scenario.spec import Scenario, load_scenario, parse_scenario

GOLDEN = Path(__file__).parents[2] / "golden" / "scenario" / "churn.yaml"


class Saboteur(MemoryRouters):
    """Routers that lie from the third time on: `wrong` says how they do."""

    wrong = ""

    def __init__(self) -> None:
        super().__init__("test")
        self.sets = 0
        self.sent = 100

    def set(self, wanted: Network, progress: Progress | None = None) -> Done:
        self.sets += 1
        if self.bad("refuse"):
            raise CannotNetwork("no more of it")
        return super().set(wanted, progress)

    def bad(self, how: str) -> bool:
        return self.wrong == how and self.sets == 3

    def found(self) -> Found:
        found = super().found()
        if self.bad("router"):
            return replace(found, routers=found.routers[1:])
        if self.bad("extra"):
            return replace(found, routers=(*found.routers, "zz"))
        if self.bad("link"):
            first, *rest = found.links
            link = replace(first.link, weight=9.0)
            return replace(found, links=(LinkState(link, first.engine), *rest))
        return found

    def counters(self) -> tuple[PortCounters, ...]:
        self.sent += -50 if self.bad("counters") else 10
        return tuple(replace(each, tx_bytes=self.sent) for each in super().counters())

    def path(self, a: str, b: str) -> Sequence[str]:
        way = self.paths().path(a, b)
        if self.bad("way"):
            return ()
        if self.bad("loop"):
            return (*way[:-1], *way)
        return way


class Ground(MemoryGround):
    def __init__(self, routers: Saboteur) -> None:
        self.fake = routers
        apps = MemoryApps(lambda: {*routers.found().routers, *routers.found().stubs})
        super().__init__(routers, apps, routers.path)

    def strangers(self) -> object:
        return self.fake.bad("strangers")

    def leaked(self, network: Network) -> Sequence[str]:
        return ["ew-x"] if self.fake.bad("leak") else []


def rows_of(
    scenario: Scenario, ground: MemoryGround, pace: Callable[[float], None] = lambda _at: None
) -> list[Row]:
    start = start_of(scenario)
    return [*Player(ground, start, events_of(scenario, start), seed=scenario.seed).play(pace)]


def test_all_events_are_played_in_their_time_and_nothing_is_left() -> None:
    ground = Ground(Saboteur())
    times: list[float] = []
    scenario = load_scenario(GOLDEN)
    rows = rows_of(scenario, ground, times.append)
    assert [row.number for row in rows] == list(range(66))
    assert [row.broken for row in rows if row.broken] == []
    assert times == [row.at_s for row in rows[1:-1]]
    assert (rows[0].event, rows[0].routers, rows[0].links, rows[0].made) == ("start", 8, 7, 15)
    assert (rows[-1].event, rows[-1].routers) == ("end", 0)
    assert {row.answered for row in rows if row.event.startswith("request")} == {True}
    assert ground.routers.found() == Found()
    assert ground.apps.all() == ()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("refuse", "it cannot be done: no more of it"),
        ("router", "router r1 is not there"),
        ("extra", "router zz is there, and not wanted"),
        ("link", "is up, weight 9, 1 ms"),
        ("counters", "tx_bytes of "),
        ("way", "there is no way"),
        ("loop", "the way has a loop: "),
        ("strangers", "what is not ours was changed"),
        ("leak", "ew-x was left behind"),
    ],
)
def test_what_is_broken_is_found_and_it_stops_there(wrong: str, message: str) -> None:
    events = "".join(f"  - {{at: {at} s, link_up: r1--r2}}\n" for at in range(1, 5))
    scenario = parse_scenario(f"duration: 9 s\nrouters: 5\nevents:\n{events}", Path("s.yaml"))
    routers = Saboteur()
    routers.wrong = wrong
    rows = rows_of(scenario, Ground(routers))
    assert [bool(row.broken) for row in rows] == [False, False, True]
    assert message in " ".join(rows[-1].broken)
    assert routers.found() == Found(), "what was made is removed all the same"


def test_whoever_stops_listening_leaves_nothing_behind() -> None:
    routers = Saboteur()
    scenario = load_scenario(GOLDEN)
    start = start_of(scenario)
    playing = Player(Ground(routers), start, events_of(scenario, start), seed=1).play(
        lambda _at: None
    )
    next(playing)
    assert routers.found().routers
    playing.close()
    assert routers.found() == Found()


def test_programs_that_a_killed_player_left_are_no_part_of_the_start() -> None:
    scenario = parse_scenario("duration: 1 s\nrouters: 2\n", Path("s.yaml"))
    ground = Ground(Saboteur())
    ground.routers.set(start_of(scenario))
    ground.apps.start(App("left", "r1", ("sleep",)))
    player = Player(ground, start_of(scenario), (), seed=1).play(lambda _at: None)
    assert next(player).broken == ()
    assert ground.apps.all() == ()
    assert [row.event for row in player] == ["end"]


def test_a_program_without_its_router_is_found() -> None:
    class Apps(MemoryApps):
        def remove(self, router: str, name: str) -> None:
            """Do nothing."""

        def all(self) -> tuple[AppState, ...]:
            return (AppState(App("a", "gone", ("x",)), running=True),)

    routers = Saboteur()
    ground = MemoryGround(routers, Apps(lambda: ()), routers.path)
    rows = rows_of(parse_scenario("duration: 1 s\nrouters: 2\n", Path("s.yaml")), ground)
    assert rows[-1].broken == ("program gone/a is there without its router",)


def test_datagrams_that_receivers_lost_are_counted_once() -> None:
    consoles = [b"", b'{"run": "a", "lost": 2}\n', b'{"run": "a", "lost": 5}\n{"run"', b""]
    scenario = parse_scenario(
        "duration: 9 s\nrouters: 2\nevents:\n"
        "  - {at: 1 s, start_app: {app: r1/in, run: receive}}\n"
        "  - {at: 2 s, link_down: r1--r2}\n"
        "  - {at: 3 s, link_up: r1--r2}\n",
        Path("s.yaml"),
    )
    routers = Saboteur()
    ground = Ground(routers)
    ground.apps = SimpleNamespace(  # type: ignore[assignment]
        start=ground.apps.start,
        all=ground.apps.all,
        remove=ground.apps.remove,
        console=lambda _router, _name: consoles.pop(0),
    )
    assert [row.lost for row in rows_of(scenario, ground)] == [None, 0, 2, 3, None]
    assert (
        lost_by(b'{"run": "a", "lost": 2}\n{"run": "b", "lost": 1}\n{"run": "a", "lost": 4}') == 5
    )


def test_rows_can_be_read_by_people_and_programs() -> None:
    row = Row(3, 1.5, "link-down a--b", 0.01234567, 0.002, 2, 1, 0, 1, 0, 4, None, 7, ("x", "y"))
    data = json.loads(json_line(row))
    assert tuple(data) == COLUMNS
    assert (data["took_s"], data["broken"], data["lost"]) == (0.012346, ["x", "y"], 7)
    header, line = csv_text([row]).splitlines()
    assert header == ",".join(COLUMNS)
    assert line == "3,1.5,link-down a--b,0.012346,0.002,2,1,0,1,0,4,,7,x | y"
    assert told(row).split("  ")[-3:] == ["7 lost", "BROKEN: x", "BROKEN: y"]


def test_a_thousand_routers_churn_in_memory() -> None:
    scenario = parse_scenario(
        "seed: 5\nduration: 4 s\nrouters: 1000\npicker: preferential\n"
        "router_arrivals: {every: {exponential: 500 ms}, lifetime: {uniform: [1 s, 5 s]},"
        " links: 3, picker: lifetime}\n"
        "link_failures: {mtbf: 400 s, mttr: 2 s}\n"
        "requests: {every: {exponential: 500 ms}}\n",
        Path("big.yaml"),
    )
    rows = rows_of(scenario, Ground(Saboteur()))
    assert len(rows) > 20
    assert min(row.routers for row in rows[:-1]) >= 1000
    assert [row.broken for row in rows if row.broken] == []
    assert scenario.picker is Picker.PREFERENTIAL
