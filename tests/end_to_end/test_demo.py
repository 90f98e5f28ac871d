"""`make demo` as a newcomer sees it, and what it leaves behind: nothing, also after Ctrl-C."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import virsh

pytestmark = [pytest.mark.real, pytest.mark.timeout(480)]

STATE = Path(f"/var/lib/edgewake-tests/demo-{os.getpid()}")
FOREIGN = "ewforeign"


@pytest.fixture
def demo() -> Iterator["subprocess.Popen[str]"]:
    """Start the demo in a process group of its own, as a terminal does, from a foreign folder."""
    with subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "--state", str(STATE), "demo"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",
        start_new_session=True,
    ) as process:
        yield process
        process.kill()
    STATE.rmdir()  # the state of the demo was inside, and must be gone


def no_trace_of_the_demo() -> bool:
    names = virsh("list", "--all", "--name") + virsh("net-list", "--all", "--name")
    return "demo" not in names


def test_the_demo_tells_the_whole_story(demo: "subprocess.Popen[str]") -> None:
    virsh("net-create", str(foreign_network()))
    try:
        said, _ = demo.communicate(timeout=400)
        assert demo.returncode == 0, said
        for words in (
            "web.demo.edgewake.test.  5  IN  A  10.213.77.",
            "NOERROR",
            "200,",
            "ew-demo-web-0",
            "web is asleep: its machine is paused",
            "guest's first answer",
            "our overhead is",
        ):
            assert words in said
        assert said.count("hypervisor built the guest") == 1
        assert said.count("guest's processor runs again") == 2
        assert no_trace_of_the_demo()
        assert FOREIGN in virsh("net-list", "--name")
    finally:
        virsh("net-destroy", FOREIGN)


def test_ctrl_c_in_the_middle_leaves_nothing(demo: "subprocess.Popen[str]") -> None:
    assert demo.stdout is not None
    for line in demo.stdout:
        if "NOERROR" in line:
            break
    os.killpg(demo.pid, signal.SIGINT)
    demo.communicate(timeout=200)
    assert demo.returncode == 130
    assert no_trace_of_the_demo()


def test_a_demo_that_is_killed_outright_is_cleaned_up_all_the_same(
    demo: "subprocess.Popen[str]",
) -> None:
    assert demo.stdout is not None
    for line in demo.stdout:
        if "NOERROR" in line:
            break
    demo.kill()
    end = time.monotonic() + 30
    while not no_trace_of_the_demo():
        assert time.monotonic() < end, "the edgewake that the demo had started lives on"
        time.sleep(0.2)
    shutil.rmtree(STATE / "demo")  # the next demo would do that


def foreign_network() -> Path:
    path = Path("/var/lib/edgewake-tests/foreign-net.xml")
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f"<network><name>{FOREIGN}</name><forward mode='open'/><bridge name='{FOREIGN}0'/>"
        "<ip address='10.213.81.1' netmask='255.255.255.0'/><dns enable='no'/></network>"
    )
    return path
