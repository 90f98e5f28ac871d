"""Experiments: algorithms x instances x seeds x parameters, to one table and a report.

`Study` says what is to be run, `run` carries it out (again and again, until all is done), `load`
returns the table, `load_traces` what searches found when, `load_timeline` what churn did in each
epoch, and `report` writes figures, tests and a page. docs/study.md has examples. What draws and
computes tables is loaded when it is used; it needs the extra ``edgewake[study]``.
"""

from placement.study.errors import StudyError
from placement.study.report import report
from placement.study.runner import Outcome, run
from placement.study.spec import Study
from placement.study.table import load, load_timeline, load_traces

__all__ = [
    "Outcome",
    "Study",
    "StudyError",
    "load",
    "load_timeline",
    "load_traces",
    "report",
    "run",
]
