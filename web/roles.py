"""Who asks, and what that lets them do: the words of tokens, sessions and of the API's headers."""

from dataclasses import dataclass
from enum import StrEnum

ACTOR_HEADER = "X-Edgewake-Actor"
ROLE_HEADER = "X-Edgewake-Role"
LOCAL_ACTOR = "local"  # whoever may open the owner-only socket, which is as good as an admin


class Role(StrEnum):
    """What somebody may do, each role all that those before it may."""

    VIEWER = "viewer"  # look
    OPERATOR = "operator"  # do something to what runs
    ADMIN = "admin"  # change what is wanted, and who may come in

    def covers(self, other: "Role") -> bool:
        """Return whether this role may do what the other one may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who was let in: a name for the audit log, and a role."""

    name: str
    role: Role
