"""How facts are told: lines for people, compared whole, and keys that programs can rely on."""

import json
from pathlib import Path

import pytest

from images.facts import Entry, ImageFacts
from images.inspect import inspect_bytes
from images.report import RUNS_ON, FactsJson, facts_json, facts_text
from tests.images.specimens import SPECIMENS

PATH = Path("/images/web")

TEXTS = {
    "mirage virtio": """\
/images/web
  family        mirage
  told by       Solo5 ABI note: target virtio; OCaml symbols
  file          ELF, 4832 bytes
  built for     x86_64, Solo5 virtio
  ways in       multiboot
  runs on       QEMU, KVM
  insists on    net service
  insists on    block storage
  loads into    36 KiB
""",
    "unikraft kvm": """\
/images/web
  family        unikraft
  told by       section .uk_libinfo (libkvmplat)
  file          ELF, 4528 bytes
  built for     x86 (32-bit entry)
  ways in       multiboot
  runs on       QEMU, KVM
  loads into    16 KiB
  understands   netdev.ip
""",
    "gzip of pvh": """\
/images/web
  family        linux
  told by       PT_NOTE: GUEST_OS=linux
  file          gzip, ELF, 196 bytes
  built for     x86_64
  ways in       PVH (Xen only), Xen PV
  runs on       Xen PV; Xen PVH
  loads into    16 KiB
  warning       QEMU does not unpack gzip and would hang in silence; gunzip it for QEMU
""",
    "grub pv": """\
/images/web
  family        not recognised; name it
  calls itself  GRUB
  told by       sections mods and .xen
  file          ELF, 4560 bytes
  built for     x86_64
  ways in       Xen PV
  runs on       Xen PV
  loads into    16 KiB
""",
    "bzImage": """\
/images/web
  family        linux
  told by       boot protocol 2.15, version 6.1.0-56-cloud-amd64
  file          Linux bzImage, 5120 bytes
  built for     x86_64
  ways in       Linux boot protocol
  runs on       QEMU, KVM; Xen, if the kernel was built for it
  loads into    48 MiB
""",
    "script": """\
/images/web
  told by       script
  file          10 bytes
  cannot start  a script, not an image; run it, or put it into an initramfs
""",
}


@pytest.mark.parametrize("name", TEXTS)
def test_text(name: str) -> None:
    told = facts_text(PATH, inspect_bytes(SPECIMENS[name]))
    # Compilers of zlib differ in how far they compress.
    told = told.replace(f"{len(SPECIMENS[name])} bytes", "196 bytes") if "gzip" in name else told
    assert told == TEXTS[name]


@pytest.mark.parametrize("name", SPECIMENS)
def test_everything_can_be_told(name: str) -> None:
    facts = inspect_bytes(SPECIMENS[name])
    lines = facts_text(PATH, facts).splitlines()
    assert lines[0] == str(PATH)
    assert all(line[:2] == "  " and line[2:15].strip() and line[16:] for line in lines[1:])
    assert facts.unusable in lines[-1]
    told = facts_json(facts)
    assert told.keys() == FactsJson.__annotations__.keys()
    assert json.loads(json.dumps(told)) == told
    assert told["usable"] == (facts.unusable == "")
    assert bool(told["runs_on"]) <= told["usable"]


def test_json() -> None:
    told = facts_json(inspect_bytes(SPECIMENS["mirage xen"]))
    assert told == {
        "usable": True,
        "unusable": "",
        "warnings": [],
        "family": "mirage",
        "evidence": "Solo5 ABI note: target xen; OCaml symbols",
        "container": "plain",
        "format": "ELF",
        "architecture": "x86_64",
        "bits": 64,
        "entries": ["PVH"],
        "runs_on": ["Xen PVH"],
        "guest_os": "",
        "solo5_target": "xen",
        "devices": [{"kind": "net", "name": "service"}],
        "options": [],
        "file_bytes": len(SPECIMENS["mirage xen"]),
        "least_file_bytes": 4160,
        "loaded_bytes": 16384,
    }


def test_where_each_way_in_leads_is_said() -> None:
    assert RUNS_ON.keys() == set(Entry)
    usable = [entry for entry, places in RUNS_ON.items() if places]
    for entry in usable:
        assert facts_json(ImageFacts(1, entries=frozenset({entry})))["runs_on"]


def test_an_image_that_can_start_nowhere_runs_on_nothing() -> None:
    facts = inspect_bytes(SPECIMENS["nanos kernel"])
    assert facts.entries
    assert facts_json(facts)["runs_on"] == []
    assert "runs on" not in facts_text(PATH, facts)
