"""What the watch of redirects does when it cannot look; see test_traffic.py for when it can."""

from orchestrator.errors import CannotRedirect
from orchestrator.steering.redirect.backend import Standing
from orchestrator.steering.redirect.base import Redirect, Rung
from orchestrator.steering.redirect.watch import Watch


class Tool:
    """A back end whose program may fail."""

    def __init__(self, *standing: Standing) -> None:
        self.standing = [*standing]
        self.fails = False

    def found(self) -> list[Standing]:
        if self.fails:
            raise CannotRedirect("tc: timed out")
        return [*self.standing]

    def add(self, rung: Rung, redirect: Redirect, digest: str) -> None:
        raise AssertionError("a watch adds nothing")

    def remove(self, standing: Standing) -> None:
        self.standing.remove(standing)


def test_it_goes_on_when_it_could_not_look_once() -> None:
    tool = Tool(Standing(Rung.U32, "d", "p", whole=True, device="no-such-device"))
    watch = Watch("tests-watch")
    watch._ends = (tool,)
    assert (watch.sweep(), watch.unsure) == (True, False)
    tool.fails = True
    assert (watch.sweep(), watch.unsure) == (True, True)
    tool.fails = False
    assert (watch.sweep(), watch.unsure) == (True, False)
    tool.standing.clear()
    assert not watch.sweep()


def test_it_does_not_wait_for_a_program_that_was_never_there() -> None:
    tool = Tool(Standing(Rung.U32, "d", "p", whole=True, device="no-such-device"))
    tool.fails = True
    watch = Watch("tests-watch")
    watch._ends = (tool,)
    assert not watch.sweep()
