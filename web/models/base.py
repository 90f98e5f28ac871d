"""What all documents have in common: answers, bodies, parameters, and pages of long lists."""

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
)

MOST_LISTED = 1000  # in one answer
DEFAULT_LISTED = 20
LONGEST_NAME = 253  # characters, as of a DNS name

SWITCHES = {"0": False, "1": True, "false": False, "true": True}


class Document(BaseModel):
    """What an answer holds."""

    model_config = ConfigDict(frozen=True)

    def as_json(self) -> dict[str, Any]:
        """Return it as what its JSON says."""
        return self.model_dump(mode="json")


class Body(BaseModel):
    """What a request's JSON holds; unknown keys are refused, and so is text for a number."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _whole_numbers(cls, value: object) -> object:
        """Take 5.0 for 5: JSON knows no difference."""
        return int(value) if isinstance(value, float) and value.is_integer() else value


class Parameters(BaseModel):
    """What a path or a query string holds: text, which is taken for what it says."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class NoParameters(Parameters):
    """An operation that takes none in its query string."""


class Named(Parameters):
    """A path that names one thing."""

    name: str = Field(min_length=1, max_length=LONGEST_NAME)


class Page(Parameters):
    """Which part of a long list is asked for: `after` is what `next` of the page before said."""

    limit: int = Field(DEFAULT_LISTED, ge=1, le=MOST_LISTED, description="how many at most")
    after: str = Field("", max_length=LONGEST_NAME, description="`next` of the page before")


class NumberedPage(Parameters):
    """A page of a list whose entries are numbered, the newest last: `after` leads back in time."""

    limit: int = Field(DEFAULT_LISTED, ge=1, le=MOST_LISTED, description="how many at most")
    after: str = Field(
        "", pattern="^([0-9]{1,18})?$", description="`next` of the page before; older ones"
    )

    @property
    def before(self) -> int:
        """The number that all on this page are below; 0 if it is the first."""
        return int(self.after or 0)


def _switch(written: object) -> bool:
    if isinstance(written, bool):
        return written
    if not isinstance(written, str) or written not in SWITCHES:
        raise ValueError("must be 0 or 1, or false or true")
    return SWITCHES[written]


def _whole(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not hold a null character")
    return text


# On or off in a query string.
Switch = Annotated[
    bool,
    BeforeValidator(_switch),
    WithJsonSchema({"type": "string", "enum": list(SWITCHES)}),
]

# Text that may go to files, databases and processes.
Text = Annotated[str, AfterValidator(_whole)]
