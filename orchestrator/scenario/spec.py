"""What may be written in a scenario file, and how it becomes a `Scenario`.

Read as strictly as a lab file: everything wrong is told in one `LabError`, with file, line and key.
Names of routers in the file are looked up when the events are made (`generate`), since routers come
and go.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from orchestrator.lab_entry import Entry
from orchestrator.lab_report import Report, Where
from orchestrator.lab_values import (
    Address4,
    Address6,
    Bandwidth,
    Key,
    Latency,
    Line,
    Seconds,
    Share,
    SomeSeconds,
    Weight,
    Written,
    suggestion,
)
from orchestrator.lab_yaml import read, read_text, validated
from orchestrator.network import Quality
from orchestrator.programs import catalogue
from orchestrator.scenario.chance import Duration, Picker, Shape

MOST_EVENTS = 1_000_000
PLAIN = Quality()
LONGEST_S = 30 * 86400.0


def _whole(least: int, most: int) -> Written:
    def read_whole(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            raise ValueError(f"must be a whole number, {least} to {most}")
        return int(text)

    return Written(read_whole, {"type": "integer", "minimum": least, "maximum": most}, int)


def _picker(text: str) -> Picker:
    if text not in set(Picker):
        raise ValueError(f"unknown picker {text[:40]!r}; {suggestion(text, Picker)}")
    return Picker(text)


def _both_ends(text: str) -> tuple[str, str]:
    a, dashes, b = text.partition("--")
    if not (a and dashes and b) or "--" in b:
        raise ValueError("must be written ROUTER--ROUTER")
    if a == b:
        raise ValueError("must name two routers")
    return min(a, b), max(a, b)


def _place(text: str) -> tuple[str, str]:
    router, slash, name = text.partition("/")
    if not (router and slash and name) or "/" in name:
        raise ValueError("must be written ROUTER/PROGRAM")
    return router, name


_TEXT = {"type": "string"}
Seed = Annotated[int, _whole(0, 2**63 - 1)]
Many = Annotated[int, _whole(0, 10_000)]
Pick = Annotated[Picker, Written(_picker, {"enum": [str(each) for each in Picker]})]
Ends = Annotated[tuple[str, str], Written(_both_ends, _TEXT, "--".join)]
Place = Annotated[tuple[str, str], Written(_place, _TEXT, "/".join)]


# --- events of a script ---------------------------------------------------------------------------


class QualityEntry(Entry):
    """What a new link does to packets; also what a changed one does."""

    latency: Latency = Field(default=1.0, description="Latency in one direction.")
    jitter: Latency = Field(default=0.0, description="How much more or less the latency may be.")
    loss: Share = Field(default=0.0, description="Share of packets that get lost.")
    bandwidth: Bandwidth = Field(default=1000.0, description="Bandwidth in each direction.")
    weight: Weight = Field(default=1.0, description="Routing weight; smaller is preferred.")

    @model_validator(mode="after")
    def _no_time_travel(self) -> Self:
        if self.jitter > self.latency:
            raise ValueError("has more 'jitter' than 'latency': no packet arrives before it left")
        return self

    def noun(self) -> Quality:
        """Return the quality."""
        return Quality(self.latency, self.jitter, self.loss / 100, self.bandwidth)


class LinkChangeEntry(QualityEntry):
    """A link, and what it is to be."""

    link: Ends = Field(description="Its two routers, as ROUTER--ROUTER.")


class NewRouterEntry(Entry):
    """A router that arrives."""

    name: Key = Field(description="Its name.")
    address: Address4 | None = Field(default=None, description="Default: the next of the pool.")
    address6: Address6 | None = Field(default=None, description="Default: the next of the pool.")
    links: list[Key] = Field(default=[], description="Routers it is linked to.")


class WeightEntry(Entry):
    """A link, and its new weight."""

    link: Ends = Field(description="Its two routers, as ROUTER--ROUTER.")
    to: Weight = Field(description="The weight.")


class NewAppEntry(Entry):
    """A program that is started."""

    app: Place = Field(description="Where, and what it is called, as ROUTER/PROGRAM.")
    run: Key = Field(description="Which of the ready-made programs.")
    parameters: dict[str, Line] = Field(default={}, description="Its parameters, by name.")


class RequestEntry(Entry):
    """Somebody asks something of somebody."""

    source: Key = Field(description="The router or stub that asks.")
    target: Key = Field(description="The router or stub that is asked.")


class EventEntry(Entry):
    """One event: when, and exactly one thing that happens."""

    at: Seconds = Field(description="When, after the start.")
    add_router: NewRouterEntry | None = Field(default=None, description="A router arrives.")
    remove_router: Key | None = Field(default=None, description="A router goes.")
    add_link: LinkChangeEntry | None = Field(default=None, description="A link arrives.")
    remove_link: Ends | None = Field(default=None, description="A link goes.")
    link_down: Ends | None = Field(default=None, description="A link goes down.")
    link_up: Ends | None = Field(default=None, description="A link comes up.")
    weight: WeightEntry | None = Field(default=None, description="A link gets another weight.")
    quality: LinkChangeEntry | None = Field(
        default=None, description="A link gets another quality."
    )
    start_app: NewAppEntry | None = Field(default=None, description="A program is started.")
    stop_app: Place | None = Field(default=None, description="A program is ended.")
    request: RequestEntry | None = Field(default=None, description="A packet there and back.")

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if len(self.what()) != 1:
            verbs = [name for name in type(self).model_fields if name != "at"]
            raise ValueError(f"needs exactly one thing that happens: {', '.join(verbs)}")
        return self

    def what(self) -> dict[str, Any]:
        """Return what happens, by its verb."""
        every = {name: getattr(self, name) for name in type(self).model_fields if name != "at"}
        return {name: value for name, value in every.items() if value is not None}


# --- chance ---------------------------------------------------------------------------------------


class DurationEntry(Entry):
    """A duration of chance: exactly one of its kinds."""

    fixed: SomeSeconds | None = Field(default=None, description="Always this.")
    uniform: list[Seconds] | None = Field(
        default=None, min_length=2, max_length=2, description="All alike between these two."
    )
    exponential: SomeSeconds | None = Field(
        default=None, description="With this mean, and no memory."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [self.fixed, self.uniform, self.exponential]
        if sum(each is not None for each in given) != 1:
            raise ValueError("needs exactly one of fixed, uniform, exponential")
        if self.uniform is not None and self.uniform[0] > self.uniform[1]:
            raise ValueError("must have the shorter one first in 'uniform'")
        return self

    def noun(self) -> Duration:
        """Return the duration."""
        if self.uniform is not None:
            return Duration(Shape.UNIFORM, *self.uniform)
        if self.exponential is not None:
            return Duration(Shape.EXPONENTIAL, self.exponential)
        return Duration(Shape.FIXED, self.fixed or 0.0)


class ArrivalsEntry(Entry):
    """Routers, links or requests that come by chance."""

    every: DurationEntry = Field(description="Time between two.")
    lifetime: DurationEntry | None = Field(default=None, description="How long one stays.")
    picker: Pick = Field(default=Picker.RANDOM, description="How the other ends are chosen.")
    links: Many = Field(default=1, description="Links that a new router comes with.")
    most: Many = Field(default=10_000, description="There are never more than this.")


class FailuresEntry(Entry):
    """Links that fail and are mended, each by itself."""

    mtbf: SomeSeconds = Field(description="Mean time of a link from its mending to its failure.")
    mttr: SomeSeconds = Field(description="Mean time to mend it.")


class ScenarioEntry(Entry):
    """A whole scenario file."""

    name: Key = Field(default="", description="Its name; default: the file's.")
    lab: Line = Field(default="", description="Lab file whose network there is at the start.")
    seed: Seed = Field(default=0, description="What chance begins with.")
    duration: SomeSeconds = Field(description="When it ends.")
    routers: Many = Field(default=0, description="Without a lab: routers at the start.")
    picker: Pick = Field(default=Picker.RANDOM, description="Without a lab: how these are linked.")
    links: QualityEntry = Field(default=QualityEntry(), description="What new links are like.")
    events: list[EventEntry] = Field(default=[], description="What happens for certain.")
    router_arrivals: ArrivalsEntry | None = Field(default=None, description="Routers by chance.")
    link_arrivals: ArrivalsEntry | None = Field(default=None, description="Links by chance.")
    requests: ArrivalsEntry | None = Field(default=None, description="Requests by chance.")
    link_failures: FailuresEntry | None = Field(default=None, description="Links that fail.")


# --- the noun -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Arrivals:
    """How often something comes, and how long it stays (None: to the end); see `ArrivalsEntry`."""

    every: Duration
    lifetime: Duration | None
    picker: Picker
    links: int
    most: int


@dataclass(frozen=True, slots=True)
class Failures:
    """Mean times (seconds) from mending to failure, and from failure to mending."""

    mtbf_s: float
    mttr_s: float


@dataclass(frozen=True, slots=True)
class Scripted:
    """An event of the file, as written, and its line there."""

    at_s: float
    verb: str
    value: Any
    line: int
    index: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario; `lab` is None if it starts with `routers` of its own."""

    name: str
    file: Path
    seed: int
    duration_s: float
    lab: Path | None = None
    routers: int = 0
    picker: Picker = Picker.RANDOM
    quality: Quality = PLAIN
    weight: float = 1.0
    events: tuple[Scripted, ...] = ()
    router_arrivals: Arrivals | None = None
    link_arrivals: Arrivals | None = None
    requests: Arrivals | None = None
    failures: Failures | None = None


def load_scenario(path: Path) -> Scenario:
    """Read a scenario file; LabError says everything that is wrong with it."""
    return parse_scenario(read_text(path), path)


def parse_scenario(text: str, path: Path) -> Scenario:
    """Return the scenario that a text describes; `path` is named in messages and gives its name."""
    report = Report(path)
    data = read(text, report, needs="a duration")
    report.raise_if_any()
    entry = validated(ScenarioEntry, {"name": path.stem.lower(), **data}, report)
    _check(entry, report)
    report.raise_if_any()
    return Scenario(
        name=entry.name,
        file=path,
        seed=entry.seed,
        duration_s=entry.duration,
        lab=path.parent / entry.lab if entry.lab else None,
        routers=entry.routers,
        picker=entry.picker,
        quality=entry.links.noun(),
        weight=entry.links.weight,
        events=tuple(_scripted(entry, report)),
        router_arrivals=_arrivals(entry.router_arrivals),
        link_arrivals=_arrivals(entry.link_arrivals),
        requests=_arrivals(entry.requests),
        failures=_failures(entry.link_failures),
    )


def _check(entry: ScenarioEntry, report: Report) -> None:
    if entry.duration > LONGEST_S:
        report.add(("duration",), f"must be at most {LONGEST_S / 86400:.0f} days")
    if entry.lab and entry.routers:
        report.add(("routers",), "goes with 'lab' no better than two starts: choose one")
    if not entry.lab and not entry.routers and not entry.events and not entry.router_arrivals:
        report.add(("routers",), "is missing, and nothing happens without: say 'lab' or 'routers'")
    for index, event in enumerate(entry.events):
        if event.at > entry.duration:
            report.add(("events", index, "at"), "is after the end ('duration')")
        if event.start_app is not None:
            _check_app(event.start_app, ("events", index, "start_app"), report)


def _check_app(entry: NewAppEntry, where: Where, report: Report) -> None:
    """Report what would be wrong whichever routers there are when it is time."""
    try:
        ready = catalogue.ready_made(entry.run)
        known = {
            text: "192.0.2.1"
            for name, text in entry.parameters.items()
            if name in ready.parameters and ready.parameters[name].is_address
        }
        catalogue.check(entry.run, entry.parameters, known)
    except ValueError as error:
        report.add(where, str(error))


def _scripted(entry: ScenarioEntry, report: Report) -> Iterator[Scripted]:
    for index, event in enumerate(entry.events):
        ((verb, value),) = event.what().items()
        yield Scripted(event.at, verb, value, report.line(("events", index)), index)


def _arrivals(entry: ArrivalsEntry | None) -> Arrivals | None:
    if entry is None:
        return None
    lifetime = entry.lifetime.noun() if entry.lifetime else None
    return Arrivals(entry.every.noun(), lifetime, entry.picker, entry.links, entry.most)


def _failures(entry: FailuresEntry | None) -> Failures | None:
    return None if entry is None else Failures(entry.mtbf, entry.mttr)
