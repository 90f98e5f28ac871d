"""YAML that users write, read strictly: as plain data with line numbers, then as entries.

For `orchestrator.labfile` and other files like it, which say what their keys are. Everything wrong
is told with file, line and key. A file is not trusted: it is bounded in size and depth, anchors and
tags are refused, and every scalar stays the text that was written, so that ``no`` is a name and
``1.10`` a version.
"""

from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.errors import LabError
from orchestrator.lab_report import Report, Where
from orchestrator.lab_values import shown, suggestion

LARGEST_FILE = 1 << 20  # bytes
DEEPEST = 16  # levels of nesting; the schema of a lab has 7

Data = str | list["Data"] | dict[str, "Data"]
Model = TypeVar("Model", bound=BaseModel)


def read_text(path: Path) -> str:
    """Return the text of a file, as far as we would read it; LabError if it is no text."""
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise LabError(f"cannot be read: {error.strerror}", file=path) from error
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise LabError("is not UTF-8 text", file=path, line=line) from error


_NOT_TEXT = yaml.reader.Reader.NON_PRINTABLE.search  # what YAML forbids, but escapes can write


class _Composer(yaml.BaseLoader):
    """Parses YAML into nodes with line numbers; refuses what an untrusted file may abuse."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or event.anchor:
            raise yaml.MarkedYAMLError(
                problem="anchors and aliases (&name, *name) are not supported: write it out, or "
                "use 'defaults'; text that starts with & or * needs quotes",
                problem_mark=event.start_mark,
            )
        if getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(
                problem="tags are not supported: text that starts with ! needs quotes",
                problem_mark=event.start_mark,
            )
        if self.depth == DEEPEST:
            raise yaml.MarkedYAMLError(
                problem=f"nested more than {DEEPEST} levels deep", problem_mark=event.start_mark
            )
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def read(text: str, report: Report, *, needs: str) -> dict[str, Data]:
    """Return the file's top mapping; problems below it are in the report.

    `needs` is what the least such file has, for the message about an empty one.
    """
    if len(text.encode(errors="replace")) > LARGEST_FILE:
        raise LabError("is larger than 1 MiB", file=report.path)
    node = composed(text, report.path)
    if node is None:
        raise LabError(f"is empty: it needs at least {needs}", file=report.path, line=1)
    data = _data(node, (), report)
    if not isinstance(data, dict):
        line = node.start_mark.line + 1
        raise LabError("must be a mapping (key: value)", file=report.path, line=line)
    return data


def composed(text: str, path: Path) -> yaml.Node | None:
    """Return a text as nodes, which know where they are; LabError if it is no YAML of ours."""
    try:
        return _Composer(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        if "'\\t'" in problem:
            problem += " (indent with spaces, not tabs)"
        elif "cannot start any token" in problem:
            problem += " (put the text in quotes)"
        raise LabError(
            f"not valid YAML: {problem}", file=path, line=mark.line + 1 if mark else None
        ) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"the character U+{error.character:04X} is not allowed"
        raise LabError(problem, file=path, line=line) from error
    except (ValueError, OverflowError) as error:  # PyYAML on escapes and versions out of range
        raise LabError(f"not valid YAML: {error}", file=path) from error


def _data(node: yaml.Node, where: Where, report: Report) -> Data:
    """Return a node as plain data, and note the line of everything in it."""
    report.lines.setdefault(where, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, where, report)
    if isinstance(node, yaml.SequenceNode):
        return [_data(child, (*where, index), report) for index, child in enumerate(node.value)]
    return _scalar(node, where, report)


def _mapping(node: yaml.MappingNode, where: Where, report: Report) -> dict[str, Data]:
    data: dict[str, Data] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode) or _NOT_TEXT(key_node.value):
            report.add(where, "a key must be a plain word", line=line)
            continue
        key: str = key_node.value
        here = (*where, key)
        if key in data:
            first = report.lines[here]
            report.add(here, f"is written twice; the first is in line {first}", line=line)
            continue
        report.lines[here] = line
        data[key] = _data(value_node, here, report)
    return data


def _scalar(node: yaml.Node, where: Where, report: Report) -> str:
    text: str = node.value
    plain = isinstance(node, yaml.ScalarNode) and node.style is None
    if plain and text in {"", "~", "null"}:
        report.add(where, "has no value: give one, or remove the key")
    if _NOT_TEXT(text):
        report.add(where, f"{shown(text)} has characters that are not text")
    return text


# --- from plain data to entries ---------------------------------------------------------------


def validated(kind: type[Model], data: dict[str, Data], report: Report) -> Model:
    """Return the data as an entry of that kind; LabError says everything that is wrong."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            loc = tuple(part for part in details["loc"] if part != "[key]")
            where = report.written_at(loc)
            message = _message(kind, where, details)
            if where == ("name",) and where not in report.lines:
                message += "; it is the file's name, because the file does not set 'name'"
            report.add(where, message)
        report.raise_if_any()
        raise


_MESSAGES = {
    "missing": "is missing, and required",
    "list_type": "must be a list, such as [a, b]",
    "too_short": "must have at least {min_length} in it",
    "too_long": "must have at most {max_length} in it",
    "dict_type": "must be a mapping (key: value)",
    "model_type": "must be a mapping (key: value)",
    "value_error": "{error}",
}


def _message(kind: type[BaseModel], where: Where, details: ErrorDetails) -> str:
    """Return pydantic's message in our words."""
    if details["type"] == "extra_forbidden":
        return f"unknown key; {suggestion(str(where[-1]), _keys_at(kind, where[:-1]))}"
    message = _MESSAGES.get(details["type"])
    return message.format_map(details.get("ctx", {})) if message else details["msg"]


def _keys_at(root: type[BaseModel], where: Where) -> list[str]:
    """Return the keys that the mapping at `where` may have."""
    kind: Any = root
    for part in where:
        if get_origin(kind) in {dict, list}:
            kind = _bare(get_args(kind)[-1])
        else:
            kind = _bare(kind.model_fields[part].annotation)
    return list(kind.model_fields)


def _bare(kind: Any) -> Any:
    """Return a type without its `Annotated` and without its `| None`."""
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    options = [option for option in get_args(kind) if option is not NoneType]
    return _bare(options[0]) if get_origin(kind) in {UnionType, Union} else kind
