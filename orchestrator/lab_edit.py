"""Takes one entry out of a lab file's text, or puts it back, and leaves all else byte for byte.

Where entries are is asked of YAML's own positions; what the new text means is compared with what
was wanted before anybody gets it. Text that cannot be edited so is refused (`CannotEdit`): entries
in braces on one line, keys written with ``?``, versions that are indented otherwise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from orchestrator.errors import CannotEdit, LabError, UnknownService
from orchestrator.lab_report import Report
from orchestrator.lab_yaml import Data, composed, read
from orchestrator.model import Lab
from orchestrator.store.base import LabVersion

Load = Callable[[str, Path], Lab]

SERVICES, IMAGES = "services", "images"
BREAKS = "\r\n\x85\u2028\u2029"  # what ends a line in YAML
WHOLE = "edit the file, and apply it: 'edgewake apply LAB.yaml'"


@dataclass(frozen=True, slots=True)
class Edited:
    """A new text of the lab, and the lab that it describes."""

    text: str
    lab: Lab


@dataclass(frozen=True, slots=True)
class Entry:
    """Where an entry is in a text: whole lines from `start` to `end`, its key at `column`."""

    start: int
    end: int
    column: int


def without_service(text: str, path: Path, service: str, load: Load) -> Edited:
    """Return the lab without a service.

    Raises `UnknownService` if it has none of that name, `LabError` if the text is wrong as it is,
    and `CannotEdit`, also if the lab would not be valid, as other entries need the service.
    """
    old = load(text, path)
    if service not in {each.name for each in old.services}:
        raise UnknownService(service, "the lab's text has no such service")
    edited = _without(text, SERVICES, service)
    try:
        lab = load(edited, path)
    except LabError as error:
        raise CannotEdit(
            f"without {service} the lab would not be valid: {error}",
            hint=f"change what needs {service} first",
        ) from error
    left = tuple(each for each in old.services if each.name != service)
    if lab != replace(old, services=left):
        raise CannotEdit(f"{service} cannot be taken out without changing more", hint=WHOLE)
    return Edited(edited, lab)


def service_before(
    versions: Sequence[LabVersion], service: str, load: Load
) -> tuple[Edited, LabVersion]:
    """Return the last version of the lab with an older entry of a service, and where that is from.

    The entry is that of the last version in which it, or an entry of the images that it names, was
    another one; those images are put back with it. `versions` are oldest first; the last is in use.
    Raises `UnknownService`, `LabError` and `CannotEdit` as `without_service` does, and `CannotEdit`
    if it never was another one.
    """
    now = versions[-1]
    path, data = Path(now.path), _data(now.text)
    if service not in _section(data, SERVICES):
        raise UnknownService(service, "the lab's text has no such service")
    for version in reversed(versions[:-1]):
        wanted = _wanted(data, version, service)
        if wanted is not None:
            break
    else:
        raise CannotEdit(f"{service}: no version of the lab that is kept has another entry of it")
    text = now.text
    for section, name in wanted:
        text = _with(text, section, name, version.text)
    old = _data(version.text)
    expected = {**data}
    for section, name in wanted:
        expected[section] = {**_section(expected, section), name: _section(old, section)[name]}
    if _data(text) != expected:
        raise CannotEdit(f"{service} cannot be put back without changing more", hint=WHOLE)
    try:
        return Edited(text, load(text, path)), version
    except LabError as error:
        raise CannotEdit(
            f"with {service} as in version {version.number} the lab would not be valid: {error}",
            hint="roll the whole lab back instead",
        ) from error


# --- what is written --------------------------------------------------------------------------


def _data(text: str) -> dict[str, Data]:
    return read(text, Report(Path()), needs="a zone")


def _section(data: dict[str, Data], section: str) -> dict[str, Data]:
    found = data.get(section)
    return found if isinstance(found, dict) else {}


def _wanted(
    data: dict[str, Data], version: LabVersion, service: str
) -> list[tuple[str, str]] | None:
    """Return the section and name of what a version has otherwise; None if nothing of it."""
    try:
        old = _data(version.text)
    except LabError:
        return None
    if service not in _section(old, SERVICES):
        return None
    names = [(SERVICES, service), *((IMAGES, name) for name in _images_of(old, service))]
    other = [
        (section, name)
        for section, name in names
        if name in _section(old, section)
        and _section(old, section)[name] != _section(data, section).get(name)
    ]
    return other or None


def _images_of(data: dict[str, Data], service: str) -> list[str]:
    """Return the names of the images that a service, or else `defaults`, names."""
    for entry in (_section(data, SERVICES).get(service), data.get("defaults")):
        written: Any = entry.get("image") if isinstance(entry, dict) else None
        if written:
            return (
                [each for each in written if isinstance(each, str)]
                if isinstance(written, list)
                else [str(written)]
            )
    return []


# --- where it is written ----------------------------------------------------------------------


def _without(text: str, section: str, name: str) -> str:
    """Return a text without an entry; a section without entries stays, and is said to be empty."""
    key, entries = _nodes(text, section)
    entry = _entry(text, entries, section, name)
    cut = text[: entry.start] + text[entry.end :]
    if len(entries.value) > 1:
        return cut
    colon = text.index(":", key.end_mark.index) + 1
    return cut[:colon] + " {}" + cut[colon:]


def _with(text: str, section: str, name: str, source: str) -> str:
    """Return a text with an entry as another text has it, after all others if it is a new one."""
    _, entries = _nodes(source, section)
    written = _entry(source, entries, section, name)
    lines = source[written.start : written.end]
    if lines[-1] not in BREAKS:
        lines += "\n"
    _, here = _nodes(text, section)
    is_new = name not in {each.value for each, _ in here.value}
    last = here.value[-1][0].value
    place = _entry(text, here, section, last if is_new else name)
    if place.column != written.column:
        raise CannotEdit(f"{section}.{name} was indented otherwise", hint=WHOLE)
    before = text[: place.end if is_new else place.start]
    if before[-1] not in BREAKS:
        before += "\n"
    return before + lines + text[place.end :]


def _nodes(text: str, section: str) -> tuple[yaml.Node, yaml.MappingNode]:
    """Return the key and the entries of a section."""
    top = composed(text, Path())
    pairs = top.value if isinstance(top, yaml.MappingNode) and not top.flow_style else []
    for key, entries in pairs:
        if key.value == section and isinstance(entries, yaml.MappingNode):
            if entries.flow_style or not entries.value:
                break
            return key, entries
    raise CannotEdit(f"{section} is not written with an entry per line", hint=WHOLE)


def _entry(text: str, entries: yaml.MappingNode, section: str, name: str) -> Entry:
    for key, value in entries.value:
        if key.value != name:
            continue
        start = key.start_mark.index - key.start_mark.column
        end = _end(text, value)
        if text[start : key.start_mark.index].strip(" ") or end is None:
            break
        return Entry(start, end, key.start_mark.column)
    raise CannotEdit(f"{section}.{name} is not on lines of its own", hint=WHOLE)


def _end(text: str, node: yaml.Node) -> int | None:
    """Return where the last line of a node ends; None if something else follows on that line."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    at: int = node.end_mark.index
    if at and text[at - 1] in BREAKS:
        at = len(text[:at].rstrip(" \t" + BREAKS))  # of a block of text: without empty lines
    rest = at
    while rest < len(text) and text[rest] not in BREAKS:
        rest += 1
    after = text[at:rest].strip(" \t")
    if after and not after.startswith("#"):
        return None
    return rest + (2 if text[rest : rest + 2] == "\r\n" else 1) if rest < len(text) else rest
