"""Which file is whose dump, and which are kept."""

import pytest

from orchestrator.hypervisors.libxl_dumps import KEPT, Dump, parse, surplus

SERVICE = "ew-lab-web"


def a_dump(day: int, *, number: int = 0, size: int = 1) -> Dump:
    dump = parse(f"{SERVICE}-{number}-2026-11-{day:02}-16:48:16", size, SERVICE)
    assert dump is not None
    return dump


def test_a_file_of_libxls_is_a_dump_of_its_instance() -> None:
    dump = a_dump(21, number=12, size=7)
    assert (dump.instance, dump.time, dump.size) == ("ew-lab-web-12", "2026-11-21-16:48:16", 7)
    assert dump.path == "/var/lib/libvirt/libxl/dump/ew-lab-web-12-2026-11-21-16:48:16"


@pytest.mark.parametrize(
    "name",
    [
        "ew-lab-web-0",
        "ew-lab-web-0-by-hand",
        "ew-lab-web-2026-11-21-16:48:16",
        "ew-lab-web-0-0-2026-11-21-16:48:16",  # of the service web-0
        "ew-lab-web-0-2026-11-21-16:48:16.gz",
        "ew-lab-webs-0-2026-11-21-16:48:16",
        "x-ew-lab-web-0-2026-11-21-16:48:16",
    ],
)
def test_any_other_file_is_none_of_the_service(name: str) -> None:
    assert parse(name, 1, SERVICE) is None


def test_the_newest_of_a_service_are_kept_and_what_libxl_failed_at_is_not() -> None:
    dumps = [a_dump(day, number=day % 2) for day in (4, 1, 3, 5, 2)]
    empty = a_dump(6, size=0)
    assert surplus([*dumps, empty]) == [empty, a_dump(1, number=1), a_dump(2)]
    assert surplus(dumps[:KEPT]) == []
