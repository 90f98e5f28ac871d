"""Tokens: who may come in through the door. The same file as that of `edgewake token`."""

from http import HTTPStatus

from web.api.context import Context
from web.api.operation import Api
from web.models.tokens import (
    NewTokenDocument,
    TokenDocument,
    TokenPath,
    TokensDocument,
    TokenWish,
)
from web.problems import HttpProblem
from web.roles import Role


def add(api: Api, context: Context) -> None:
    """Add what is asked of tokens."""

    @api.get("/tokens", TokensDocument, role=Role.ADMIN, problems=(409,))
    def list_tokens() -> TokensDocument:
        """List the tokens, without their texts."""
        found = context.known_tokens.list()
        return TokensDocument(tokens=[TokenDocument.of(each) for each in found])

    @api.post("/tokens", NewTokenDocument, role=Role.ADMIN, problems=[409])
    def create_token(body: TokenWish) -> NewTokenDocument:
        """Make a token; its text is in this answer only."""
        made = context.known_tokens.create(body.name, body.role, lasts_s=body.expires_s)
        return NewTokenDocument.made(*made)

    @api.delete("/tokens/<id>", TokenDocument, role=Role.ADMIN, problems=(409,))
    def revoke_token(path: TokenPath) -> TokenDocument:
        """End a token, and the sessions that began with it; it stays on the list for months."""
        token = context.known_tokens.revoke(path.id)
        if token is None:
            raise HttpProblem(HTTPStatus.NOT_FOUND, f"there is no token {path.id!r}")
        return TokenDocument.of(token)
