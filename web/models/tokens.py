"""Tokens: who may come in through the door."""

import time
from typing import Any, Self

from pydantic import Field

from web.door.tokens import LONGEST_S, NAME, Token
from web.models.base import Body, Document, Parameters
from web.roles import Role


class TokenDocument(Document):
    """A token without its text. Times are seconds since the epoch, null if there is none."""

    id: str
    name: str
    role: Role
    state: str = Field(description="`valid`, `revoked` or `expired`")
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    used_at: float | None = Field(description="to the minute")

    @classmethod
    def of(cls, value: Token) -> Self:
        """Return a token."""
        return cls(**_facts(value))


class NewTokenDocument(TokenDocument):
    """A token that was made just now; `token` is its text, which nobody can have again."""

    token: str

    @classmethod
    def made(cls, value: Token, text: str) -> Self:
        """Return a token and its text."""
        return cls(**_facts(value), token=text)


class TokensDocument(Document):
    """All tokens, also those that ended in the last months, oldest first."""

    tokens: list[TokenDocument]


class TokenWish(Body):
    """A token to make; for ever if `expires_s`, in seconds from now, is null."""

    name: str = Field(pattern=f"^{NAME.pattern}$")
    role: Role = Field(strict=False)
    expires_s: float | None = Field(None, gt=0, le=LONGEST_S)


class TokenPath(Parameters):
    """A path that names a token."""

    id: str = Field(pattern="^[0-9a-f]{1,32}$")


def _facts(value: Token) -> dict[str, Any]:
    return {
        "id": value.id,
        "name": value.name,
        "role": value.role,
        "state": value.state(time.time()),
        "created_at": value.created_at,
        "expires_at": value.expires_at,
        "revoked_at": value.revoked_at,
        "used_at": value.used_at,
    }
