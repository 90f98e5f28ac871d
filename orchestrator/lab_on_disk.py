"""Which lab is wanted: the one in a file on disk, or the one in use, which may be newer.

The lab in use is changed over the API as well (a service is deleted, the lab edited or rolled
back), and that changes no file. So a file that is read again is applied only if nothing would be
taken back by that. Whether it is, is decided here, of values; the daemon does it and tells of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import LabError
from orchestrator.lab_yaml import read_text
from orchestrator.store.base import LabVersion, Stored


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the lab: the version in use, and the last one that was as its file.

    `applied` is None if no version that is kept is known to have been as its file on disk.
    """

    in_use: LabVersion
    applied: LabVersion | None

    @property
    def file(self) -> Path:
        """Where the file is that this lab came from."""
        return Path((self.applied or self.in_use).path)


@dataclass(frozen=True, slots=True)
class Kept:
    """The version that stays in use though a file was read, and why.

    `conflict`: the file has changes, too, which are not applied.
    """

    version: LabVersion
    why: str
    conflict: bool


def known(stored: Stored, versions: Sequence[LabVersion]) -> Known | None:
    """Return what is known of the lab; None before the first one. `versions` are oldest first."""
    if not versions:
        return None
    last = versions[-1]
    applied = next((each for each in versions if each.number == stored.lab_on_disk), None)
    if not stored.lab_on_disk and not last.actor:
        applied = last  # an older edgewake noted nothing; of what nobody asked for, it read a file
    return Known(last, applied)


def kept_instead(text: str, path: Path, known: Known | None) -> Kept | None:
    """Return the lab that is to stay, instead of the one on disk; None if the file's is wanted.

    The file's is wanted if the lab in use came from a file unchanged, if that is another file, or
    if both are the same. Else the lab in use stays: it was changed since the file was applied.
    """
    if known is None or known.in_use == known.applied or same(text, known.in_use.text):
        return None
    here = str(path)
    if here not in {str(known.file), known.in_use.path}:
        return None
    now = known.in_use
    by = f", by {now.actor}" if now.actor else ""
    before = known.applied
    if before and here == before.path and same(text, before.text):
        why = (
            f"version {now.number} of the lab stays, which was made over the API{by}: "
            f"{path} is as it was when it was applied as version {before.number}"
        )
        return Kept(now, why, conflict=False)
    why = (
        f"{path} was not applied: version {now.number} of the lab was made over the API{by}, and "
        f"would be lost. 'edgewake apply {path} --diff' shows the difference, "
        f"'edgewake apply {path}' goes over to the file"
    )
    return Kept(now, why, conflict=True)


def is_on_disk(text: str, path: Path) -> bool:
    """Say whether a file has just this text now."""
    try:
        return path.is_file() and same(text, read_text(path))
    except (LabError, OSError):
        return False


def same(text: str, other: str) -> bool:
    """Say whether two texts are the same but for how lines end, which some programs change."""
    return text.replace("\r\n", "\n") == other.replace("\r\n", "\n")
