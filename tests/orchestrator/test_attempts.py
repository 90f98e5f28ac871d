"""What a wake tries next, and how much of its time each attempt gets."""

from pathlib import Path

import pytest

from images.inspect import Inspector
from orchestrator.attempts import Attempts, share_s
from orchestrator.errors import EdgewakeError, HostUnreachable, StartFailed
from orchestrator.library import Fit, Library, Place, traits_of
from orchestrator.model import DnsSettings, Lab
from tests.world import a_host, a_service, an_image


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    host = a_host("a")
    lab = Lab("t", DnsSettings("edge.test"), (host,), images=(an_image(tmp_path),))
    return Library(Inspector()).fit(lab, a_service("web"), Place(host, traits_of(host)))


def flavours(fit: Fit, *names: str) -> tuple[Fit, ...]:
    return tuple(Fit(fit.known, fit.entry, name) for name in names)


def failed(attempts: Attempts, host: str, error: EdgewakeError | None = None) -> str:
    """Have the next flavour of a host fail; return its name."""
    chosen = attempts.flavour(host)
    attempts.failed(host, chosen, error or StartFailed(host, "no"))
    return chosen.flavour if chosen else ""


def test_each_host_once_then_their_other_flavours(fit: Fit) -> None:
    has = {"a": flavours(fit, "x", "y"), "b": flavours(fit, "x")}
    attempts = Attempts(lambda host: has[host])
    assert failed(attempts, "a") == "x"
    assert attempts.without == {"a"}
    assert failed(attempts, "b") == "x"
    assert attempts.without == {"a", "b"}
    assert attempts.widen()
    assert attempts.without == {"b"}, "all that b has was tried"
    assert failed(attempts, "a") == "y"
    assert not attempts.widen()
    assert [str(error) for error in attempts.failures] == ["host a: no", "host b: no", "host a: no"]


def test_hosts_that_are_avoided_come_last_but_come(fit: Fit) -> None:
    attempts = Attempts(lambda _: flavours(fit, "x"), avoided=frozenset({"a"}))
    assert attempts.without == {"a"}
    assert failed(attempts, "b") == "x"
    assert attempts.widen()
    assert attempts.without == {"b"}
    assert failed(attempts, "a") == "x"
    assert not attempts.widen()


def test_a_host_that_is_lost_is_not_tried_again(fit: Fit) -> None:
    attempts = Attempts(lambda _: flavours(fit, "x", "y"))
    failed(attempts, "a", HostUnreachable("a", "gone"))
    assert not attempts.widen()
    assert attempts.without == {"a"}


def test_a_host_without_any_flavour_is_tried_once_for_its_error() -> None:
    attempts = Attempts(lambda _: ())
    assert attempts.flavour("a") is None
    attempts.failed("a", None, StartFailed("a", "no image"))
    assert not attempts.widen()


@pytest.mark.parametrize(
    ("has", "tried", "host", "others", "last"),
    [
        ("x", "", "a", (), True),
        ("x", "", "a", ("b",), False),
        ("xy", "", "a", (), False),
        ("x", "b", "a", ("b",), True),  # b has nothing more
        ("xy", "b", "a", (), False),  # b has y still
        ("xy", "a", "a", (), True),  # y is tried now
    ],
)
def test_the_last_attempt_is_known(
    fit: Fit, has: str, tried: str, host: str, others: tuple[str, ...], *, last: bool
) -> None:
    attempts = Attempts(lambda _: flavours(fit, *has))
    for each in tried:
        failed(attempts, each)
    assert attempts.is_last(host, others) is last


@pytest.mark.parametrize(
    ("left_s", "usual_s", "share"),
    [(30.0, 0.0, 15.0), (30.0, 4.0, 15.0), (30.0, 8.0, 24.0), (30.0, 20.0, 30.0), (-1.0, 1.0, -1)],
)
def test_an_attempt_takes_half_unless_boots_are_slow(
    left_s: float, usual_s: float, share: float
) -> None:
    assert share_s(left_s, usual_s) == share
