"""Metrics as families of samples, and the two text formats that Prometheus reads.

The formats (Prometheus, "Exposition formats", 0.0.4; OpenMetrics 1.0.0) are a page of rules each:
they are written here instead of by a library. They differ in how a counter is named and in the end.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

from orchestrator.metrics import Histogram, Labels

Sample = tuple[str, Labels, float]  # what the name ends with, labels, value

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Family:
    """All samples of one name."""

    name: str
    kind: str
    about: str
    samples: tuple[Sample, ...]


# --- families of what was counted -----------------------------------------------------------------


def family(name: str, kind: str, about: str, values: Iterable[tuple[Labels, float]]) -> Family:
    """Return a family of plain samples."""
    return Family(name, kind, about, tuple(("", labels, value) for labels, value in values))


def single(name: str, kind: str, about: str, value: float) -> Family:
    """Return a family of one sample without labels."""
    return family(name, kind, about, [((), value)])


def counter(name: str, about: str, counted: Mapping[Labels, int]) -> Family:
    """Return a counter with a sample for each set of labels."""
    return family(name, "counter", about, sorted(counted.items()))


def histogram(name: str, about: str, counted: Mapping[Labels, Histogram]) -> Family:
    """Return a histogram with its buckets, sum and count for each set of labels."""
    samples = (
        sample
        for labels, each in sorted(counted.items(), key=lambda item: item[0])
        for sample in _buckets(labels, each)
    )
    return Family(name, "histogram", about, tuple(samples))


def _buckets(labels: Labels, histogram: Histogram) -> Iterator[Sample]:
    counts = tuple(accumulate(histogram.counts))
    for bound, count in zip((*histogram.bounds, float("inf")), counts, strict=True):
        yield "_bucket", (*labels, ("le", number(bound))), count
    yield "_sum", labels, histogram.sum_s
    yield "_count", labels, counts[-1]


# --- as text --------------------------------------------------------------------------------------


def text(families: Iterable[Family]) -> str:
    """Return families in Prometheus's own format."""
    return "".join(line for each in families for line in _lines(each, each.name))


def openmetrics(families: Iterable[Family]) -> str:
    """Return families as OpenMetrics, where a counter's family has no ``_total`` in its name."""
    lines = (
        line
        for each in families
        for line in _lines(
            each, each.name.removesuffix("_total") if each.kind == "counter" else each.name
        )
    )
    return "".join(lines) + "# EOF\n"


def number(value: float) -> str:
    """Return a number as the formats have it."""
    return "+Inf" if value == float("inf") else repr(value)


def _lines(each: Family, name: str) -> Iterator[str]:
    yield f"# HELP {name} {each.about}\n# TYPE {name} {each.kind}\n"
    for ending, labels, value in each.samples:
        shown = ",".join(f'{key}="{_escaped(said)}"' for key, said in labels)
        yield f"{each.name}{ending}{f'{{{shown}}}' if shown else ''} {number(value)}\n"


def _escaped(said: str) -> str:
    return said.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
