"""Our nouns as JSON, one small function per noun, and every error as one shape.

The shape of errors is a problem document (RFC 9457, ``application/problem+json``): `type`,
`title`, `status` and `detail` as the RFC has them, and `hint`, what to do about it. Errors that
know more add members: a lab error its `file`, `line` and `field`, a wake error its `service` and
`reason`, a hypervisor error its `host`. Keys carry their units as the nouns do; clients must
ignore keys that they do not know (RFC 9457, section 3.2, and so for all documents here).
"""

import re
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from orchestrator.changes import Change, Changes
from orchestrator.drain import DrainReport, Migration, Stuck
from orchestrator.errors import (
    EdgewakeError,
    HypervisorError,
    InstallationError,
    LabError,
    NoCapacity,
    Outdated,
    StoreError,
    Unforeseen,
    UnknownClients,
    UnknownHost,
    UnknownOperation,
    UnknownService,
    UnknownVersion,
    UnsafeChanges,
    WakeError,
)
from orchestrator.model import Ability, Capacity, Endpoint, Event, Instance
from orchestrator.planner import Front
from orchestrator.trace import Wake
from orchestrator.views import Choice, HostStatus, Proposal, ServiceStatus, Status
from orchestrator.warming import Warming
from placement.problem import Plan

Document = dict[str, Any]

PROBLEM_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:problem-type:edgewake:"

# The nearest class in an error's ancestry counts.
STATUS_OF: dict[type[BaseException], HTTPStatus] = {
    EdgewakeError: HTTPStatus.CONFLICT,  # such as: no placement of all services exists
    LabError: HTTPStatus.UNPROCESSABLE_ENTITY,
    UnsafeChanges: HTTPStatus.CONFLICT,
    UnknownClients: HTTPStatus.NOT_FOUND,
    UnknownHost: HTTPStatus.NOT_FOUND,
    UnknownOperation: HTTPStatus.NOT_FOUND,
    UnknownVersion: HTTPStatus.NOT_FOUND,
    Outdated: HTTPStatus.PRECONDITION_FAILED,
    Unforeseen: HTTPStatus.INTERNAL_SERVER_ERROR,
    UnknownService: HTTPStatus.NOT_FOUND,
    WakeError: HTTPStatus.SERVICE_UNAVAILABLE,
    NoCapacity: HTTPStatus.SERVICE_UNAVAILABLE,
    HypervisorError: HTTPStatus.SERVICE_UNAVAILABLE,
    StoreError: HTTPStatus.INTERNAL_SERVER_ERROR,
    InstallationError: HTTPStatus.INTERNAL_SERVER_ERROR,
}


# --- nouns --------------------------------------------------------------------------------------


def status(value: Status) -> Document:
    """Return everything at a glance."""
    return {
        "lab": value.lab,
        "hosts": [host_status(host) for host in value.hosts],
        "services": [service_status(service) for service in value.services],
    }


def host_status(value: HostStatus) -> Document:
    """Return a host; `free` is null and `lost` says why while it cannot be reached."""
    return {
        "name": value.host.name,
        "uri": value.host.uri,
        "site": value.host.site,
        "usable": capacity(value.host.usable),
        "used": capacity(value.used),
        "free": None if value.lost or value.free is None else capacity(value.free),
        "reachable": not value.lost,
        "lost": value.lost,
        "refused": value.refused,
        "drain": None if value.drain is None else drain(value.drain),
        "guard": value.guard,
        "spares": value.spares,
    }


def drain(value: DrainReport) -> Document:
    """Return how far a drain is; `since` is seconds since the epoch."""
    return {
        "state": value.state,
        "since": value.since,
        "force": value.force,
        "moved": value.moved,
        "total": value.total,
        "stuck": [stuck(each) for each in value.stuck],
        "migrating": [migration(each) for each in value.migrating],
        "booted": [{"instance": each.instance, "why": each.why} for each in value.booted],
    }


def stuck(value: Stuck) -> Document:
    """Return what stays, and why; `ending`: it is to be ended, not moved, and cannot be."""
    return {"instance": value.instance, "why": value.why, "ending": value.ending}


def migration(value: Migration) -> Document:
    """Return how far a migration is; `percent`, and what is left in bytes, null while unknown."""
    known = value.percent is not None
    return {
        "instance": value.instance,
        "to": value.to,
        "percent": value.percent,
        "left_bytes": value.sent.left if known else None,
    }


def service_status(value: ServiceStatus) -> Document:
    """Return a service; asleep is a healthy state, `trouble` is how its last wake failed.

    `copies` says how many it should have now, how many answer, and why so many; `kept`, whether it
    sleeps where the warm plan keeps it.
    """
    return {
        "name": value.service.name,
        "names": list(value.service.names),
        "images": list(value.service.images),
        "state": value.state,
        "rung": str(value.rung),
        "idle": value.idle,
        "trouble": value.trouble,
        "copies": {"wanted": value.wanted, "has": value.has, "why": value.scale},
        "kept": value.kept,
        "instances": [instance(each) for each in value.instances],
    }


def choice(value: Choice) -> Document:
    """Return a host as a place for a service; `rank` is null where `why_not` says why."""
    return {
        "host": value.host,
        "rank": value.rank,
        "image": value.image,
        "entry": value.entry,
        "distance_ms": value.distance_ms,
        "why_not": value.why_not,
    }


def capacity(value: Capacity) -> Document:
    """Return an amount of cores and memory (MiB)."""
    return {"cpu": value.cpu, "memory_mib": value.memory_mib}


def instance(value: Instance) -> Document:
    """Return an instance; times are seconds since the epoch, `to` is null unless it migrates."""
    return {
        "name": value.name,
        "service": value.service,
        "host": value.host,
        "address": str(value.address),
        "address6": str(value.address6) if value.address6 else None,
        "mac": value.mac,
        "state": value.state.value,
        "created_at": value.created_at,
        "ready_at": value.ready_at,
        "to": value.to or None,
    }


def endpoint(value: Endpoint) -> Document:
    """Return where a service can be reached."""
    return {
        "service": value.service,
        "instance": value.instance,
        "host": value.host,
        "address": str(value.address),
        "address6": str(value.address6) if value.address6 else None,
        "ttl_s": value.ttl_s,
    }


def ability(value: Ability) -> Document:
    """Return what a probe found; `clock` is null where nobody could tell."""
    return asdict(value)


def wake(value: Wake) -> Document:
    """Return a wake; `stamps` are pairs of a stage and the seconds from the query to it.

    `rung` is where the instance slept, `by` who asked first (query, pin, keep-warm or restart);
    `own_s` is what our own code took of `total_s`, both in seconds.
    """
    return {
        "id": value.id,
        "service": value.service,
        "started_at": value.started_at,
        "outcome": str(value.outcome),
        "instance": value.instance,
        "host": value.host,
        "queries": value.queries,
        "text": value.text,
        "rung": value.rung,
        "by": value.by,
        "decided_by": value.decided_by,
        "total_s": value.total_s,
        "own_s": value.own_s,
        "stamps": [list(stamp) for stamp in value.stamps],
    }


def event(value: Event) -> Document:
    """Return one line of the journal."""
    return {
        "at": value.at,
        "kind": value.kind,
        "subject": value.subject,
        "text": value.text,
        "data": dict(value.data),
    }


def plan(value: Plan) -> Document:
    """Return a placement."""
    return {
        "hosts": {demand: list(hosts) for demand, hosts in value.hosts.items()},
        "flavours": {demand: list(names) for demand, names in value.flavours.items()},
        "value": value.value,
        "terms": dict(value.terms),
        "bound": value.bound,
        "gap": value.gap,
        "algorithm": value.algorithm,
        "solver": value.solver,
        "seconds": value.seconds,
        "why": dict(value.why),
    }


def changes(value: Changes) -> list[Document]:
    """Return what is to be done, in its order."""
    return [change(each) for each in value]


def change(value: Change) -> Document:
    """Return one change; `do` is boot, announce, withdraw or stop."""
    return {"do": type(value).__name__.lower(), **asdict(value)}


def proposal(value: Proposal) -> Document:
    """Return a placement, the changes that lead to it, and what they leave where it is."""
    return {
        "plan": plan(value.plan),
        "changes": changes(value.changes),
        "left": list(value.changes.left),
    }


def front(value: Front) -> Document:
    """Return a Pareto front; `knee` is the number of one of its plans, from 0."""
    return {
        "terms": list(value.terms),
        "units": dict(zip(value.terms, value.units, strict=True)),
        "proven": value.proven,
        "seconds": value.seconds,
        "knee": value.knee,
        "plans": [plan(each) for each in value.plans],
    }


def warming(value: Warming) -> Document:
    """Return what hosts should keep warm; `before` and `after` are clients that wait for wakes."""
    return {
        "warm": [asdict(line) for line in value.lines],
        "targets": [asdict(target) for target in value.targets],
        "before": value.before,
        "after": value.after,
        "memory_mib": value.memory_mib,
        "room_mib": value.room_mib,
        "value": value.plan.value,
        "terms": dict(value.plan.terms),
        "bound": value.plan.bound,
        "gap": value.plan.gap,
        "algorithm": value.plan.algorithm,
        "solver": value.plan.solver,
        "seconds": value.plan.seconds,
    }


# --- errors -------------------------------------------------------------------------------------


def status_of(error: EdgewakeError) -> HTTPStatus:
    """Return the HTTP status that says the same as an error."""
    return next(STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF)


def problem(error: EdgewakeError) -> Document:
    """Return an error of ours as a problem document."""
    words = re.findall(r"[A-Z][a-z]*", type(error).__name__)
    kind = [word.lower() for word in words if word != "Error"]
    document: Document = {
        "type": TYPE_PREFIX + "-".join(kind),
        "title": " ".join(kind).capitalize(),
        "status": int(status_of(error)),
        "detail": error.message,
        "hint": error.hint,
    }
    match error:
        case LabError():
            file = str(error.file) if error.file else None
            document |= {"file": file, "line": error.line, "field": error.field}
        case WakeError():
            document |= {"service": error.service, "reason": error.reason.value}
        case HypervisorError():
            document |= {"host": error.host}
        case _:
            pass
    return document


def plain_problem(status: HTTPStatus, detail: str, hint: str = "") -> Document:
    """Return a problem that is no more than its HTTP status (type ``about:blank``)."""
    return {
        "type": "about:blank",
        "title": status.phrase,
        "status": int(status),
        "detail": detail,
        "hint": hint,
    }
