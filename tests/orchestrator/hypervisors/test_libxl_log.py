"""What libxl's log says, in the words that Xen 4.17 on the test bed really used."""

import pytest

from orchestrator.hypervisors.libxl_log import cause

BUILD = "libxl: libxl_create.c:1640:domcreate_rebuild_done: Domain 8:cannot (re-)build domain: -3"
NO_VIF = "libxl: libxl_create.c:1921:domcreate_attach_devices: Domain 41:unable to add vif devices"


@pytest.mark.parametrize(
    ("lines", "meaning", "advice"),
    [
        (
            (
                "xc: panic: xg_dom_core.c:536: xc_dom_chk_alloc_pages: segment kernel too large "
                "(0x129 > 0x100 - 0x100 pages): Out of memory",
                "libxl: libxl_dom.c:594:libxl__build_dom: xc_dom_build_image failed: "
                "No such file or directory",
                BUILD,
            ),
            "its memory is too small for its kernel",
            "more memory",
        ),
        (
            (
                "xc: panic: xg_dom_x86.c:159: count_pgtables: not enough memory for initial "
                "mapping (0x401f > 0x4000): Out of memory",
                BUILD,
            ),
            "its memory is too small for its kernel",
            "more memory",
        ),
        (
            (
                "libxl: libxl_dom.c:594:libxl__build_dom: xc_dom_build_image failed: "
                "Device or resource busy",
                BUILD,
            ),
            "its memory is too small to be built",
            "more memory",
        ),
        (
            (
                "xc: panic: xg_dom_boot.c:119: xc_dom_boot_mem_init: can't allocate low memory for "
                "domain: Out of memory",
                "libxl: libxl_dom.c:586:libxl__build_dom: xc_dom_boot_mem_init failed: "
                "Device or resource busy",
                BUILD,
            ),
            "Xen has too little free memory for it",
            "stop a guest",
        ),
        (
            (
                "libxl: libxl_dom.c:1470:libxl__domain_set_paging_mempool_size: Domain 16:Failed "
                "to set paging mempool size to 34359739392kB: Invalid argument",
                BUILD,
            ),
            "Xen has too little memory for it",
            "lower memory",
        ),
        (
            (
                "xc: panic: xg_dom_core.c:205: failed to open file '/nope': No such file or "
                "directory: Internal error",
                "libxl: libxl_dom.c:1075:libxl__build_hvm: initializing domain firmware failed",
                BUILD,
            ),
            "there is no file /nope in dom0",
            "sent again",
        ),
        (
            (
                "xc: panic: xg_dom_core.c:689: xc_dom_find_loader: no loader found: Invalid kernel",
                "libxl: libxl_dom.c:571:libxl__build_dom: xc_dom_parse_image failed",
                BUILD,
            ),
            "Xen finds no way into this kernel",
            "image inspect",
        ),
        (
            (
                "libxl: libxl_exec.c:117:libxl_report_child_exitstatus: "
                "/etc/xen/scripts/vif-bridge online [339] exited with error status 1",
                "libxl: libxl_device.c:1337:device_hotplug_child_death_cb: script: Could not find "
                "bridge device nobr0",
                NO_VIF,
            ),
            "its network card could not be plugged in: Could not find bridge device nobr0",
            "name a bridge",
        ),
        (
            (
                "libxl: libxl_exec.c:117:libxl_report_child_exitstatus: /nope/vif online [390] "
                "exited with error status 255",
                NO_VIF,
                "libxl: libxl_exec.c:117:libxl_report_child_exitstatus: /nope/vif offline [391] "
                "exited with error status 255",
            ),
            "/nope/vif, which plugs in its network card, failed with status 255",
            "run as a program",
        ),
        (
            (
                "libxl: libxl_aoutils.c:539:async_exec_timeout: killing execution of /a/slow-vif "
                "online because of timeout",
                NO_VIF,
            ),
            "its network card was not plugged in in time by /a/slow-vif",
            "overloaded",
        ),
        (
            (
                "libxl: libxl_device.c:455:libxl__device_disk_set_backend: Disk vdev=xvda failed "
                "to stat: /nope.img: No such file or directory",
                "libxl: libxl_create.c:1318:initiate_domain_create: Domain 22:Unable to set disk "
                "defaults for disk 0",
            ),
            "there is no disk /nope.img in dom0",
            "sent again",
        ),
        (
            ("xc: Save failed (28 = No space left on device): Internal error",),
            "the disk there is full",
            "free some",
        ),
        (
            (
                "libxl: libxl_dm.c:2909:libxl__spawn_local_dm: Domain 1:device model "
                "/usr/libexec/xen-qemu-system-i386 is not executable: No such file or directory",
                "libxl: libxl_dm.c:2911:libxl__spawn_local_dm: Domain 1:Please install the "
                "qemu-system-xen package for this domain to work",
                "libxl: libxl_dm.c:3161:device_model_spawn_outcome: Domain 1:(null): spawn failed "
                "(rc=-3)",
                "libxl: libxl_create.c:1896:domcreate_devmodel_started: Domain 1:device model did "
                "not start: -3",
            ),
            "a disk of it is of a format that only QEMU reads, and dom0 has no QEMU",
            "qemu-system-xen",
        ),
        (
            (
                "libxl: libxl_create.c:711:libxl__domain_make: domain creation fail: Cannot "
                "allocate memory",
                "libxl: libxl_create.c:1296:initiate_domain_create: cannot make domain: -3",
            ),
            "Xen has too little free memory for it",
            "stop a guest",
        ),
        ((), "", ""),
        (("xc: x.c:1: never heard of",), "xc: x.c:1: never heard of", ""),
    ],
)
def test_the_cause_of_a_failure(lines: tuple[str, ...], meaning: str, advice: str) -> None:
    log = "\n".join(f"2026-11-21 14:38:53.871+0000: {line}" for line in lines)
    told, what_to_do = cause(log)
    assert told == meaning
    assert advice in what_to_do


# As written when four starts failed at once on the test bed.
AT_ONCE = """\
2026-11-21 16:54:39.198+0000: xc: panic: xg_dom_boot.c:119: xc_dom_boot_mem_init: can't allocate low memory for domain: Out of memory
2026-11-21 16:54:39.198+0000: libxl: libxl_dom.c:586:libxl__build_dom: xc_dom_boot_mem_init failed: Device or resource busy
2026-11-21 16:54:39.207+0000: libxl: libxl_create.c:1640:domcreate_rebuild_done: Domain 2:cannot (re-)build domain: -3
2026-11-21 16:54:39.315+0000: libxl: libxl_create.c:711:libxl__domain_make: domain creation fail: Cannot allocate memory
2026-11-21 16:54:39.325+0000: libxl: libxl_create.c:1296:initiate_domain_create: cannot make domain: -3
2026-11-21 16:54:41.252+0000: xc: panic: xg_dom_core.c:536: xc_dom_chk_alloc_pages: segment kernel too large (0x1 > 0x100 - 0x100 pages): Out of memory
2026-11-21 16:54:41.265+0000: libxl: libxl_dom.c:594:libxl__build_dom: xc_dom_build_image failed: No such file or directory
2026-11-21 16:54:41.266+0000: libxl: libxl_create.c:1640:domcreate_rebuild_done: Domain 4:cannot (re-)build domain: -3
2026-11-21 16:54:46.351+0000: libxl: libxl_exec.c:117:libxl_report_child_exitstatus: /etc/xen/scripts/vif-bridge online [197] exited with error status 1
2026-11-21 16:54:46.378+0000: libxl: libxl_device.c:1337:device_hotplug_child_death_cb: script: Could not find bridge device nope
2026-11-21 16:54:46.379+0000: libxl: libxl_create.c:1921:domcreate_attach_devices: Domain 5:unable to add vif devices
2026-11-21 16:54:49.399+0000: libxl: libxl_exec.c:117:libxl_report_child_exitstatus: /etc/xen/scripts/vif-bridge offline [222] exited with error status 1
2026-11-21 16:54:49.402+0000: libxl: libxl_device.c:1337:device_hotplug_child_death_cb: script: Could not find bridge device nope
"""  # noqa: E501 - libxl's lines

NO_BRIDGE = "its network card could not be plugged in: Could not find bridge device nope"


def test_when_several_failed_at_once_none_is_told_only_the_cause_of_another() -> None:
    told, what_to_do = cause(AT_ONCE, took_s=11.0)
    assert told == (
        "several failed there at once, and it is one of: Xen has too little free memory for it; "
        f"or its memory is too small for its kernel; or {NO_BRIDGE}"
    )
    assert all(advice in what_to_do for advice in ("stop a guest", "more memory", "name a bridge"))


def test_what_was_written_before_the_call_began_is_no_cause_of_its_failure() -> None:
    assert cause(AT_ONCE, took_s=4.0)[0] == NO_BRIDGE
    first = "".join(AT_ONCE.splitlines(keepends=True)[:8])
    assert cause(first, took_s=0.5)[0] == "its memory is too small for its kernel"


def test_an_older_failure_is_not_taken_for_the_latest() -> None:
    old = "2026-11-21 14:00:00.000+0000: libxl: a: script: Could not find bridge device nobr0"
    new = "2026-11-21 14:00:10.000+0000: xc: panic: b: no loader found: Invalid kernel"
    assert cause(f"{old}\n{new}", took_s=2.0)[0] == "Xen finds no way into this kernel"
    unknown = new.replace("no loader found: Invalid kernel", "nothing known")
    assert cause(f"{old}\n{unknown}", took_s=2.0) == ("xc: panic: b: nothing known", "")
