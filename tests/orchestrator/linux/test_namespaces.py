"""Namespaces are made whole or not at all, entered by a thread of their own, and taken away."""

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.linux import namespaces

pytestmark = pytest.mark.real

NAME = f"ewtn{os.getpid()}"


@pytest.fixture
def name() -> Iterator[str]:
    yield NAME
    namespaces.remove(NAME)


def own() -> int:
    return Path(f"/proc/self/task/{threading.get_native_id()}/ns/net").stat().st_ino


def devices(named: str) -> list[str]:
    with namespaces.netlink(named) as ip:
        return [link.get_attr("IFLA_IFNAME") for link in ip.get_links()]


def test_one_is_made_and_seen_by_ip_netns(name: str) -> None:
    before = own()
    seen: list[int] = []
    namespaces.make(name, lambda: seen.append(own()))
    assert own() == before, "the caller stays where it was"
    assert seen == [namespaces.inside(name, own)]
    assert seen != [before]
    assert name in namespaces.names()
    told = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    assert name in told.stdout.split()


def test_netlink_speaks_with_the_kernel_inside(name: str) -> None:
    namespaces.make(name)
    with namespaces.netlink(name) as ip:
        ip.link("add", ifname="ewtn0", kind="bridge")
    assert "ewtn0" in devices(name)
    assert not Path("/sys/class/net/ewtn0").exists()


def test_a_name_that_is_taken_is_left_alone(name: str) -> None:
    namespaces.make(name)
    first = namespaces.inside(name, own)
    with pytest.raises(FileExistsError):
        namespaces.make(name)
    assert namespaces.inside(name, own) == first


def test_nothing_is_left_of_one_that_could_not_be_prepared() -> None:
    def fail() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        namespaces.make(NAME, fail)
    assert not (namespaces.FOLDER / NAME).exists()


def test_removed_ones_are_gone_and_may_be_removed_again(name: str) -> None:
    namespaces.make(name)
    namespaces.remove(name)
    assert name not in namespaces.names()
    assert not (namespaces.FOLDER / name).exists()
    namespaces.remove(name)


def test_what_a_crash_left_is_no_namespace_and_can_be_removed(name: str) -> None:
    (namespaces.FOLDER / name).touch()
    assert name not in namespaces.names()
    namespaces.remove(name)
    assert not (namespaces.FOLDER / name).exists()


def test_what_a_crash_left_is_in_nobodys_way(name: str) -> None:
    (namespaces.FOLDER / name).touch(0o444)
    namespaces.make(name)
    assert name in namespaces.names()


def test_only_names_without_a_namespace_are_swept_away(name: str) -> None:
    namespaces.make(name)
    left = namespaces.FOLDER / f"{NAME}-left"
    left.touch(0o444)
    others = namespaces.FOLDER / f"{NAME}-others"
    others.touch(0)  # iproute2 is just making this one
    namespaces.sweep(NAME)
    assert not left.exists()
    assert others.exists()
    others.unlink()
    assert name in namespaces.names()


def test_a_passing_one_has_no_name_and_ends(name: str) -> None:
    before = namespaces.names()
    seen = namespaces.passing(lambda: (own(), namespaces.names()))
    assert seen[0] != own()
    assert seen[1] == before == namespaces.names()


def test_a_later_namesake_is_another(name: str) -> None:
    assert namespaces.inode(name) == 0
    namespaces.make(name)
    first = namespaces.inode(name)
    held = (namespaces.FOLDER / name).open("rb")  # as long as it lives, its inode is its own
    with held:
        namespaces.remove(name)
        assert namespaces.inode(name) == 0
        namespaces.make(name)
        assert namespaces.inode(name) not in {0, first}


def test_errors_name_the_namespace() -> None:
    with pytest.raises(FileNotFoundError, match="ew-nowhere"):
        namespaces.inside("ew-nowhere", own)
