"""Routers as namespaces keep the contract with real packets, and leave the machine as it was."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from errno import EPERM
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from orchestrator.errors import CannotNetwork
from orchestrator.linux import namespaces
from orchestrator.linux.rtnetlink import Request, Socket
from orchestrator.network import (
    LinkEngine,
    Network,
    SliceShare,
    VirtualLink,
)
from orchestrator.routers import netns
from orchestrator.routers.base import Done
from orchestrator.routers.names import namespace_of
from orchestrator.routers.netns import NetnsRouters
from tests.contracts.routers import NARROW, RoutersContract, pair
from tests.orchestrator.routers.machines import (
    MACHINE,
    NAME,
    PATIENCE_S,
    ip,
    reaches,
    standing_for_a_machine,
    what_there_is,
)

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

BRIDGE = "br-guests"
SILENCE_S = 0.2  # of a way that is not there

Ask = Callable[[Socket, Request], None]


class NetnsRig:
    """The machine we run on, with networks of a name of our own."""

    network = NAME
    bridge = BRIDGE
    stride = 9

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._foreign: dict[str, int] = {}

    def routers(self, owner: str = "", machine: str = "") -> NetnsRouters:
        return NetnsRouters(f"{NAME}{owner}", self.folder, machine=machine, place=MACHINE)

    def reaches(self, wanted: Network, origin: str, target: str, version: int = 4) -> bool:
        patience_s = PATIENCE_S if all(link.up for link in wanted.links) else SILENCE_S
        return reaches(wanted, origin, target, version, patience_s)

    @contextmanager
    def failing(self, steps: int) -> Iterator[None]:
        with asked(steps, _fail):
            yield

    def killed(self, wanted: Network, steps: int) -> bool:
        child = os.fork()
        if child == 0:
            with asked(steps, _die):
                self.routers().set(wanted)
                os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        return os.WIFSIGNALED(status)

    def make_foreign(self, wanted: Network, name: str) -> None:
        namespace = namespace_of(wanted.name, name)
        namespaces.make(namespace)
        self._foreign[namespace] = namespaces.inode(namespace)

    def has_foreign(self, wanted: Network, name: str) -> bool:
        namespace = namespace_of(wanted.name, name)
        return namespaces.inode(namespace) == self._foreign[namespace]

    def clean(self) -> None:
        for namespace in self._foreign:
            namespaces.remove(namespace)
        for owner in ("", "other"):
            self.routers(owner).set(Network(""))


@contextmanager
def asked(steps: int, then: Callable[[], None]) -> Iterator[None]:
    """Let something happen once when so many more requests were made of the kernel."""
    left = [steps]
    do, make, remove = Socket.do, namespaces.make, namespaces.remove

    def step() -> None:
        left[0] -= 1
        if left[0] == -1:
            then()

    def do_each(kernel: Socket, requests: Sequence[Request]) -> None:
        for request in requests:
            step()
            do(kernel, [request])

    def counted(call: Callable[..., None], *arguments: object) -> None:
        step()
        call(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Socket, "do", do_each)
        patch.setattr(namespaces, "make", partial(counted, make))
        patch.setattr(namespaces, "remove", partial(counted, remove))
        yield


def _fail() -> None:
    raise OSError(5, "it was to fail here", "a test")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[NetnsRig]:
    """Yield a rig on a machine that nobody else changes; all must be as before after the test."""
    with standing_for_a_machine(MACHINE):
        ip(f"-n {MACHINE} link add {BRIDGE} up type bridge")
        before = what_there_is()
        made = NetnsRig(tmp_path)
        yield made
        made.clean()
        assert what_there_is() == before


class TestNetnsRouters(RoutersContract):
    """The contract, in this machine's kernel."""


def test_a_link_by_our_own_engine_is_shared_out_from_the_start(rig: NetnsRig) -> None:
    share = SliceShare("gold", (IPv4Network("10.254.8.0/24"),), 20.0)
    link = VirtualLink("r1", "r2", NARROW, slices=(share,))
    wanted = replace(pair(rig.network), links=(link,), engine=LinkEngine.USER)
    routers = rig.routers()
    assert routers.set(wanted).made
    namespace = namespace_of(wanted.name, "r1")
    tell = ["tc", "-n", namespace, "class", "show", "dev", "r2"]
    classes = subprocess.run(tell, capture_output=True, text=True, check=True).stdout
    assert "rate 20Mbit ceil 80Mbit" in classes
    assert routers.set(wanted) == Done()


def test_missing_rights_are_said_with_what_to_do() -> None:
    with pytest.raises(CannotNetwork) as caught, netns._translated():
        raise PermissionError(EPERM, "Operation not permitted", "ew-lab-r1")
    assert "ew-lab-r1: Operation not permitted" in str(caught.value)
    assert caught.value.hint.startswith("run as root")
