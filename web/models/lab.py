"""The lab file: what is put, what that did, and all that was put before."""

from pathlib import PurePosixPath
from typing import Annotated, Self

from pydantic import AfterValidator, Field

from orchestrator.changes import Changes
from orchestrator.model import Lab
from orchestrator.store.base import LabVersion
from orchestrator.unguarded import unguarded
from web.models.base import Body, Document, Parameters, Switch
from web.models.operations import Conditions
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


class LabHeaders(Conditions):
    """The path of a lab file that is the body itself, and what it is to replace."""

    path: str = Field(
        "", alias="X-Lab-Path", description="absolute; percent-encoded UTF-8. For YAML bodies"
    )


class VersionNamed(Parameters):
    """A path that names a version of the lab."""

    number: int = Field(ge=1, le=2**62)


class VersionDocument(Document):
    """A lab file that was applied: when (seconds since the epoch), by whom, and read from where.

    `actor` is empty, and `at` when it was found, for one that an older edgewake applied.
    """

    number: int
    at: float
    actor: str
    path: str
    sha256: str

    @classmethod
    def of(cls, value: LabVersion) -> Self:
        """Return a version."""
        return cls(
            number=value.number,
            at=value.at,
            actor=value.actor,
            path=value.path,
            sha256=value.sha256,
        )


class LabText(VersionDocument):
    """A lab file that was applied, word for word."""

    text: str

    @classmethod
    def of(cls, value: LabVersion) -> Self:
        """Return a version with its text."""
        return cls(**dict(VersionDocument.of(value)), text=value.text)


class VersionsDocument(Document):
    """The last versions of the lab, oldest first; `next` leads to older ones."""

    versions: list[VersionDocument]
    next: str | None


class RollbackWish(Body):
    """To which version the lab is to go back, or with `dry_run` what would have to end for it."""

    version: int = Field(ge=1, le=2**62)
    dry_run: bool = False


class ServiceRollbackWish(Body):
    """Whether it is only asked what would be done."""

    dry_run: bool = False


class LabApplied(Document):
    """What had to end for a lab, or would; `unguarded` is what will not happen, by host.

    `version` is the number of the lab that is in use now; 0 if it was read from no file.
    """

    lab: str
    summary: str
    unguarded: dict[str, str]
    changes: list[ChangeDocument]
    applied: bool
    version: int

    @classmethod
    def of(cls, lab: Lab, changes: Changes, *, applied: bool, version: int) -> Self:
        """Return what going over to a lab did."""
        return cls(
            lab=lab.name,
            summary=changes.why,
            unguarded=unguarded(lab),
            changes=[ChangeDocument.of(each) for each in changes],
            applied=applied,
            version=version,
        )


class ServiceEdited(LabApplied):
    """What was done to the lab for one service; `undo` is the version to roll it back to.

    The service was taken out, or put back as it was `like` a version (null for what was taken out).
    The file that the lab was read from is not changed: to apply that again undoes it as well.
    """

    service: str
    undo: int
    like: int | None
