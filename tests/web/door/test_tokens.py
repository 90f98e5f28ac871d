"""Tokens, sessions and failed logins, by clocks of ours."""

import json
import stat
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.errors import EdgewakeError, StoreError
from web.door.audit import AT_ONCE, Bounded
from web.door.sessions import IDLE_S, LONGEST_S, MOST, MOST_EACH, Sessions
from web.door.throttle import FREE, FREE_IN_ALL, LONGEST_DELAY_S, LONGEST_IN_ALL_S, Throttle
from web.door.tokens import KEPT_S, MARK_USED_S, ONCE_S, PREFIX, Tokens
from web.roles import Caller, Role

ADA = Caller("ada", Role.OPERATOR)


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


@pytest.fixture
def tokens(file: Path, clock: Clock) -> Tokens:
    return Tokens(file, clock)


def test_a_token_is_kept_as_a_hash_that_only_its_owner_may_read(tokens: Tokens, file: Path) -> None:
    token, text = tokens.create("ci", Role.OPERATOR)
    assert text.startswith(PREFIX)
    assert len(text) > 40
    assert text.removeprefix(PREFIX) not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    found = tokens.find(text)
    assert found is not None
    assert (found.id, found.caller) == (token.id, Caller("ci", Role.OPERATOR))
    for wrong in ("", PREFIX, text[:-1], text + "A", text.removeprefix(PREFIX), "ew_\udc80"):
        assert tokens.find(wrong) is None


def test_a_token_ends_when_it_is_revoked_or_expires(tokens: Tokens, clock: Clock) -> None:
    short, text = tokens.create("short", Role.VIEWER, lasts_s=60)
    long, other = tokens.create("long", Role.VIEWER)
    clock.now += 59.9
    assert tokens.find(text)
    clock.now += 0.1
    assert tokens.find(text) is None
    assert (tokens.valid(short.id), tokens.valid(long.id), tokens.any_valid()) == (
        False,
        True,
        True,
    )
    assert tokens.revoke(long.id) == tokens.revoke(long.id)
    assert tokens.find(other) is None
    assert not tokens.any_valid()
    assert tokens.revoke("00000000") is None
    assert [each.state(clock.now) for each in tokens.list()] == ["expired", "revoked"]
    clock.now += KEPT_S + 1
    fresh, _ = tokens.create("fresh", Role.VIEWER)
    assert tokens.list() == (fresh,)


def test_another_process_sees_a_change_at_once(tokens: Tokens, file: Path, clock: Clock) -> None:
    token, text = tokens.create("ci", Role.ADMIN)
    door = Tokens(file, clock)
    assert door.find(text)
    tokens.revoke(token.id)
    assert door.find(text) is None
    file.unlink()
    assert door.list() == ()


def test_the_time_of_last_use_is_written_once_a_minute(tokens: Tokens, clock: Clock) -> None:
    token, text = tokens.create("ci", Role.VIEWER)

    def used() -> float | None:
        found = tokens.get(token.id)
        return found.used_at if found else None

    assert used() is None
    tokens.find(text)
    first = clock.now
    clock.now += MARK_USED_S - 1
    tokens.find(text)
    assert used() == first
    clock.now += 1
    tokens.find(text)
    assert used() == clock.now


def test_many_may_change_tokens_at_the_same_time(file: Path) -> None:
    threads = [
        threading.Thread(target=lambda: Tokens(file).create("ci", Role.VIEWER)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Tokens(file).list()) == 8


@pytest.mark.parametrize("damage", ["", "{}", "[]", '{"tokens": [{}], "logins": []}', "\0"])
def test_a_damaged_file_lets_nobody_in_and_is_told(tokens: Tokens, file: Path, damage: str) -> None:
    file.write_text(damage)
    for act in (lambda: tokens.find("ew_x"), lambda: tokens.create("x", Role.VIEWER)):
        with pytest.raises(StoreError, match="cannot be read"):
            act()


@pytest.mark.parametrize("name", ["", " x", "a\nb", "a" * 65, "é", "a,b", "<b>"])
def test_a_name_goes_into_headers_so_not_everything_is_one(tokens: Tokens, name: str) -> None:
    with pytest.raises(EdgewakeError, match="no name"):
        tokens.create(name, Role.VIEWER)
    with pytest.raises(EdgewakeError, match="no name"):
        tokens.once(name, Role.VIEWER)


def test_a_login_can_be_used_once_and_for_five_minutes(
    tokens: Tokens, file: Path, clock: Clock
) -> None:
    text = tokens.once("ada", Role.OPERATOR)
    assert text not in file.read_text()
    assert tokens.redeem("x" + text) is None
    assert tokens.redeem(text) == ADA
    assert tokens.redeem(text) is None
    late = tokens.once("ada", Role.OPERATOR)
    clock.now += ONCE_S
    assert tokens.redeem(late) is None
    assert json.loads(file.read_text())["logins"] == []


# --- sessions ---------------------------------------------------------------------------------


def test_a_session_ends_when_it_is_idle_too_old_or_its_token_is_no_more(clock: Clock) -> None:
    valid = {"t"}
    sessions = Sessions(valid.__contains__, clock)
    idle, _ = sessions.begin(ADA, "t")
    clock.now += IDLE_S
    assert sessions.find(idle)
    clock.now += IDLE_S + 1
    assert sessions.find(idle) is None
    old, _ = sessions.begin(ADA, "t")
    for _ in range(int(LONGEST_S / IDLE_S)):
        clock.now += IDLE_S
        assert sessions.find(old)
    clock.now += 1
    assert sessions.find(old) is None
    revoked, _ = sessions.begin(ADA, "t")
    once, _ = sessions.begin(ADA)
    valid.clear()
    assert sessions.find(revoked) is None
    assert sessions.find(once), "nothing but time ends what began with a link"


def test_session_ids_are_new_and_there_are_so_many_sessions_at_most() -> None:
    sessions = Sessions(lambda _: True)
    callers = [Caller(f"caller {number}", Role.VIEWER) for number in range(MOST + 1)]
    ids = [sessions.begin(caller)[0] for caller in callers]
    assert len(set(ids)) == len(ids)
    assert sessions.find(ids[0]) is None
    assert sessions.find(ids[1])
    sessions.end(ids[1])
    sessions.end("\udc80")
    assert sessions.find(ids[1]) is None


def test_who_logs_in_again_and_again_ends_only_their_own_sessions() -> None:
    sessions = Sessions(lambda _: True)
    other, _ = sessions.begin(Caller("other", Role.ADMIN))
    ids = [sessions.begin(ADA)[0] for _ in range(MOST_EACH + 1)]
    assert sessions.find(other)
    assert [sessions.find(each) is not None for each in ids[:2]] == [False, True]


# --- failures ---------------------------------------------------------------------------------


def test_who_fails_often_waits_twice_as_long_each_time(clock: Clock) -> None:
    throttle = Throttle(clock)
    waits = []
    for _ in range(FREE + 12):
        throttle.failed("192.0.2.1")
        waits.append(throttle.wait_s("192.0.2.1"))
    assert waits[: FREE + 3] == [0.0] * (FREE - 1) + [1.0, 2.0, 4.0, 8.0]
    assert waits[-1] == LONGEST_DELAY_S
    assert throttle.wait_s("192.0.2.2") == 0.0
    clock.now += LONGEST_DELAY_S
    assert throttle.wait_s("192.0.2.1") == 0.0
    throttle.succeeded("192.0.2.1")
    throttle.failed("192.0.2.1")
    assert throttle.wait_s("192.0.2.1") == 0.0


def test_many_addresses_are_slowed_down_together_but_not_shut_out(clock: Clock) -> None:
    throttle = Throttle(clock)
    for number in range(FREE_IN_ALL + 200):
        throttle.failed(f"192.0.2.{number}")
    assert throttle.wait_s("198.51.100.1") == LONGEST_IN_ALL_S


def test_addresses_of_one_ipv6_network_are_one(clock: Clock) -> None:
    throttle = Throttle(clock)
    for number in range(FREE):
        throttle.failed(f"2001:db8::{number}")
    assert throttle.wait_s("2001:db8::ffff") == 1.0
    assert throttle.wait_s("2001:db8:0:1::1") == 0.0


def test_of_failures_some_are_noted_and_the_others_counted(clock: Clock) -> None:
    noted: list[str] = []
    bounded = Bounded(lambda _kind, _where, text: noted.append(text), clock)
    for _ in range(AT_ONCE + 7):
        bounded.failed("refused", "192.0.2.1", "no")
    assert noted == ["no"] * AT_ONCE
    bounded.succeeded("login", "ada", "came")
    clock.now += 30.0
    bounded.failed("refused", "192.0.2.1", "no")
    assert noted[AT_ONCE:] == ["came", "no (7 others before it were not noted)"]


def test_a_token_lets_in_where_its_use_cannot_be_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = Tokens(tmp_path / "tokens.json")
    token, text = tokens.create("ada", Role.VIEWER)

    def full(*_: object) -> None:
        raise StoreError("no space left on device")

    monkeypatch.setattr(tokens, "_write", full)
    assert tokens.find(text) == token
