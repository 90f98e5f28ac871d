"""Who may come in: tokens, sessions and how often one may fail, as one value for the application.

`Access.note` is told what an audit log should know; whoever runs the door passes it on.
"""

from dataclasses import dataclass, field

from web.door.audit import Bounded, Note
from web.door.sessions import Session, Sessions
from web.door.throttle import Throttle
from web.door.tokens import Tokens
from web.roles import Caller


def _nobody(_kind: str, _subject: str, _text: str) -> None:
    """Tell nobody."""


@dataclass(slots=True)
class Access:
    """The means of getting in."""

    tokens: Tokens
    note: Note = _nobody
    throttle: Throttle = field(default_factory=Throttle)
    sessions: Sessions = field(init=False)
    audit: Bounded = field(init=False)

    def __post_init__(self) -> None:
        self.sessions = Sessions(self.tokens.valid)
        self.audit = Bounded(self.note)

    def with_token(self, text: str, address: str) -> tuple[str, Session] | None:
        """Begin a session by a token; None if the token lets nobody in."""
        token = self.tokens.find(text)
        return self._enter(token.caller if token else None, address, token.id if token else "")

    def with_login(self, text: str, address: str) -> tuple[str, Session] | None:
        """Begin a session by a one-time login; None if it was used, is too old or never was."""
        return self._enter(self.tokens.redeem(text), address)

    def _enter(
        self, caller: Caller | None, address: str, token_id: str = ""
    ) -> tuple[str, Session] | None:
        if caller is None:
            self.throttle.failed(address)
            self.audit.failed("login-failed", address, "somebody could not log in")
            return None
        self.throttle.succeeded(address)
        self.audit.succeeded("login", caller.name, f"logged in from {address} as {caller.role}")
        return self.sessions.begin(caller, token_id)
