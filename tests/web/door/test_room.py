"""One caller alone gets not all places."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.web.door.test_door import bearer
from web.door.access import Access
from web.door.app import MOST_AT_ONCE, create_door
from web.door.room import FEW, SHARE_KEPT, Room
from web.door.server import WORKERS
from web.door.settings import DoorSettings
from web.door.tokens import Tokens
from web.door.upstream import Upstream
from web.roles import Role
from web.server import Server

MOST = 4 * SHARE_KEPT


def test_the_last_places_are_for_who_has_few() -> None:
    room = Room(MOST)
    assert [room.enter("ann") for _ in range(MOST)] == [True] * (MOST - 4) + [False] * 4
    assert [room.enter("bob") for _ in range(FEW + 1)] == [True] * 4 + [False]
    room.leave("ann")
    assert not room.enter("ann")  # the rest is bob's or nobody's
    assert room.enter("joe")
    assert not room.enter("joe")


def test_who_left_has_nothing() -> None:
    room = Room(1)
    for name in ("ann", "bob", "ann"):
        assert room.enter(name)
        assert not room.enter("joe")
        room.leave(name)


class Slow:
    """A daemon that answers when it is let."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.go_on = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if "slow" in environ["PATH_INFO"]:
            self.asked.release()
            self.go_on.wait(20)
        start_response("200 OK", [("Content-Type", "application/json")])
        return [b"{}"]


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Slow]:
    told = Slow()
    server = Server(told, tmp_path / "s")
    server.start()
    yield told
    told.go_on.set()
    server.stop()


def test_a_viewer_who_waits_everywhere_keeps_nobody_out(slow: Slow, tmp_path: Path) -> None:
    assert MOST_AT_ONCE <= WORKERS
    tokens = Tokens(tmp_path / "tokens.json")
    settings = DoorSettings(tmp_path / "s", tokens.path)
    door = create_door(Upstream(settings.socket), Access(tokens), settings)
    greedy, other = (bearer(tokens.create(name, Role.VIEWER)[1]) for name in ("greedy", "other"))
    statuses: list[int] = []

    def ask(number: int) -> None:
        answer = door.test_client().get(f"/api/v1/slow/{number}", headers=greedy)
        statuses.append(answer.status_code)

    most = MOST_AT_ONCE - MOST_AT_ONCE // SHARE_KEPT
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(most)]
    for each in threads:
        each.start()
    for _ in threads:
        assert slow.asked.acquire(timeout=10)
    refused = door.test_client().get("/api/v1/quick", headers=greedy)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert door.test_client().get("/api/v1/quick", headers=other).status_code == 200
    slow.go_on.set()
    for each in threads:
        each.join()
    assert statuses == [200] * most
    assert door.test_client().get("/api/v1/quick", headers=greedy).status_code == 200
