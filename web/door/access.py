"""Who may come in: tokens, sessions and how often one may fail, as one value for the application.

`Access.note` is told what an audit log should know; whoever runs the door passes it on.
"""

from dataclasses import dataclass, field

from web.door.audit import Bounded, Note
from web.door.sessions import Session, Sessions
from web.door.throttle import Throttle
from web.door.tokens import Tokens
from web.roles import Caller


class Flood(Exception):  # noqa: N818 - reads as a sentence where it is raised
    """Too many logins failed; `wait_s` says for how long no more of them are looked at."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(wait_s)
        self.wait_s = wait_s


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
        """Begin a session by a token; None if the token lets nobody in. Raises `Flood`."""
        token = self.tokens.find(text)
        return self._enter(token.caller if token else None, address, token.id if token else "")

    def with_login(self, text: str, address: str) -> tuple[str, Session] | None:
        """Begin a session by a one-time login; None if it was used, is too old or never was.

        Raises `Flood`.
        """
        return self._enter(self.tokens.redeem(text), address)

    def _enter(
        self, caller: Caller | None, address: str, token_id: str = ""
    ) -> tuple[str, Session] | None:
        """Let a caller in, however many others failed: else strangers could keep everybody out.

        Nobody finds 256 random bits by trying, so it is only failures that have to wait.
        """
        if caller is None:
            if wait_s := self.throttle.wait_s(address):
                raise Flood(wait_s)
            self.throttle.failed(address)
            self.audit.failed("login-failed", address, "somebody could not log in")
            return None
        self.throttle.succeeded(address)
        self.audit.succeeded("login", caller.name, f"logged in from {address} as {caller.role}")
        return self.sessions.begin(caller, token_id)
