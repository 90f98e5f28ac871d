"""Real guests on bad days: killed in the middle of a wake, and more names than memory."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from dns_boot.query import Reply
from orchestrator.errors import EdgewakeError
from tests.end_to_end.conftest import Edgewake, domains, get, virsh

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]


def test_kill_9_in_a_wake_loses_nothing_acknowledged_and_leaks_nothing(
    make_edgewake: Callable[..., Edgewake],
) -> None:
    """Kill it at several instants of a wake; the next start finishes or undoes what it finds."""
    edgewake = make_edgewake("  web: {}\n  other: {idle: never}", port=5393)
    other = edgewake.ask("other")
    for after_s in (0.01, 0.1, 0.3, 0.8, 1.5):
        asker = threading.Thread(target=ask_in_vain, args=(edgewake,))
        asker.start()
        time.sleep(after_s)
        edgewake.kill()
        edgewake.start()
        assert get(other, "/healthz"), "a service that was acknowledged was lost"
        assert edgewake.state_of("other") == "awake"
        assert edgewake.ask("other").addresses == other.addresses
        reply = edgewake.ask("web")
        assert get(reply, "/healthz")
        assert domains() == ["ew-e2e-other-0", "ew-e2e-web-0"]
        asker.join()
        edgewake.client.post("/services/web/sleep", {"to": "cold"})
        assert domains() == ["ew-e2e-other-0"]
        assert edgewake.ask("web").addresses == reply.addresses
        edgewake.client.post("/services/web/sleep", {"to": "cold"})
    instances = [i for s in edgewake.client.get("/status")["services"] for i in s["instances"]]
    assert [instance["name"] for instance in instances] == ["ew-e2e-other-0"]


def ask_in_vain(edgewake: Edgewake) -> None:
    with suppress(EdgewakeError):  # the edgewake that was asked is dead
        edgewake.ask("web", timeout_s=4.0)


def test_twenty_cold_names_boot_as_far_as_memory_allows(
    make_edgewake: Callable[..., Edgewake],
) -> None:
    """Three fit. Those three answer, the other seventeen are told why not, and nobody hangs."""
    names = [f"s{number:02}" for number in range(20)]
    services = "\n".join(f"  {name}: {{}}" for name in names)
    edgewake = make_edgewake(services, port=5394, memory="300 MiB")
    replies: dict[str, Reply] = {}
    threads = [
        threading.Thread(target=ask_with_reason, args=(edgewake, name, replies)) for name in names
    ]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    answered = [name for name, reply in replies.items() if reply.addresses]
    refused = [reply for reply in replies.values() if not reply.addresses]
    assert len(answered) == 3
    assert len(refused) == 17
    assert all(reply.rcode == "SERVFAIL" and "memory" in reply.text for reply in refused)
    assert max(reply.seconds for reply in refused) < min(replies[n].seconds for n in answered)
    wakes = [w for w in edgewake.client.get("/wakes?limit=100")["wakes"] if w["outcome"] == "ready"]
    alone = sum(wake["stamps"][-1][1] for wake in wakes)
    assert took < alone, "they booted one after the other"


def test_a_network_that_vanished_is_made_again(make_edgewake: Callable[..., Edgewake]) -> None:
    edgewake = make_edgewake("  web: {}", port=5397)
    virsh("net-destroy", "edgewake-e2e")
    refused = edgewake.ask("web")
    assert "Network not found" in refused.text
    assert "failed" in edgewake.client.get("/status")["services"][0]["trouble"]
    assert get(edgewake.ask("web"), "/healthz")


def test_nothing_is_placed_on_a_foreign_network(make_edgewake: Callable[..., Edgewake]) -> None:
    edgewake = make_edgewake("  web: {}", port=5398, start=False)
    xml = edgewake.folder / "foreign.xml"
    xml.write_text(
        "<network><name>edgewake-e2e</name><forward mode='open'/><bridge name='ewforeign1'/>"
        "<ip address='10.213.82.1' netmask='255.255.255.0'/><dns enable='no'/></network>"
    )
    virsh("net-create", str(xml))
    try:
        edgewake.start()
        (host,) = edgewake.client.get("/status")["hosts"]
        assert "not ours" in host["refused"]
        assert "not ours" in edgewake.ask("web").text
        assert domains() == []
        edgewake.stop()
        assert "edgewake-e2e" in virsh("net-list", "--name")
    finally:
        virsh("net-destroy", "edgewake-e2e")


def ask_with_reason(edgewake: Edgewake, name: str, replies: dict[str, Reply]) -> None:
    replies[name] = edgewake.ask(name)
