"""What the ladder asks of each way to steer packets: what of ours stands, add one, remove one."""

import hashlib
from dataclasses import dataclass
from typing import Protocol

from orchestrator.steering.redirect.base import Redirect, Rung


@dataclass(frozen=True, slots=True)
class Standing:
    """A redirect of ours in the kernel, told by the digest of what it does.

    `place` is where it is, in the back end's own words; `device` is where it leads. One that is not
    `whole` was cut short, or has lost its device: it is to be removed.
    """

    rung: Rung
    digest: str
    place: str
    whole: bool
    packets: int = 0
    device: str = ""


class BackEnd(Protocol):
    """One way to steer packets, for one rung or some. One thread at a time; `found` comes first.

    Errors are `CannotRedirect`, and `CannotSay` of rules.
    """

    def found(self) -> list[Standing]:
        """Return what stands of our owner's."""
        ...

    def add(self, rung: Rung, redirect: Redirect, digest: str) -> None:
        """Make a redirect that was not found; after an error nothing of it is left."""
        ...

    def remove(self, standing: Standing) -> None:
        """Remove one that was found; what of it is gone already is no error."""
        ...


def mark_of(owner: str, digits: int) -> str:
    """Return so many hexadecimal digits that say whose something in the kernel is."""
    return hashlib.sha256(owner.encode()).hexdigest()[:digits]
