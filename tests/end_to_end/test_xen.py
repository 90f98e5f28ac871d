"""The main job and the bad days on a real Xen: DNS questions boot PVH guests on the Xen bed."""

import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.end_to_end import xen
from tests.end_to_end.conftest import get
from tests.end_to_end.xen import FOREIGN, FOREIGN_NUMBER, WAKE_S, Eyes, XenEdgewake
from tests.xenbed import qemu
from tests.xenbed.bed import Bed

# The first test waits for the bed.
pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

CROWD = [f"crowd{number}" for number in range(5)]
HALVES = ["half0", "half1"]
CUT_S = 20.0
PATIENCE_S = 200.0  # for what happens by itself, such as a connection that is made anew

SERVICES = """
  web:
    config: {{greeting: hello from a test}}
    idle: {{after: 3 s, min_up: 1 s, paused: 0 s, saved: 0 s}}
  crowd0: {{}}
  crowd1: {{}}
  crowd2: {{}}
  crowd3: {{}}
  crowd4: {{}}
  greedy: {{resources: {{cpu: 0.25, memory: {greedy_mib} MiB}}}}
  half0: {{resources: {{cpu: 0.25, memory: {half_mib} MiB}}}}
  half1: {{resources: {{cpu: 0.25, memory: {half_mib} MiB}}}}
  with-disk: {{image: with-disk}}
  wrong-elf: {{image: virtio-only, resources: {{cpu: 0.25, memory: 32 MiB}}}}
  wrong-disk: {{image: disk-only, resources: {{cpu: 0.25, memory: 32 MiB}}}}
  late: {{}}
  dies: {{restart: always}}
  rests: {{}}
"""


@pytest.fixture(scope="module")
def eyes(xen_bed: Bed) -> Eyes:
    return Eyes(xen_bed)


@pytest.fixture(scope="module")
def edgewake(eyes: Eyes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[XenEdgewake]:
    folder = tmp_path_factory.mktemp("xen")
    free = eyes.bed.state.guests_mib
    services = SERVICES.format(greedy_mib=free + 1024, half_mib=free * 6 // 10)
    made = xen.make(folder, eyes.bed, services, port=5493, pool=(10, 99))
    try:
        made.start()
        yield made
    finally:
        xen.clean(made, eyes)
    assert eyes.ours() == {}


@pytest.fixture(scope="module")
def foreign(eyes: Eyes, edgewake: XenEdgewake) -> Iterator[int]:
    number = eyes.make_foreign(edgewake.folder / "images" / "hello" / "kernel")
    yield number
    eyes.destroy(FOREIGN)


@pytest.fixture(autouse=True)
def foreign_is_left_alone(foreign: int, eyes: Eyes) -> Iterator[None]:
    yield
    assert eyes.domains()[FOREIGN] == foreign, "it was ended, or booted anew"


def test_a_query_boots_a_pvh_guest_that_answers_from_outside_and_sleeps(
    edgewake: XenEdgewake, eyes: Eyes
) -> None:
    assert "ew-e2e-web-0" not in eyes.domains()
    address, page = edgewake.wake("web")
    assert "hello from a test" in page
    assert "Xen" in page
    assert address in page
    with eyes.connection() as conn:
        assert "xenpvh" in conn.lookupByName("ew-e2e-web-0").XMLDesc()
    stages = [stage for stage in edgewake.stages("web") if stage != "client"]
    assert stages[-3:] == ["answer", "stored", "reply"]
    edgewake.wait_until(lambda: edgewake.state_of("web") == "asleep", PATIENCE_S)
    assert "ew-e2e-web-0" not in eyes.domains()
    assert "listening on" in edgewake.cli("logs", "web")
    again, page = edgewake.wake("web")
    assert again == address, "a service keeps its address over a sleep"
    assert "hello from a test" in page


def test_five_wakes_at_once_answer(edgewake: XenEdgewake, eyes: Eyes) -> None:
    with ThreadPoolExecutor(5) as pool:
        woken = dict(zip(CROWD, pool.map(edgewake.wake, CROWD), strict=True))
    assert len({address for address, _page in woken.values()}) == 5
    for name, (_address, page) in woken.items():
        assert f"ew-e2e-{name}-0" in page
    assert {f"ew-e2e-{name}-0" for name in CROWD} <= eyes.domains().keys()


def test_after_kill_9_a_new_start_adopts_what_runs(edgewake: XenEdgewake, eyes: Eyes) -> None:
    before = {name: edgewake.wake(name)[0] for name in CROWD[:2]}
    numbers = {name: eyes.domains()[f"ew-e2e-{name}-0"] for name in before}
    edgewake.kill()
    edgewake.start()
    assert {name: edgewake.wake(name)[0] for name in before} == before
    assert {name: eyes.domains()[f"ew-e2e-{name}-0"] for name in before} == numbers
    assert all(edgewake.state_of(name) == "awake" for name in before)


@pytest.fixture
def nothing_more(edgewake: XenEdgewake, eyes: Eyes) -> Iterator[None]:
    """See to it that a test leaves the host as it was: guests, files and free memory."""
    edgewake.wake("rests")  # so that what is sent once, whoever boots, is there
    free, files, guests = eyes.free_mib(), eyes.files(edgewake), set(eyes.xen_names())
    yield
    edgewake.wait_until(lambda: set(eyes.xen_names()) <= guests, PATIENCE_S)
    left = [name for name in eyes.files(edgewake) if name not in files]
    assert [name for name in left if name.startswith("overlay-")] == []
    assert eyes.free_mib() >= free - xen.HELLO_MIB, "Xen has not got its memory back"


@pytest.mark.usefixtures("nothing_more")
def test_more_memory_than_there_is_fails_with_the_reason(edgewake: XenEdgewake) -> None:
    reply = edgewake.ask("greedy", timeout_s=WAKE_S)
    assert reply.rcode == "SERVFAIL"
    assert "memory" in reply.text


@pytest.mark.usefixtures("nothing_more")
def test_of_two_wakes_that_do_not_both_fit_one_answers_and_one_says_why(
    edgewake: XenEdgewake,
) -> None:
    with ThreadPoolExecutor(2) as pool:
        replies = list(pool.map(lambda name: edgewake.ask(name, timeout_s=WAKE_S), HALVES))
    (served,) = [reply for reply in replies if reply.addresses]
    (refused,) = [reply for reply in replies if not reply.addresses]
    assert "ew-e2e-half" in get(served)
    assert refused.rcode == "SERVFAIL"
    assert "memory" in refused.text
    for name in HALVES:
        edgewake.client.post(f"/services/{name}/sleep", {"to": "cold"})


@pytest.mark.usefixtures("nothing_more")
def test_a_start_that_xen_gives_up_halfway_leaves_nothing(edgewake: XenEdgewake) -> None:
    """The bed has no QEMU, which a qcow2 disk needs: Xen fails when the guest is half made."""
    reply = edgewake.ask("with-disk", timeout_s=WAKE_S)
    assert reply.rcode == "SERVFAIL"
    assert "dom0 has no QEMU" in reply.text


@pytest.mark.parametrize(
    ("service", "why"),
    [
        ("wrong-elf", "target virtio, which is for a QEMU host; for a Xen host build it for xen"),
        ("wrong-disk", "Nanos does not run on a Xen host"),
    ],
)
def test_an_image_for_other_hypervisors_is_refused_before_anything_is_made(
    edgewake: XenEdgewake, eyes: Eyes, service: str, why: str
) -> None:
    reply = edgewake.ask(service, timeout_s=WAKE_S)
    assert reply.rcode == "SERVFAIL"
    assert "image cannot be booted" in reply.text
    assert why in edgewake.trouble(service)
    assert why in edgewake.why_not(service)
    assert not {"define", "start"} & set(edgewake.stages(service))
    assert f"ew-e2e-{service}-0" not in eyes.domains()


RESTART_LIBVIRTD = """\
until [ -e /var/log/xen/guest-ew-e2e-late-0.log ]; do usleep 20000; done
pid=$(cat /run/libvirtd.pid)
kill "$pid"
while [ -e "/proc/$pid" ]; do usleep 50000; done
libvirtd -d --listen
"""


def test_libvirtd_may_be_restarted_in_the_middle_of_a_wake(
    edgewake: XenEdgewake, eyes: Eyes
) -> None:
    eyes.dom0("rm", "-f", "/var/log/xen/guest-ew-e2e-late-0.log")
    with ThreadPoolExecutor(1) as pool:
        restart = pool.submit(eyes.dom0, "sh", "-c", RESTART_LIBVIRTD)
        time.sleep(2)  # ssh there takes that long; later is no harm, but tests less
        reply = edgewake.ask("late", timeout_s=WAKE_S)
        restart.result()
    if reply.addresses:
        assert "ew-e2e-late-0" in get(reply)
    else:
        assert (reply.rcode, bool(reply.text)) == ("SERVFAIL", True)
    edgewake.wait_until(lambda: not edgewake.host()["lost"], PATIENCE_S)
    _address, page = edgewake.wake("late")
    assert "ew-e2e-late-0" in page
    assert eyes.xen_names().count("ew-e2e-late-0") == 1, "a half-made guest was left"


def test_a_cut_link_ends_nothing_and_who_is_awake_is_answered_for(
    edgewake: XenEdgewake, eyes: Eyes
) -> None:
    address, _page = edgewake.wake("rests")
    before = eyes.ours()
    eyes.bed.set_link(qemu.MANAGEMENT, up=False)
    cut_at = time.monotonic()
    try:
        edgewake.wait_until(lambda: bool(edgewake.host()["lost"]), CUT_S)
        while time.monotonic() < cut_at + CUT_S:
            reply = edgewake.ask("rests")
            assert reply.addresses == (address,), reply.text
            assert "ew-e2e-rests-0" in get(reply)
            time.sleep(1)
        assert edgewake.host()["lost"], "it came back through a link that is cut"
    finally:
        eyes.bed.set_link(qemu.MANAGEMENT, up=True)
    edgewake.wait_until(lambda: not edgewake.host()["lost"], PATIENCE_S)
    after = eyes.ours()
    awake = {name: number for name, number in before.items() if "-web-" not in name}
    assert awake.items() <= after.items(), "a guest was ended, or booted anew"
    assert edgewake.ask("rests").addresses == (address,)


def nmi(eyes: Eyes, name: str) -> None:
    """Let a guest crash: hello has no handler for what this sends."""
    eyes.dom0("xl", "trigger", name, "nmi")


def destroy(eyes: Eyes, name: str) -> None:
    eyes.destroy(name)


def xl_destroy(eyes: Eyes, name: str) -> None:
    """End a guest behind libvirt's back."""
    eyes.dom0("xl", "destroy", name)


@pytest.mark.parametrize("end", [nmi, destroy, xl_destroy])
def test_a_guest_that_dies_is_restarted_if_its_policy_says_so(
    edgewake: XenEdgewake, eyes: Eyes, end: Callable[[Eyes, str], None]
) -> None:
    edgewake.wake("dies")
    before = eyes.domains()["ew-e2e-dies-0"]
    end(eyes, "ew-e2e-dies-0")
    edgewake.wait_until(lambda: eyes.domains().get("ew-e2e-dies-0", before) != before, PATIENCE_S)
    edgewake.wait_until(lambda: edgewake.state_of("dies") == "awake", PATIENCE_S)
    _address, page = edgewake.wake("dies")
    assert "ew-e2e-dies-0" in page


def test_a_guest_that_dies_is_else_asleep_until_the_next_query(
    edgewake: XenEdgewake, eyes: Eyes
) -> None:
    edgewake.wake("rests")
    eyes.destroy("ew-e2e-rests-0")
    edgewake.wait_until(lambda: edgewake.state_of("rests") == "asleep", PATIENCE_S)
    _address, page = edgewake.wake("rests")
    assert "ew-e2e-rests-0" in page


def test_the_same_over_ssh(eyes: Eyes, tmp_path: Path) -> None:
    made = xen.make(
        tmp_path / "state",
        eyes.bed,
        "  secure: {}",
        port=5494,
        uri=eyes.bed.ssh_uri,
        pool=(110, 119),
    )
    try:
        made.start()
        _address, page = made.wake("secure")
        assert "ew-e2e-secure-0" in page
        assert "Xen" in page
        assert made.cli("logs", "secure")
    finally:
        xen.clean(made, eyes)
    assert "ew-e2e-secure-0" not in eyes.domains()


def test_the_foreign_guest_still_answers(eyes: Eyes) -> None:
    """Last, after all that was done beside it on its bridge."""
    url = f"http://{eyes.bed.state.lan.subnet[FOREIGN_NUMBER]}/"
    try:
        with urllib.request.urlopen(url, timeout=10) as page:
            assert FOREIGN in page.read().decode()
    except OSError as error:
        asked = "xl list; ip neigh; bridge fdb; tail -n 5 /var/log/xen/guest-foreign.log"
        seen = eyes.bed.ssh("sh", "-c", asked).stdout.decode()
        pytest.fail(f"{url}: {error}\n{seen}")
