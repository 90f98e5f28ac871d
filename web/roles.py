"""Who may do what: roles, and the headers by which the door tells the API who asks."""

from enum import StrEnum

ACTOR_HEADER = "X-Edgewake-Actor"
ROLE_HEADER = "X-Edgewake-Role"
LOCAL_ACTOR = "local"  # whoever may open the owner-only socket, which is as good as an admin


class Role(StrEnum):
    """What somebody may do; each may do all that those before it may.

    A viewer looks on. An operator does things to what runs: wakes, sleeps, drains, moves, plans. An
    admin changes what is wanted, and who may come in.
    """

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def includes(self, other: "Role") -> bool:
        """Say whether whoever has this role may do what the other may."""
        order = list(Role)
        return order.index(self) >= order.index(other)
