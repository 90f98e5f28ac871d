"""The document of a failure, as `web.problems` writes it."""

from pydantic import ConfigDict, Field

from web.models.base import Document


class FieldError(Document):
    """What is wrong with one field of a request."""

    field: str
    detail: str


class ProblemDocument(Document):
    """Why a request failed, and what to do about it (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="a URN that names the kind of problem, or about:blank")
    title: str
    status: int
    detail: str
    hint: str = Field("", description="what to do about it")
    errors: list[FieldError] = Field([], description="what is wrong with which field")
