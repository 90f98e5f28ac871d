"""Statistics of a study: means with confidence intervals, and paired tests.

Pairs are the same instance under two algorithms; repetitions are averaged first, so that they do
not count as instances of their own. The tests are rank tests, which ask nothing of the shape of a
distribution (Demsar, Statistical comparisons of classifiers over multiple data sets, 2006).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import TYPE_CHECKING

from placement.study.extras import optional
from placement.study.table import good

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.95
RESAMPLES = 2000
TIE = 1e-9  # relative: solvers' tolerances make no difference


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean and its bootstrap confidence interval; NaN where there is nothing to average."""

    count: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """An algorithm against the baseline, on one metric of which less is better.

    `median` is that of the differences to the baseline; `p` is of Wilcoxon's signed-rank test, two
    sided, and `p_holm` the same corrected for the number of algorithms.
    """

    algorithm: str
    pairs: int
    median: float
    wins: int
    ties: int
    losses: int
    p: float
    p_holm: float


def mean(values: Sequence[float]) -> Mean:
    """Return the mean with its 95 % interval: percentiles of a bootstrap with a fixed seed."""
    known = [value for value in values if not isnan(value)]
    if not known:
        return Mean(0, nan, nan, nan)
    centre = sum(known) / len(known)
    if len(known) == 1:
        return Mean(1, centre, nan, nan)
    if max(known) == min(known):
        return Mean(len(known), centre, centre, centre)
    interval = (
        optional("scipy.stats")
        .bootstrap(
            (known,),
            optional("numpy").mean,
            confidence_level=LEVEL,
            n_resamples=RESAMPLES,
            method="percentile",
            rng=0,
        )
        .confidence_interval
    )
    return Mean(len(known), centre, float(interval.low), float(interval.high))


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number by Holm's step-down procedure (1979)."""
    corrected = [nan] * len(p)
    highest = 0.0
    known = sorted((value, index) for index, value in enumerate(p) if not isnan(value))
    for rank, (value, index) in enumerate(known):
        highest = max(highest, min(1.0, value * (len(known) - rank)))
        corrected[index] = highest
    return corrected


def compare(table: "pd.DataFrame", metric: str, baseline: str) -> list[Comparison]:
    """Return each other algorithm against the baseline, over the instances both have a plan for."""
    wide = by_instance(table, metric)
    if baseline not in wide:
        return []
    found = []
    for name in wide.columns.drop(baseline):
        pairs = wide[[name, baseline]].dropna()
        slack = TIE * pairs.abs().max(axis=1)
        difference = pairs[name] - pairs[baseline]
        difference = difference.where(difference.abs() > slack, 0.0)
        found.append((name, [float(each) for each in difference]))
    p = [wilcoxon(differences) for _, differences in found]
    return [
        Comparison(
            name,
            len(differences),
            float(optional("numpy").median(differences)) if differences else nan,
            sum(each < 0 for each in differences),
            sum(each == 0 for each in differences),
            sum(each > 0 for each in differences),
            raw,
            corrected,
        )
        for (name, differences), raw, corrected in zip(found, p, holm(p), strict=True)
    ]


def wilcoxon(differences: Sequence[float]) -> float:
    """Return the p-value of Wilcoxon's signed-rank test; 1 if no pair differs, NaN if none is."""
    if not differences:
        return nan
    if not any(differences):
        return 1.0
    return float(optional("scipy.stats").wilcoxon(differences).pvalue)


def friedman(table: "pd.DataFrame", metric: str) -> float:
    """Return the p-value of Friedman's test that all algorithms are alike; NaN if it cannot tell.

    It needs three algorithms and two instances for which all of them have a plan.
    """
    wide = by_instance(table, metric).dropna()
    if wide.shape[0] < 2 or wide.shape[1] < 3:
        return nan
    if wide.rank(axis=1).eq((wide.shape[1] + 1) / 2).all(axis=None):
        return 1.0
    return float(optional("scipy.stats").friedmanchisquare(*(wide[name] for name in wide)).pvalue)


def by_instance(table: "pd.DataFrame", metric: str) -> "pd.DataFrame":
    """Return a metric with a row per instance and a column per algorithm, repetitions averaged."""
    order = list(dict.fromkeys(table["algorithm"]))
    wide = good(table).pivot_table(metric, "case", "algorithm", aggfunc="mean", sort=False)
    return wide.reindex(columns=[name for name in order if name in wide])
