"""Sends journal events to webhooks, in their order, and holds nobody up.

A listener of the journal puts an event into the queue of each hook that wants it; a thread per hook
sends them one after the other. What does not arrive is tried again; then it is counted and let go,
and the journal tells of that once, until something arrives again. What waits when edgewake stops is
not sent: the journal has it.
"""

import threading
import uuid
from collections import Counter, deque
from collections.abc import Callable, Sequence
from logging import getLogger

from orchestrator.installation import version
from orchestrator.journal import TROUBLE, Journal
from orchestrator.metrics import Labels, WebhookCounts
from orchestrator.model import Event
from orchestrator.webhook import Topic, Webhook
from orchestrator.webhook_wire import TIMEOUT_S, Delivery, NotDelivered, delivery, post

log = getLogger(__name__)

QUEUE = 1000  # events that wait for one hook
PAUSES_S = (1.0, 5.0)  # before the second try, and before the third and last
FAILED, BACK = "webhook-failed", "webhook-back"
OUTCOMES = ("delivered", "failed", "dropped")

KINDS: dict[Topic, frozenset[str]] = {
    Topic.WAKE: frozenset({"woke"}),
    Topic.SLEEP: frozenset({"slept", "sank"}),
    Topic.FAILURE: TROUBLE,
    Topic.HOST: frozenset(
        {
            *("host-lost", "host-back", "network-refused", "not-guarded"),
            *("draining", "drained", "drain-stuck", "drain-undone"),
        }
    ),
    Topic.CHANGE: frozenset({"applied", "changed", "migrated", "scaled-out", "scaled-in"}),
    Topic.AUDIT: frozenset({"audit"}),
}

Post = Callable[[Webhook, Delivery, str], None]
Tell = Callable[[str, str, str], None]  # kind, subject and text of an event


def wants(webhook: Webhook, event: Event) -> bool:
    """Say whether a webhook is told of an event; never of its own failures."""
    if event.kind in {FAILED, BACK} and event.subject == webhook.name:
        return False
    return Topic.ALL in webhook.topics or any(
        event.kind in KINDS[topic] for topic in webhook.topics
    )


class Webhooks:
    """The webhooks of the lab in use. Safe to use from several threads."""

    def __init__(
        self,
        journal: Journal,
        *,
        send: Post = post,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        self._tell: Tell = journal.record
        self._send = send
        self._pauses_s = pauses_s
        self._lab = ""
        self._hooks: dict[str, _Hook] = {}
        self._lock = threading.Lock()
        journal.listen(self._hear)

    def use(self, lab: str, webhooks: Sequence[Webhook]) -> None:
        """Send to exactly these from now on. One that is as it was keeps its queue."""
        with self._lock:
            self._lab, before = lab, self._hooks
            self._hooks = {each.name: self._kept(before.get(each.name), each) for each in webhooks}
            for name, hook in before.items():
                if self._hooks.get(name) is not hook:
                    hook.close()

    def counts(self) -> WebhookCounts:
        """Return what was delivered and what waits, by hook."""
        hooks = self._hooks
        deliveries: dict[Labels, int] = {
            (("hook", name), ("outcome", outcome)): hook.outcomes[outcome]
            for name, hook in hooks.items()
            for outcome in OUTCOMES
        }
        waiting: dict[Labels, int] = {(("hook", n),): hook.waiting for n, hook in hooks.items()}
        return WebhookCounts(deliveries, waiting)

    def close(self) -> None:
        """Send no more; waits for a try that is under way."""
        with self._lock:
            hooks, self._hooks = self._hooks, {}
        for hook in hooks.values():
            hook.close()
        for hook in hooks.values():
            hook.join()

    def _kept(self, before: "_Hook | None", webhook: Webhook) -> "_Hook":
        if before is not None and before.webhook == webhook:
            return before
        return _Hook(webhook, self._send, self._tell, self._pauses_s)

    def _hear(self, event: Event) -> None:
        hooks = [hook for hook in self._hooks.values() if wants(hook.webhook, event)]
        if hooks:
            sent = delivery(str(uuid.uuid4()), self._lab, event)
            for hook in hooks:
                hook.put(sent)


class _Hook:
    """One webhook, its queue and its thread."""

    def __init__(self, webhook: Webhook, send: Post, tell: Tell, pauses_s: Sequence[float]) -> None:
        self.webhook = webhook
        self.outcomes: Counter[str] = Counter()
        self._send, self._tell, self._pauses_s = send, tell, pauses_s
        self._agent = f"edgewake/{version()}"
        self._queue: deque[Delivery] = deque()
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._failing = False
        self._thread = threading.Thread(
            target=self._run, name=f"edgewake-webhook-{webhook.name}", daemon=True
        )
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many events wait."""
        return len(self._queue)

    def put(self, sent: Delivery) -> None:
        """Have an event sent; it is dropped if too many wait."""
        with self._changed:
            if len(self._queue) >= QUEUE:
                self.outcomes["dropped"] += 1
                return
            self._queue.append(sent)
            self._changed.notify()

    def close(self) -> None:
        """Send no more."""
        self._closed.set()
        with self._changed:
            self._changed.notify()

    def join(self) -> None:
        """Wait for the end, for a moment longer than a try may take."""
        self._thread.join(TIMEOUT_S + 1)

    def _run(self) -> None:
        while (sent := self._next()) is not None:
            try:
                self._deliver(sent)
            except Exception:
                self.outcomes["failed"] += 1
                log.exception("webhook %s failed in a way we did not foresee", self.webhook.name)

    def _next(self) -> Delivery | None:
        """Wait for the next event and return it; None when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed.is_set())
            return None if self._closed.is_set() else self._queue.popleft()

    def _deliver(self, sent: Delivery) -> None:
        """Send an event; wait and send it again, if that may help."""
        name, why = self.webhook.name, ""
        for pause_s in (*self._pauses_s, None):
            try:
                self._send(self.webhook, sent, self._agent)
            except NotDelivered as error:
                why = str(error)
                log.debug("webhook %s: %s was not delivered: %s", name, sent.id, why)
                if pause_s is None or not error.again or self._closed.wait(pause_s):
                    break
            else:
                self._note(failing=False, text="events arrive again")
                self.outcomes["delivered"] += 1
                return
        if not self._closed.is_set():
            self._note(failing=True, text=f"an event was given up: {why}")
        self.outcomes["failed"] += 1

    def _note(self, *, failing: bool, text: str) -> None:
        """Tell the journal when it begins to fail, and when it is over."""
        if failing is not self._failing:
            self._failing = failing
            self._tell(FAILED if failing else BACK, self.webhook.name, text)
