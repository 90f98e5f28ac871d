"""The lab file: what is put, and what that did."""

from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Field

from web.models.base import Body, Document, Parameters, Switch
from web.models.plans import ChangeDocument


def _absolute(path: str) -> str:
    if not PurePosixPath(path).is_absolute() or "\0" in path:
        raise ValueError("name the lab file's absolute path")
    return path


AbsolutePath = Annotated[str, AfterValidator(_absolute)]


class LabWish(Body):
    """A lab file's text, and the path of the file, which its relative paths are below of."""

    text: str
    path: AbsolutePath


class LabOptions(Parameters):
    """Whether a lab is only checked."""

    dry_run: Switch = False


class LabHeaders(Parameters):
    """The path of a lab file that is the body itself."""

    path: str = Field(
        "", alias="X-Lab-Path", description="absolute; percent-encoded UTF-8. For YAML bodies"
    )


class LabApplied(Document):
    """What had to end for a lab, or would; `unguarded` is what will not happen, by host."""

    lab: str
    summary: str
    unguarded: dict[str, str]
    changes: list[ChangeDocument]
    applied: bool
