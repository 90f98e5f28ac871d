"""`examples/processes.yaml` for real: a question starts a process, which sleeps, wakes and ends."""

import http.client
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dns_boot.query import Reply, ask
from orchestrator.linux.bridges import Links
from orchestrator.linux.processes import processes_told
from tests.end_to_end.conftest import Edgewake
from tests.ports import free_port

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

EXAMPLE = Path(__file__).parents[2] / "examples/processes.yaml"
BRIDGE = "ewproct0"
OURS = (  # what the example uses, and what is used here: somebody may be trying it out
    ("ewproc0", BRIDGE),
    ("10.213.78.", "10.213.76."),
    ("fd00:ed:78:", "fd00:ed:76:"),
    ("after: 5 s", "after: 1 s"),
    ("/usr/share/doc", f"/usr/share/doc{'/.' * (os.getpid() % 7 + 1)}"),
)


def worlds() -> set[Path]:
    """Return what there is of guests of any edgewake: namespaces and control groups."""
    folders = [Path("/run/netns"), *Path("/sys/fs/cgroup").glob("*")]
    found = {path for folder in folders for path in folder.glob("ew-*")}
    return {path for path in found if re.fullmatch("ew-[0-9a-f]{12}", path.name)}


@pytest.fixture
def edgewake() -> Iterator[Edgewake]:
    """Start it, and see that nothing is left of its guests at the end."""
    before = worlds()
    folder = Path(tempfile.mkdtemp(prefix="ewproc-"))
    port = free_port()
    text = EXAMPLE.read_text().replace("127.0.0.1:5392", f"127.0.0.1:{port}")
    for theirs, ours in OURS:
        assert theirs in text
        text = text.replace(theirs, ours)
    lab = folder / "processes.yaml"
    lab.write_text(text)
    running = Edgewake(folder, lab, port)
    argument = text.partition("--directory, ")[2].partition("]")[0]
    running.start()
    yield running
    left = worlds() - before
    running.clean()
    assert not worlds() & left
    assert servers(argument) == 0
    with Links() as links:
        assert links.find(BRIDGE) is None


def asked(edgewake: Edgewake, name: str, qtype: str = "A") -> Reply:
    server = ("127.0.0.1", edgewake.port)
    return ask(server, f"{name}.processes.edgewake.test", qtype, timeout_s=30.0)


def page(reply: Reply) -> tuple[int, str]:
    connection = http.client.HTTPConnection(reply.addresses[0], 80, timeout=20)
    connection.request("GET", "/")
    answer = connection.getresponse()
    said = answer.status, answer.read().decode()
    connection.close()
    return said


def servers(argument: str) -> int:
    found = list(processes_told(argument))
    for process in found:
        process.close()
    return len(found)


def test_a_question_starts_a_process_that_sleeps_wakes_and_outlives_edgewake(
    edgewake: Edgewake,
) -> None:
    argument = edgewake.lab.read_text().partition("--directory, ")[2].partition("]")[0]
    assert servers(argument) == 0
    web = asked(edgewake, "web")
    assert page(web)[0] == 200
    assert servers(argument) == 1
    assert page(asked(edgewake, "hello")) == (200, "good morning from ew-processes-hello-0\n")
    assert page(asked(edgewake, "hello", "AAAA"))[0] == 200
    edgewake.wait_until(lambda: edgewake.rests_at("web", "paused"))
    edgewake.kill()
    edgewake.start()
    edgewake.wait_until(lambda: edgewake.rests_at("web", "paused"))
    assert page(web)[0] == 200, "a packet to its address wakes it"
    assert asked(edgewake, "web").addresses == web.addresses
    assert edgewake.state_of("web") == "awake"
    assert servers(argument) == 1
