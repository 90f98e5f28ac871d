"""What is kept of answers that were given early, when nobody asks for them any more."""

from concurrent.futures import Future
from ipaddress import IPv4Address

from orchestrator.early import EarlyReplies, Endpoints
from orchestrator.model import Endpoint
from orchestrator.trace import WakeTrace

THERE = Endpoint("web", "ew-web-1", "a", IPv4Address("10.0.0.5"), ttl_s=2)


def test_a_promise_is_kept_for_whoever_joins_the_wake_later() -> None:
    early, trace = EarlyReplies(), WakeTrace("web")
    early.promise(trace, THERE)
    wake: Future[Endpoints] = Future()
    assert early.future(trace, wake).result(0) == (THERE,)
    wake.set_result((THERE,))
    assert not early._promised
    assert not early._waiting


def test_wakes_that_nobody_asked_for_by_name_leave_nothing_behind() -> None:
    early = EarlyReplies()
    for _ in range(100):
        early.promise(WakeTrace("web"), THERE)
    assert not early._promised
