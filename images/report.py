"""Says what `images.inspect` found: in lines for people, in stable keys for programs."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from images.facts import Architecture, Container, Entry, Format, ImageFacts

_LABEL_WIDTH = 14
_KIB, _MIB = 1024, 1024 * 1024

# What starts each way in; the words are those of docs/images.md.
RUNS_ON = {
    Entry.LINUX: ("QEMU, KVM",),
    Entry.MULTIBOOT: ("QEMU, KVM",),
    Entry.MULTIBOOT2: (),
    Entry.PVH: ("QEMU, KVM", "Xen PVH"),
    Entry.PVH_SECTION: ("Xen PVH",),
    Entry.XEN_PV: ("Xen PV",),
    Entry.BIOS: ("QEMU, KVM",),
    Entry.SPT: ("solo5-spt on any Linux",),
    Entry.HVT: ("solo5-hvt on a machine with KVM",),
    Entry.MUEN: (),
    Entry.GENODE: (),
    Entry.COMMAND: ("netns on any Linux",),
}

# Xen's builder looks into a bzImage for the kernel proper, which `images.inspect` does not unpack.
_PACKED_LINUX = "Xen, if the kernel was built for it"


class DeviceJson(TypedDict):
    """A device that the image declares."""

    kind: str
    name: str


class FactsJson(TypedDict):
    """The keys of `facts_json`; see `images.facts.ImageFacts` for what they mean.

    `architecture` is null where it is unknown. `entries`, `options` and `runs_on` are sorted.
    `runs_on` is for people to read; a program asks `entries`. `usable` is whether `unusable` is
    empty. Sizes are in bytes. Keys may be added, none changes its meaning.
    """

    usable: bool
    unusable: str
    warnings: list[str]
    family: str
    evidence: str
    container: str
    format: str
    architecture: str | None
    bits: int
    entries: list[str]
    runs_on: list[str]
    guest_os: str
    solo5_target: str
    devices: list[DeviceJson]
    options: list[str]
    file_bytes: int
    least_file_bytes: int
    loaded_bytes: int


def facts_json(facts: ImageFacts) -> FactsJson:
    """Return the facts under stable keys (`FactsJson`), ready for `json.dumps`."""
    return {
        "usable": not facts.unusable,
        "unusable": facts.unusable,
        "warnings": list(facts.warnings),
        "family": facts.family,
        "evidence": facts.evidence,
        "container": facts.container.value,
        "format": facts.format.value,
        "architecture": facts.architecture.value if facts.architecture else None,
        "bits": facts.bits,
        "entries": sorted(entry.value for entry in facts.entries),
        "runs_on": runs_on(facts),
        "guest_os": facts.guest_os,
        "solo5_target": facts.solo5_target,
        "devices": [{"kind": each.kind.value, "name": each.name} for each in facts.devices],
        "options": sorted(facts.options),
        "file_bytes": facts.file_bytes,
        "least_file_bytes": facts.least_file_bytes,
        "loaded_bytes": facts.loaded_bytes,
    }


def facts_text(path: Path, facts: ImageFacts) -> str:
    """Return the facts as short lines for people, the file first; no line is without a meaning."""
    lines = [f"  {label:<{_LABEL_WIDTH}}{value}" for label, value in _lines(facts) if value]
    return "\n".join([str(path), *lines]) + "\n"


def runs_on(facts: ImageFacts) -> list[str]:
    """Return in words what can start the image; nothing if it is unusable."""
    if facts.unusable:
        return []
    if facts.solo5_target == "xen":
        return ["Xen PVH"]  # QEMU would enter it as well, for ever silent
    words = {word for entry in facts.entries for word in RUNS_ON[entry]}
    if facts.family == "linux" and Entry.LINUX in facts.entries:
        words.add(_PACKED_LINUX)
    return sorted(words)


def _lines(facts: ImageFacts) -> Iterator[tuple[str, str]]:
    yield "family", facts.family or ("not recognised; name it" if not facts.unusable else "")
    yield "calls itself", "" if facts.family else facts.guest_os
    yield "told by", facts.evidence
    yield "file", _file(facts)
    yield "built for", _built_for(facts)
    yield "ways in", ", ".join(entry for entry in Entry if entry in facts.entries)
    yield "runs on", "; ".join(runs_on(facts))
    for device in facts.devices:
        yield "insists on", f"{device.kind} {device.name}"
    yield "loads into", _memory(facts.loaded_bytes)
    yield "understands", ", ".join(sorted(facts.options))
    for warning in facts.warnings:
        yield "warning", warning
    yield "cannot start", facts.unusable


def _file(facts: ImageFacts) -> str:
    kind = "" if facts.format is Format.UNKNOWN else facts.format.value
    packed = "" if facts.container is Container.PLAIN else facts.container.value
    return ", ".join(filter(None, (packed, kind, f"{facts.file_bytes} bytes")))


def _memory(size: int) -> str:
    """Return an amount of memory, rounded up so that it fits in."""
    if size == 0:
        return ""
    return f"{-(-size // _KIB)} KiB" if size < _MIB else f"{-(-size // _MIB)} MiB"


def _built_for(facts: ImageFacts) -> str:
    if facts.architecture is None:
        return ""
    target = f", Solo5 {facts.solo5_target}" if facts.solo5_target else ""
    names = {Architecture.X86: "x86 (32-bit entry)"}
    return names.get(facts.architecture, facts.architecture.value) + target
