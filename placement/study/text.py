"""YAML text to plain data, with the line of everything in it.

A stricter YAML than PyYAML's own, so that a study means what it looks like: a key that is written
twice is a mistake, anchors and tags are refused, and a plain scalar is a number or ``true`` or
``false`` as in YAML 1.2, else text (so ``no`` is text, and ``1e-3`` a number).
"""

import math
from pathlib import Path

import yaml

from placement.study.errors import Mistake, StudyFileError

LARGEST_FILE = 1 << 20  # bytes
DEEPEST = 12  # levels of nesting; a study has 6

Where = tuple[str | int, ...]
Data = str | int | float | bool | list["Data"] | dict[str, "Data"]


def read(path: Path) -> tuple[Data, dict[Where, int]]:
    """Return the data of a YAML file and the line of each key; StudyFileError if it has none."""
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise _wrong(path, 0, f"cannot be read: {error.strerror}") from error
    if len(raw) > LARGEST_FILE:
        raise _wrong(path, 0, "is larger than 1 MiB")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _wrong(path, line, "is not UTF-8 text") from error
    return parse(text, path)


def parse(text: str, path: Path) -> tuple[Data, dict[Where, int]]:
    """Return the data of YAML text and the line of each key; `path` is named in messages."""
    try:
        node = _Composer(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        line = mark.line + 1 if mark else 0
        raise _wrong(path, line, f"not valid YAML: {problem}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise _wrong(path, 0, f"not valid YAML: {error}") from error
    if node is None:
        raise _wrong(path, 1, "is empty")
    lines: dict[Where, int] = {}
    mistakes: list[Mistake] = []
    data = _data(node, (), lines, mistakes)
    if mistakes:
        raise StudyFileError(mistakes, path)
    return data, lines


def dotted(where: Where) -> str:
    """Return a path of keys as ``instances.small.seeds[0]``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where)
    return text.removeprefix(".")


class _Composer(yaml.BaseLoader):
    """Parses YAML into nodes; refuses what a study has no use for and a trap could be made of."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent) or event.anchor:
            raise yaml.MarkedYAMLError(problem="anchors are not supported", problem_mark=mark)
        if getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(problem="tags are not supported", problem_mark=mark)
        if self.depth == DEEPEST:
            problem = f"nested more than {DEEPEST} levels deep"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _wrong(path: Path, line: int, message: str) -> StudyFileError:
    return StudyFileError([Mistake(line, "", message)], path)


def _data(node: yaml.Node, where: Where, lines: dict[Where, int], mistakes: list[Mistake]) -> Data:
    lines.setdefault(where, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_data(each, (*where, i), lines, mistakes) for i, each in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        plain = isinstance(node, yaml.ScalarNode) and node.style is None
        return _scalar(node.value) if plain else str(node.value)
    data: dict[str, Data] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            mistakes.append(Mistake(line, dotted(where), "a key must be a plain word"))
            continue
        here = (*where, str(key_node.value))
        if key_node.value in data:
            first = f"is written twice; the first is in line {lines[here]}"
            mistakes.append(Mistake(line, dotted(here), first))
            continue
        lines[here] = line
        data[key_node.value] = _data(value_node, here, lines, mistakes)
    return data


def _scalar(text: str) -> str | int | float | bool:
    if text in {"true", "false"}:
        return text == "true"
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text
