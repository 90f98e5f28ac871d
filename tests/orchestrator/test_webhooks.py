"""Webhooks: what is sent, to whom, in which order, and what happens when nobody takes it."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import LabError
from orchestrator.journal import TROUBLE, Journal
from orchestrator.labfile import parse_lab
from orchestrator.model import Event
from orchestrator.store.memory import MemoryStore
from orchestrator.webhook import Secret, Topic, Webhook
from orchestrator.webhook_wire import (
    DELIVERY,
    REPLAY_S,
    SIGNATURE,
    Delivery,
    NotDelivered,
    post,
    read_secret,
    sign,
    verify,
)
from orchestrator.webhooks import KINDS, QUEUE, Webhooks, wants
from tests.web.conftest import LAB

SECRET = b"a secret of some length"
PAGE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()


class Receiver:
    """A web server that remembers what it was sent, and answers with these statuses in turn."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = [*statuses]
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.got = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with receiver.got:
                    receiver.requests.append((self.path, dict(self.headers), body))
                    status = receiver.statuses.pop(0) if receiver.statuses else 204
                    receiver.got.notify_all()
                self.send_response(status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/hooks/token?x=1"

    def await_requests(self, count: int) -> list[dict[str, Any]]:
        with self.got:
            assert self.got.wait_for(lambda: len(self.requests) >= count, 10)
            return [json.loads(body) for _, _, body in self.requests]

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Rig:
    """A journal with webhooks; pauses between tries are none."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.journal = Journal(self.store)
        self.hooks = Webhooks(self.journal, pauses_s=(0.0, 0.0))
        self.receivers: list[Receiver] = []

    def receiver(self, *statuses: int) -> Receiver:
        self.receivers.append(Receiver(*statuses))
        return self.receivers[-1]

    def counted(self, hook: str) -> dict[str, int]:
        counts = self.hooks.counts().deliveries.items()
        found = {(dict(k)["hook"], dict(k)["outcome"]): v for k, v in counts}
        return {outcome: count for (name, outcome), count in found.items() if name == hook}

    def await_count(self, hook: str, outcome: str, count: int) -> None:
        end = time.monotonic() + 10
        while self.counted(hook)[outcome] < count:
            assert time.monotonic() < end, self.counted(hook)
            time.sleep(0.005)

    def told(self) -> list[Event]:
        self.journal._writer.submit(lambda: None).result(5)
        return [event for event in self.store.events() if event.kind.startswith("webhook")]


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.hooks.close()
    made.journal.close()
    for receiver in made.receivers:
        receiver.close()


def a_hook(url: str, *topics: Topic, name: str = "hook", **more: Any) -> Webhook:
    return Webhook(name, url, frozenset(topics or (Topic.ALL,)), **more)


def test_an_event_is_sent_with_all_that_is_known(rig: Rig, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.touch(0o600)
    file.write_bytes(SECRET + b"\n")
    receiver = rig.receiver()
    rig.hooks.use("lab", [a_hook(receiver.url, Topic.WAKE, secret=Secret(file))])
    rig.journal.record("slept", "web", "idle")
    rig.journal.record("woke", "web", "ew-lab-web-0 on a", wake="17")
    (body,) = receiver.await_requests(1)
    ((path, headers, sent),) = receiver.requests
    assert path == "/hooks/token?x=1"
    assert headers["Content-Type"] == "application/json"
    assert headers[DELIVERY] == body.pop("id")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body.pop("time"))
    assert body == {
        "lab": "lab",
        "kind": "woke",
        "subject": "web",
        "text": "ew-lab-web-0 on a",
        "data": {"wake": "17"},
    }
    assert verify(SECRET, sent, headers[SIGNATURE], time.time())
    assert the_pages_own_check()(SECRET, sent, headers[SIGNATURE])


def the_pages_own_check() -> Callable[[bytes, bytes, str], bool]:
    """Return the function that docs/webhooks.md gives to receivers."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - our own page
    check: Callable[[bytes, bytes, str], bool] = names["is_genuine"]
    return check


def test_a_signature_is_for_one_body_one_secret_and_a_few_minutes() -> None:
    now = time.time()
    signature = sign(SECRET, b"{}", now)
    assert verify(SECRET, b"{}", signature, now + REPLAY_S - 1)
    assert not verify(SECRET, b"{}", signature, now + REPLAY_S + 1)
    assert not verify(SECRET, b"{ }", signature, now)
    assert not verify(SECRET + b"!", b"{}", signature, now)
    later = signature.replace(f"t={int(now)}", f"t={int(now) + 9}")
    for forged in (later, "", "t=x,v1=y", "v1=", f"t={int(now)}"):
        assert not verify(SECRET, b"{}", forged, now)
    check = the_pages_own_check()
    assert check(SECRET, b"{}", signature)
    assert not check(SECRET, b"{ }", signature)


def test_events_arrive_in_order_although_some_are_tried_again(rig: Rig) -> None:
    receiver = rig.receiver(500, 200, 429, 503, 200)
    rig.hooks.use("lab", [a_hook(receiver.url)])
    for number in range(3):
        rig.journal.record("woke", f"s{number}", "text")
    receiver.await_requests(6)
    subjects = [json.loads(body)["subject"] for _, _, body in receiver.requests]
    assert subjects == ["s0", "s0", "s1", "s1", "s1", "s2"]
    assert len({headers[DELIVERY] for _, headers, _ in receiver.requests}) == 3
    rig.await_count("hook", "delivered", 3)
    assert rig.told() == []


@pytest.mark.parametrize(("status", "tries"), [(500, 3), (404, 1), (302, 1)])
def test_what_is_given_up_is_counted_and_told_once(rig: Rig, status: int, tries: int) -> None:
    receiver = rig.receiver(*[status] * tries * 2)
    rig.hooks.use("lab", [a_hook(receiver.url)])
    for _ in range(2):
        rig.journal.record("woke", "web", "text")
    rig.await_count("hook", "failed", 2)
    assert len(receiver.requests) == 2 * tries
    assert {path for path, _, _ in receiver.requests} == {"/hooks/token?x=1"}
    (event,) = rig.told()
    assert (event.kind, event.subject) == ("webhook-failed", "hook")
    assert f"status {status}" in event.text
    assert "token" not in event.text
    rig.journal.record("woke", "web", "text")
    rig.await_count("hook", "delivered", 1)
    assert [event.kind for event in rig.told()] == ["webhook-failed", "webhook-back"]


def test_nobody_there_is_a_failure(rig: Rig) -> None:
    receiver = Receiver()
    receiver.close()
    rig.hooks.use("lab", [a_hook(receiver.url)])
    rig.journal.record("woke", "web", "text")
    rig.await_count("hook", "failed", 1)
    assert "refused" in rig.told()[0].text


def test_one_that_hangs_holds_up_neither_the_journal_nor_another() -> None:
    free, sent = threading.Event(), threading.Event()

    def send(webhook: Webhook, _sent: Delivery, _agent: str) -> None:
        if webhook.name == "slow":
            free.wait(10)
        else:
            sent.set()

    journal = Journal(MemoryStore())
    hooks = Webhooks(journal, send=send)
    urls = "http://127.0.0.1:1/"
    hooks.use("lab", [a_hook(urls, name="slow"), a_hook(urls, Topic.SLEEP, name="quick")])
    for _ in range(QUEUE + 2):
        journal.record("woke", "web", "text")
    journal.record("slept", "web", "text")
    assert sent.wait(10)
    counts = hooks.counts()
    dropped = counts.deliveries[("hook", "slow"), ("outcome", "dropped")]
    assert dropped >= 2
    assert counts.waiting[(("hook", "slow"),)] <= QUEUE
    free.set()
    hooks.close()
    journal.close()


def test_another_lab_has_other_hooks_and_one_that_stays_keeps_its_counts(rig: Rig) -> None:
    first, second = rig.receiver(), rig.receiver()
    stays = a_hook(first.url, name="stays")
    rig.hooks.use("lab", [stays, a_hook(first.url, name="goes")])
    rig.journal.record("woke", "web", "text")
    rig.await_count("stays", "delivered", 1)
    rig.hooks.use("lab", [stays, a_hook(second.url, name="comes")])
    rig.journal.record("slept", "web", "text")
    rig.await_count("stays", "delivered", 2)
    rig.await_count("comes", "delivered", 1)
    assert rig.counted("goes") == {}


def test_a_hook_is_not_told_of_its_own_failures() -> None:
    own = Event(0.0, "webhook-failed", "hook", "no")
    others = Event(0.0, "webhook-failed", "other", "no")
    hook = a_hook("https://x.example/", Topic.FAILURE)
    assert (wants(hook, own), wants(hook, others)) == (False, True)


def test_the_page_lists_the_kinds_of_each_topic() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE))
    assert set(rows) == {str(topic) for topic in Topic}
    for topic, kinds in KINDS.items():
        named = set(re.findall(r"`([a-z-]+)`", rows[topic]))
        assert named == kinds if topic is not Topic.FAILURE else named <= kinds == TROUBLE


@pytest.mark.parametrize("mode", [0o644, 0o640])
def test_a_secret_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "secret"
    file.write_bytes(SECRET)
    file.chmod(mode)
    with pytest.raises(NotDelivered, match="others than its owner") as raised:
        post(a_hook("http://127.0.0.1:1/", secret=Secret(file)), Delivery("1", b"{}"), "test")
    assert SECRET.decode() not in str(raised.value)


def test_a_secret_may_be_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", SECRET.decode())
    assert read_secret(Secret(variable="HOOK")) == SECRET


def parsed(hook: str) -> Webhook:
    (webhook,) = parse_lab(f"{LAB}webhooks:\n  chat: {hook}\n", Path("/labs/lab.yaml")).webhooks
    return webhook


def test_a_lab_file_says_where_events_go() -> None:
    assert parsed("{url: https://chat.example/x}") == a_hook(
        "https://chat.example/x", Topic.FAILURE, name="chat"
    )
    assert parsed("{url: 'http://[::1]:8/', on: [wake, all], secret: {file: s}}") == a_hook(
        "http://[::1]:8/", Topic.WAKE, Topic.ALL, name="chat", secret=Secret(Path("/labs/s"))
    )
    assert parsed("{url: http://chat.example/, insecure: true}").insecure


@pytest.mark.parametrize(
    ("hook", "why"),
    [
        ("{url: http://chat.example/}", "plain http:// to another machine"),
        ("{url: http://127.0.0.1.example/}", "plain http:// to another machine"),
        ("{url: ftp://chat.example/}", "must be a URL"),
        ("{url: 'https://'}", "must be a URL"),
        ("{url: 'https://x:99999/'}", "must be a URL"),
        ("{url: 'https://x/\\r\\nEvil: 1'}", "must be a URL"),
        ("{url: https://me:secret@chat.example/}", "neither a user"),
        ("{url: https://x.example/, on: [woke]}", "unknown topic 'woke'"),
        ("{url: https://x.example/, secret: {}}", "`file` or `env`"),
        ("{url: https://x.example/, secret: {file: a, env: b}}", "`file` or `env`"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(hook: str, why: str) -> None:
    with pytest.raises(LabError, match=re.escape(why)):
        parsed(hook)
