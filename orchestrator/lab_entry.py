"""What every mapping of a lab file is: a pydantic model that refuses keys it does not know."""

from pydantic import BaseModel, ConfigDict


class Entry(BaseModel):
    """A mapping of the lab file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
