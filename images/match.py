"""Can this image run on that host? Yes, by which way in; or why not, in one sentence.

Pure: facts in, a `Match` out. Placement asks it for every pair of service and host, so that a
service is never sent where it could only hang in silence. The sentences speak of the image as "it".
"""

from collections.abc import Callable
from dataclasses import dataclass

from images.bootspec import HostTraits, Image, Platform
from images.errors import ImageRefused
from images.facts import Architecture, Container, Entry, ImageFacts
from images.families import FAMILIES, AddressBy, Traits

MIB = 1024 * 1024

# QEMU takes the first of these that it finds, whatever else the file offers (7.2, hw/i386/pc.c,
# multiboot.c); what it finds last is no help to a file that it enters by the first.
QEMU_ORDER = (Entry.LINUX, Entry.MULTIBOOT, Entry.PVH)
SOLO5_TARGETS = {"virtio": Platform.QEMU, "xen": Platform.XEN, "spt": Platform.SPT}
HOSTS = {
    Platform.QEMU: "a QEMU host",
    Platform.XEN: "a Xen host",
    Platform.SPT: "a host that runs the solo5-spt tender",
    Platform.NETNS: "a netns host",
}
# Families whose files look alike: Solo5 has no formal mark of what was built on it.
ALIKE = frozenset({"solo5", "mirage"})


@dataclass(frozen=True, slots=True)
class Match:
    """The way in that a host has for an image, or in `why_not` why there is none."""

    entry: Entry | None = None
    why_not: str = ""


def resolve(image: Image, facts: ImageFacts) -> str:
    """Return the name of an image's family: what the user says, else what its bytes say.

    Raises `ImageRefused` if neither says, or if they contradict each other. The user's word wins
    for family ``other`` and for families of installed packages, which `images.inspect` cannot know.
    """
    said, seen = image.family, facts.family
    if not said and facts.unusable:
        raise ImageRefused(facts.unusable)
    if not said and not seen:
        ways = f" (it can be entered by {_listed(facts.entries)})" if facts.entries else ""
        raise ImageRefused(
            f"{image.main_file} does not tell by its bytes what kind of guest it is{ways}; add "
            "'family:' to the image, 'other' if none of the named ones fits"
        )
    if said in FAMILIES and said != "other" and seen not in {"", said} and {said, seen} != ALIKE:
        raise ImageRefused(
            f"the lab says family {said}, and the bytes of {image.main_file} say {seen} "
            f"({facts.evidence}); take 'family:' away, or say 'family: other' if you know better"
        )
    return said or seen


def match(
    image: Image,
    facts: ImageFacts,
    traits: Traits,
    host: HostTraits,
    memory_mib: int,
    *,
    dumps_core: bool = False,
) -> Match:
    """Return whether an image of a family can run on a host with so much memory (MiB).

    With `dumps_core`, its memory is to be kept by the host when it crashes.
    """
    pair = _Pair(image, facts, traits, host, memory_mib, dumps_core)
    for check in _BEFORE_COMMAND if image.exec else _BEFORE:
        why_not = check(pair)
        if why_not:
            return Match(why_not=why_not)
    entry = _way_in(pair)
    if entry is None:
        return Match(why_not=_no_way_in(pair))
    for check_entry in _AFTER:
        why_not = check_entry(pair, entry)
        if why_not:
            return Match(why_not=why_not)
    return Match(entry)


@dataclass(frozen=True, slots=True)
class _Pair:
    image: Image
    facts: ImageFacts
    traits: Traits
    host: HostTraits
    memory_mib: int
    dumps_core: bool

    @property
    def platform(self) -> Platform:
        return self.host.platform

    @property
    def on_qemu(self) -> bool:
        return self.platform is Platform.QEMU


# --- before the way in is known ---------------------------------------------------------------


def _only_commands(pair: _Pair) -> str:
    if pair.platform is not Platform.NETNS:
        return ""
    return "a netns host runs commands ('exec:'), and boots no images; place it on another host"


def _no_command(pair: _Pair) -> str:
    if pair.platform is Platform.NETNS:
        return ""
    return f"it is a command, and {HOSTS[pair.platform]} runs none; place it on a netns host"


def _unusable(pair: _Pair) -> str:
    return pair.facts.unusable


def _architecture(pair: _Pair) -> str:
    built_for, has = pair.facts.architecture, pair.host.architecture
    from_disk = pair.image.kernel is None and not pair.image.exec
    if from_disk and has not in {Architecture.X86_64, Architecture.X86}:
        return f"it boots from its disk by BIOS, and the host has {has} processors, without one"
    if built_for in {None, has}:
        return ""
    if built_for is Architecture.X86 and has is Architecture.X86_64:
        return ""
    return f"it was built for {built_for}, and the host has {has} processors; build it for those"


def _container(pair: _Pair) -> str:
    if pair.image.kernel is None:
        return _disk_container(pair)
    if pair.facts.container is Container.QCOW2:
        return "it is a qcow2 disk, not a kernel; name it under 'disks:' with 'format: qcow2'"
    if pair.facts.container is Container.GZIP and pair.platform is not Platform.XEN:
        hang = "QEMU's -kernel hangs on that in silence" if pair.on_qemu else "no tender reads that"
        return f"it is compressed by gzip, and {hang}; unpack it with gunzip"
    return ""


def _disk_container(pair: _Pair) -> str:
    said, seen = pair.image.disks[0].format, pair.facts.container
    if seen is Container.GZIP:
        return "its first disk is compressed by gzip, and nothing boots that; unpack it with gunzip"
    if (said == "qcow2") != (seen is Container.QCOW2):
        is_ = "qcow2" if seen is Container.QCOW2 else "raw"
        return f"its first disk is {is_}, and the lab says {said}; write 'format: {is_}'"
    return ""


def _solo5_target(pair: _Pair) -> str:
    target = pair.facts.solo5_target
    if not target or SOLO5_TARGETS.get(target) is pair.platform:
        return ""
    if target in SOLO5_TARGETS:
        there = f"which is for {HOSTS[SOLO5_TARGETS[target]]}"
    elif target == "hvt":
        no_kvm = "" if pair.host.kvm else ", which this host lacks besides"
        there = f"whose tender needs KVM{no_kvm}, and which edgewake does not drive"
    else:
        there = "which edgewake does not drive"
    names = {platform: name for name, platform in SOLO5_TARGETS.items()}
    return (
        f"it was built for the Solo5 target {target}, {there}; for {HOSTS[pair.platform]} build it "
        f"for {names[pair.platform]}"
    )


def _platform(pair: _Pair) -> str:
    if pair.platform in pair.traits.entries:
        return ""
    why = pair.traits.elsewhere.get(pair.platform, "")
    where = " or ".join(HOSTS[platform] for platform in pair.traits.entries)
    return (
        f"{pair.traits.title} does not run on {HOSTS[pair.platform]}{': ' if why else ''}{why}; "
        f"place it on {where}"
    )


def _kvm(pair: _Pair) -> str:
    if not pair.on_qemu or pair.host.kvm or not pair.traits.needs_kvm:
        return ""
    return (
        f"{pair.traits.title} does not run on QEMU without KVM: {pair.traits.needs_kvm}; place it "
        "on a host with KVM"
    )


def _core(pair: _Pair) -> str:
    if not pair.dumps_core or pair.platform is Platform.XEN:
        return ""
    return (
        f"a core dump is wanted when it crashes, and {HOSTS[pair.platform]} takes none; take "
        "'on_crash: coredump' away, or place it on a Xen host"
    )


_BEFORE: tuple[Callable[[_Pair], str], ...] = (
    _only_commands,
    _unusable,
    _architecture,
    _container,
    _solo5_target,
    _platform,
    _kvm,
    _core,
)
_BEFORE_COMMAND = (_no_command, _unusable, _architecture, _platform, _core)


# --- the way in -------------------------------------------------------------------------------


def _way_in(pair: _Pair) -> Entry | None:
    entries = _entries(pair)
    if pair.dumps_core:
        entries &= {Entry.XEN_PV}
    for entry in QEMU_ORDER if pair.on_qemu else ():
        if entry in entries:  # QEMU will take this one, for better or worse
            return entry if entry in pair.traits.entries[pair.platform] else None
    return next((each for each in pair.traits.entries[pair.platform] if each in entries), None)


def _entries(pair: _Pair) -> frozenset[Entry]:
    """Return the ways in that the image's files leave open: by a kernel, or by a disk."""
    if pair.image.kernel is not None or pair.image.exec:
        return pair.facts.entries - {Entry.BIOS}
    if pair.facts.container is Container.QCOW2:  # not every one can be looked into
        return frozenset({Entry.BIOS})
    return pair.facts.entries & {Entry.BIOS}


def _no_way_in(pair: _Pair) -> str:
    entries = _entries(pair)
    if not entries:
        return _no_entry_at_all(pair)
    if pair.dumps_core:
        return (
            f"a core dump is wanted when it crashes, and it can be entered by {_listed(entries)}: "
            "Xen dumps PV guests only as far as they have memory, and looks through 4 GiB of any "
            "other, while nothing starts there; take 'on_crash: coredump' away, or build it for "
            "Xen PV"
        )
    if pair.on_qemu and entries <= {Entry.XEN_PV, Entry.PVH_SECTION}:
        return _for_xen_only(pair, entries)
    if pair.on_qemu and entries == {Entry.MULTIBOOT2}:
        return "it has a multiboot2 header only, and QEMU reads multiboot 1; build it with that"
    if pair.platform is Platform.XEN and entries <= {Entry.MULTIBOOT, Entry.MULTIBOOT2}:
        return (
            "it has a multiboot entry only, and Xen cannot start that; build it for Xen "
            f"({_wanted(pair)}) or place it on a QEMU host"
        )
    return (
        f"it can be entered by {_listed(entries)}, and {pair.traits.title} starts on "
        f"{HOSTS[pair.platform]} by {_wanted(pair)}; build it with such an entry"
    )


def _no_entry_at_all(pair: _Pair) -> str:
    if pair.image.kernel is None:
        return (
            "it has no kernel, and its first disk has no boot sector; add 'kernel:' or build a "
            "disk that boots"
        )
    if Entry.BIOS in pair.facts.entries:
        return "it is a whole boot disk, not a kernel; name it under 'disks:' instead of 'kernel:'"
    return (
        f"no loader knows a way into it ({pair.facts.format}); {pair.traits.title} starts on "
        f"{HOSTS[pair.platform]} by {_wanted(pair)}"
    )


def _for_xen_only(pair: _Pair, entries: frozenset[Entry]) -> str:
    if Entry.PVH_SECTION in entries:
        # The note stands where QEMU does not look, or a multiboot header is in its way.
        refusal = next((each for each in pair.facts.warnings if "QEMU" in each), "")
        if refusal:
            return f"Xen can enter it by PVH, and QEMU cannot: {refusal}; place it on a Xen host"
        return (
            "only its section headers show its PVH note, which Xen finds and QEMU does not; link "
            "the note into a PT_NOTE segment or place it on a Xen host"
        )
    return (
        "it has Xen PV notes only, and QEMU cannot start that; build it for QEMU "
        f"({_wanted(pair)}) or place it on a Xen host"
    )


def _wanted(pair: _Pair) -> str:
    return _listed(pair.traits.entries[pair.platform])


def _listed(entries: frozenset[Entry] | tuple[Entry, ...]) -> str:
    return " or ".join(sorted(entries) if isinstance(entries, frozenset) else entries)


# --- after the way in is known ----------------------------------------------------------------


def _truncated(pair: _Pair, entry: Entry) -> str:
    facts = pair.facts
    if entry is Entry.BIOS or facts.container is not Container.PLAIN:
        return ""
    if facts.file_bytes >= facts.least_file_bytes:
        return ""
    return (
        f"its file has {facts.file_bytes} bytes and its headers promise {facts.least_file_bytes}: "
        "it was cut short, or stripped; take the whole one, or pad a stripped one with "
        f"truncate -s {facts.least_file_bytes} {pair.image.main_file}"
    )


def _path(pair: _Pair, entry: Entry) -> str:
    if not pair.on_qemu or entry is not Entry.MULTIBOOT:
        return ""
    # QEMU puts the kernel's path before its command line, to be split at blanks, and takes a list
    # of modules with arguments for an initrd (hw/i386/multiboot.c).
    if " " in str(pair.image.kernel):
        return (
            f"the path {pair.image.kernel} has a blank, and a multiboot guest would take what "
            + ("follows for its first argument; rename it")
        )
    if pair.image.initrd is not None and set(str(pair.image.initrd)) & set(" ,"):
        return (
            f"the path {pair.image.initrd} has a blank or a comma, and QEMU would take it for "
            "several multiboot modules; rename it"
        )
    return ""


def _address(pair: _Pair, entry: Entry) -> str:
    if pair.host.dhcp:
        return ""
    if entry is Entry.BIOS:
        return (
            "it boots from its disk, where it can be told no address, and the host's network has "
            "no DHCP; add 'dhcp: true' to the network"
        )
    by = pair.traits.address.get(pair.platform)
    if by is AddressBy.DHCP and not pair.image.template:
        return (
            "it takes its address by DHCP, and the host's network has none; add 'dhcp: true' to "
            "the network, or a template to the image if its command line can tell it"
        )
    return ""


def _machine(pair: _Pair, entry: Entry) -> str:  # noqa: ARG001 - one table of checks
    asked = pair.image.machine
    if not pair.on_qemu or not asked or _kind_of(asked) in pair.traits.machines:
        return ""
    seen = " and ".join(pair.traits.machines)
    if _kind_of(asked) == "q35" and pair.traits.legacy_virtio:
        why = "which has its card behind PCI Express, where its old virtio driver does not find it"
    elif _kind_of(asked) == "microvm":
        why = "which libvirt does not support, and on which other images print nothing for ever"
    else:
        why = "on which it was never seen to answer"
    return f"the lab asks for machine {asked}, {why}; take 'machine:' away ({seen} works)"


def _kind_of(machine: str) -> str:
    """Return the QEMU machine type without its version."""
    for kind in ("pc-q35", "pc-i440fx"):
        if machine.startswith(kind):
            return "q35" if kind == "pc-q35" else "pc"
    return machine


def _memory(pair: _Pair, entry: Entry) -> str:
    given, own = pair.memory_mib, pair.image.least_memory_mib
    least = pair.traits.least(pair.platform) if own is None else own
    if given < least:
        small_pvh = pair.platform is Platform.XEN and entry in {Entry.PVH, Entry.PVH_SECTION}
        trap = " (of 16 MiB, libxl could not even build a PVH guest)" if small_pvh else ""
        return (
            f"{given} MiB of memory are too few for {pair.traits.title} on "
            f"{HOSTS[pair.platform]}{trap}; give the service at least {least} MiB"
        )
    spanned = -(-pair.facts.loaded_bytes // MIB)
    if given < spanned:
        return (
            f"{given} MiB of memory are too few: loading it takes {spanned} MiB alone; give the "
            "service more than that"
        )
    return ""


_AFTER: tuple[Callable[[_Pair, Entry], str], ...] = (
    _truncated,
    _path,
    _address,
    _machine,
    _memory,
)
