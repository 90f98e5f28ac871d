"""Every error edgewake raises on purpose, in one tree.

EdgewakeError                 has a message (what and where) and a hint (what to do)
├── LabError                  the lab file is wrong: file, line, field, choices
├── InstallationError         this installation cannot work: a package is shadowed, a tool missing
├── StoreError                the state store cannot be read or written
├── UnknownHost               no host of that name in the lab
├── UnknownClients            no client population of that name in the lab
├── UnknownImage              no image of that name in the lab
├── UnknownInstance           no instance of that name, or not any more
├── UnknownWake               no wake of that number is kept
├── UnknownOperation          no operation of that id, or not any more
├── UnknownPlan               a front has no plan of that number
├── UnknownVersion            no version of the lab of that number is kept
├── CannotEdit                the text of the lab cannot be changed as asked; nothing was changed
├── Outdated                  what is to be replaced is not any more what the caller has seen
├── Unforeseen                a defect of ours; edgewake's log has its details
├── TopologyError             a question about the graph that has no answer (unknown node, no path)
├── UnsafeChanges             a list of changes was refused; nothing was changed
├── CannotGuard               traffic to guests that sleep cannot be noticed on a host
├── CannotNetwork             virtual routers or links cannot be as wanted on a machine
│   └── NotInNetwork          the virtual network has no router, link or program of that name
├── CannotRedirect            traffic for a public address cannot be steered into an instance here
├── RuleError                 a traffic rule is wrong: the column, and what was expected there
├── CannotSay                 a traffic rule is right, but a kind of filter cannot say it
├── HypervisorError           a hypervisor said no
│   ├── HostUnreachable       the connection to a host cannot be made or was lost
│   └── StartFailed           the host is there, but the guest could not be started
│       ├── DiskFull          because a disk there is full
│       └── NameHeld          because what was never started there holds the guest's name
└── WakeError                 a service could not be woken; `reason` is for machines
    ├── UnknownService        no service of that name in the lab
    ├── NoCapacity            no host has the memory, CPU or address the service needs
    ├── ImageUnusable         the image is missing or not bootable
    ├── NotReady              the guest did not answer before the deadline
    ├── GuestDied             the guest ended by itself before it answered
    ├── NoHostReachable       every candidate host failed to start the guest
    ├── Overloaded            too many wakes or held queries at once; ask again later
    └── BackingOff            its last wakes failed in a row; it is tried again later

Drivers translate foreign errors (libvirt, SQLAlchemy, OSError) in one place each; front doors
(`dns_boot.answers`, `web.problems`, `orchestrator.cli`) turn these into an answer. `images.errors`
and `placement.problem.Infeasible` belong to the pure libraries below and are translated in
`orchestrator.planner` and `orchestrator.control`.
"""

from enum import StrEnum
from pathlib import Path


class EdgewakeError(Exception):
    """Base of all our errors: what went wrong and where, and what to do about it."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class LabError(EdgewakeError):
    """A lab file is wrong; nothing was changed.

    `line` counts from 1 and is None when the whole file is meant; `field` is a dotted path such as
    ``services.web.resources.memory``.
    """

    def __init__(
        self,
        message: str,
        *,
        file: Path | None = None,
        line: int | None = None,
        field: str = "",
        hint: str = "",
    ) -> None:
        where = ":".join(str(part) for part in (file, line) if part is not None)
        text = ": ".join(part for part in (where, field, message) if part)
        super().__init__(text, hint=hint)
        self.file = file
        self.line = line
        self.field = field


class InstallationError(EdgewakeError):
    """The installation cannot work; the hint says which command mends it."""


class StoreError(EdgewakeError):
    """The state store cannot be read or written."""


class UnknownHost(EdgewakeError):  # noqa: N818 - reads as a sentence where it is raised
    """No host of that name in the lab."""


class UnknownClients(EdgewakeError):  # noqa: N818 - reads as a sentence where it is raised
    """No client population of that name in the lab."""


class UnknownImage(EdgewakeError):  # noqa: N818 - reads as a sentence where it is raised
    """No image of that name in the lab."""


class UnknownInstance(EdgewakeError):  # noqa: N818 - reads as a sentence where it is raised
    """No instance of that name; it may have ended."""


class UnknownWake(EdgewakeError):  # noqa: N818 - reads as a sentence where it is raised
    """No wake of that number is kept; it may be long ago."""


class UnknownOperation(EdgewakeError):  # noqa: N818 - reads as a sentence where it is raised
    """No operation of that id; it may have ended long ago, or with an earlier edgewake."""


class UnknownPlan(EdgewakeError):  # noqa: N818 - reads as a sentence where it is raised
    """A front has no plan of that number."""


class UnknownVersion(EdgewakeError):  # noqa: N818 - reads as a sentence where it is raised
    """No version of the lab of that number is kept."""


class CannotEdit(EdgewakeError):  # noqa: N818 - reads as a sentence where it is raised
    """The text of the lab cannot be changed as asked but by a person; nothing was changed."""


class Outdated(EdgewakeError):  # noqa: N818 - reads as a sentence where it is raised
    """What is to be replaced is not any more what the caller has seen; nothing was changed.

    `now` is the number of the lab's version that is in use, 0 where it is about something else.
    """

    def __init__(self, message: str, *, now: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.now = now


class Unforeseen(EdgewakeError):  # noqa: N818 - reads as a sentence where it is raised
    """A defect of ours: callers are told no more than that, and our log the rest."""

    def __init__(
        self, message: str = "internal error", *, hint: str = "see edgewake's log, and report it"
    ) -> None:
        super().__init__(message, hint=hint)


class TopologyError(EdgewakeError):
    """A question about the graph that has no answer."""


class UnsafeChanges(EdgewakeError):  # noqa: N818 - reads as a sentence where it is raised
    """A list of changes was refused before any of them was carried out."""


class CannotGuard(EdgewakeError):  # noqa: N818 - reads as a sentence where it is raised
    """Traffic to guests of a host that sleep cannot be noticed; DNS wakes them as ever."""


class CannotNetwork(EdgewakeError):  # noqa: N818 - reads as a sentence where it is raised
    """Virtual routers, links or programs on them cannot be as wanted; nothing half-made is left."""


class NotInNetwork(CannotNetwork):
    """The virtual network has no router, link or program of that name."""


class CannotRedirect(EdgewakeError):  # noqa: N818 - reads as a sentence where it is raised
    """Traffic cannot be steered into an instance on a machine; it flows on as it did."""


class RuleError(EdgewakeError):
    """A text is no traffic rule; the message names the column, from 1, and what was expected."""


class CannotSay(EdgewakeError):  # noqa: N818 - reads as a sentence where it is raised
    """A kind of filter cannot say a traffic rule, or only at a length that is not sensible."""


class HypervisorError(EdgewakeError):
    """A hypervisor refused or failed; `host` is the lab's name for it."""

    def __init__(self, host: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"host {host}: {message}", hint=hint)
        self.host = host


class HostUnreachable(HypervisorError):  # noqa: N818
    """The connection to a host cannot be made or was lost."""


class StartFailed(HypervisorError):  # noqa: N818
    """The host is reachable, but the guest could not be started there."""


class DiskFull(StartFailed):
    """A disk of the host is full, so a guest could not be started or saved: that may pass."""


class NameHeld(StartFailed):
    """What was never started to the end holds the guest's name there, and cannot be removed.

    A guest of another name can be started.
    """


class WakeReason(StrEnum):
    """Why a wake failed, as a word for machines; also the label in metrics and traces."""

    UNKNOWN_SERVICE = "unknown-service"
    NO_CAPACITY = "no-capacity"
    IMAGE_UNUSABLE = "image-unusable"
    NOT_READY = "not-ready"
    GUEST_DIED = "guest-died"
    NO_HOST_REACHABLE = "no-host-reachable"
    OVERLOADED = "overloaded"
    BACKING_OFF = "backing-off"
    INTERNAL = "internal"


class WakeError(EdgewakeError):
    """A service could not be woken."""

    reason = WakeReason.INTERNAL

    def __init__(self, service: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"{service}: {message}", hint=hint)
        self.service = service


class UnknownService(WakeError):  # noqa: N818
    """No service of that name in the lab."""

    reason = WakeReason.UNKNOWN_SERVICE


class NoCapacity(WakeError):  # noqa: N818
    """No host has the memory, CPU or address that the service needs."""

    reason = WakeReason.NO_CAPACITY


class ImageUnusable(WakeError):  # noqa: N818
    """The service's image is missing or cannot be booted."""

    reason = WakeReason.IMAGE_UNUSABLE


class NotReady(WakeError):  # noqa: N818
    """The guest was started but did not answer its readiness probe before the deadline."""

    reason = WakeReason.NOT_READY


class GuestDied(WakeError):  # noqa: N818
    """The guest ended by itself before it answered."""

    reason = WakeReason.GUEST_DIED


class NoHostReachable(WakeError):  # noqa: N818
    """Every candidate host failed to start the guest."""

    reason = WakeReason.NO_HOST_REACHABLE


class Overloaded(WakeError):  # noqa: N818
    """Too many wakes at once; the caller may ask again."""

    reason = WakeReason.OVERLOADED


class BackingOff(WakeError):  # noqa: N818
    """The service failed to wake several times in a row; it is tried again later."""

    reason = WakeReason.BACKING_OFF
