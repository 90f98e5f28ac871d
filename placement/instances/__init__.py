"""Public instances of placement problems, read from files the user has, with what is known of them.

Each reader takes a path and gives an `Instance`: a `Problem`, the options that make its value the
published one, and a `Reference`. Nothing is downloaded. A file that is not what it should be is
`Malformed`, which names file, line and what was expected.

| module | set |
|---|---|
| `gap` | generalised assignment, OR-Library (Chu and Beasley; Cattrysse) |
| `facility` | single-source capacitated facility location: Holmberg, OR-Library |
| `eua` | edge user allocation, Melbourne (Lai et al.) |
| `roadef` | machine reassignment, ROADEF/EURO challenge 2012 (Google), with its own evaluator |
"""

from placement.instances.base import Instance, Reference

__all__ = ["Instance", "Reference"]
