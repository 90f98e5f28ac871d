"""The API, version 1: parse, call one verb of the orchestrator, serialise. Nothing is decided here.

    GET  /healthz                   the process answers
    GET  /status                    hosts and services
    POST /services/NAME/wake        {"client": "192.0.2.1"} → endpoints and the wake; waits
    POST /services/NAME/sleep       {"to": "paused" | "saved" | "cold"} → the instances that sleep
    GET  /abilities                 → which rungs of sleep guests survive, by image and host
    DELETE /abilities               → find that out anew
    GET  /services/NAME/console     the last 64 KiB of the guest's console, as text
    POST /hosts/NAME/drain          {"force": false} → how far it is; returns at once
    DELETE /hosts/NAME/drain        use the host again
    GET  /wakes?service=&limit=     where the time of the last wakes went
    GET  /metrics                   counters and histograms, as Prometheus reads them
    GET  /events?limit=             the last lines of the journal
    GET  /events/stream?topic=      what happens, as server-sent events (`web.event_stream`)
    POST /plans                     {"apply": false} → a placement and the changes to it
    POST /plans/warm                {"mib_price": 0} → what hosts should keep warm
    POST /fronts                    {"terms": ["latency_ms", "energy_w"]} → the Pareto front
    PUT  /lab?dry_run=1             a lab file → what had to end for it, or would

`PUT /lab` takes YAML with the file's path in ``X-Lab-Path`` (percent-encoded UTF-8), or JSON with
`text` and `path`. Errors are those of `web.wire`.
"""

import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from flask import Blueprint, Response, abort, request

from orchestrator.control import Orchestrator
from orchestrator.errors import NotReady
from orchestrator.model import LADDER, Client, Endpoint, Lab, Rung
from orchestrator.planner import OPTIONS
from orchestrator.trace import Wake, WakeTrace
from orchestrator.unguarded import unguarded
from placement.problem import Options
from placement.warm import WarmOptions
from web import wire
from web.event_stream import EventStreams
from web.metrics import CONTENT_TYPE

LoadLab = Callable[[str, Path], Lab]
Kinds = dict[str, tuple[type, ...]]
Chosen = TypeVar("Chosen", Options, WarmOptions)

GRACE_S = 2.0  # what a wake may end after its deadline: the undo of a boot that came too late
MOST_LISTED = 1000  # wakes or events in one answer
DEFAULT_LISTED = 20
MOST_PLAN_S = 300  # below what `web.client` waits for an answer
PLAN_OPTIONS: Kinds = {
    "algorithm": (str,),
    "solver": (str,),
    "deadline_s": (float, int),
    "gap": (float, int),
}


def create_api(orchestrator: Orchestrator, load: LoadLab, metrics: Callable[[], str]) -> Blueprint:
    """Return the blueprint of ``/api/v1``; `load` turns a lab file's text and path into a lab."""
    api = Blueprint("api", __name__, url_prefix="/api/v1")

    @api.get("/healthz")
    def healthz() -> wire.Document:
        return {"status": "ok", "lab": orchestrator.lab.name}

    @api.get("/status")
    def status() -> wire.Document:
        return wire.status(orchestrator.status())

    _add_services(api, orchestrator)
    _add_hosts(api, orchestrator)

    @api.get("/images")
    def images() -> wire.Document:
        return {
            "catalog": sorted({image.catalog for image in orchestrator.lab.images} - {""}),
        }

    @api.get("/abilities")
    def abilities() -> wire.Document:
        return {"abilities": [wire.ability(each) for each in orchestrator.abilities()]}

    @api.delete("/abilities")
    def forget_abilities() -> wire.Document:
        orchestrator.forget_abilities()
        return {"abilities": []}

    @api.get("/wakes")
    def wakes() -> wire.Document:
        return {"wakes": [wire.wake(each) for each in _last_wakes(orchestrator)]}

    @api.get("/metrics")
    def prometheus() -> Response:
        return Response(metrics(), content_type=CONTENT_TYPE)

    @api.get("/events")
    def events() -> wire.Document:
        return {"events": [wire.event(each) for each in orchestrator.events(_limit())]}

    api.add_url_rule("/events/stream", "stream", EventStreams(orchestrator.feed))

    _add_plans(api, orchestrator)

    @api.put("/lab")
    def lab() -> wire.Document:
        text, path = _lab_file()
        dry_run = _flag(request.args.get("dry_run", "0"), "dry_run")
        wanted = load(text, Path(path))
        changes = orchestrator.apply(wanted, text=text, path=path, dry_run=dry_run)
        return {
            "lab": wanted.name,
            "summary": changes.why,
            "unguarded": unguarded(wanted),
            "changes": wire.changes(changes),
            "applied": not dry_run,
        }

    return api


def _add_plans(api: Blueprint, orchestrator: Orchestrator) -> None:
    """Add what places everything anew."""

    @api.post("/plans")
    def plans() -> wire.Document:
        body = _json_object()
        apply = _flag(body.get("apply", False), "apply")
        proposal = orchestrator.rebalance(
            dry_run=not apply, options=_options(body, PLAN_OPTIONS, OPTIONS)
        )
        return {**wire.proposal(proposal), "applied": apply}

    @api.post("/plans/warm")
    def warm() -> wire.Document:
        body = _json_object()
        options = _options(body, PLAN_OPTIONS | {"mib_price": (float, int)}, WarmOptions())
        return wire.warming(orchestrator.warm(options))

    @api.post("/fronts")
    def fronts() -> wire.Document:
        body = _json_object()
        terms, points = body.get("terms"), body.get("points")
        if not isinstance(terms, list) or not all(isinstance(term, str) for term in terms):
            abort(HTTPStatus.BAD_REQUEST, "terms must be a list of names")
        if points is not None and (not isinstance(points, int) or not 2 <= points <= MOST_LISTED):
            abort(HTTPStatus.BAD_REQUEST, f"points must be a number from 2 to {MOST_LISTED}")
        if points is not None and len(terms) != 2:
            abort(HTTPStatus.BAD_REQUEST, "points are for fronts of two terms")
        if "algorithm" in body:
            abort(HTTPStatus.BAD_REQUEST, "a front has no algorithm to choose")
        return wire.front(
            orchestrator.front(terms, options=_options(body, PLAN_OPTIONS, OPTIONS), points=points)
        )


def _options(body: dict[str, Any], kinds: Kinds, otherwise: Chosen) -> Chosen:
    """Return the options of a plan that a request asks for; names are those of its class."""
    given: dict[str, Any] = {key: body[key] for key in kinds if body.get(key) is not None}
    for key, value in given.items():
        if isinstance(value, bool) or not isinstance(value, kinds[key]):
            abort(HTTPStatus.BAD_REQUEST, f"{key} must be a {kinds[key][0].__name__}")
    if not 0 < given.get("deadline_s", 1) <= MOST_PLAN_S:
        abort(HTTPStatus.BAD_REQUEST, f"deadline_s must be above 0 and at most {MOST_PLAN_S}")
    for key in {"gap", "mib_price"} & given.keys():
        if not 0 <= given[key] <= sys.float_info.max:  # also of whole numbers beyond floats
            abort(HTTPStatus.BAD_REQUEST, f"{key} must be finite and at least 0")
    return replace(otherwise, **given)


def _add_services(api: Blueprint, orchestrator: Orchestrator) -> None:
    """Add what is asked of, or about, one service."""

    @api.post("/services/<name>/wake")
    def wake(name: str) -> wire.Document:
        client = _client(orchestrator.lab, _json_object().get("client"))
        return _wake(orchestrator, name, client)

    @api.post("/services/<name>/sleep")
    def sleep(name: str) -> wire.Document:
        to = _json_object().get("to")
        if to is not None and to not in LADDER[1:]:
            abort(HTTPStatus.BAD_REQUEST, f"to must be one of {', '.join(LADDER[1:])}")
        slept = orchestrator.release(name, Rung(to) if to else None)
        state = next(each for each in orchestrator.status().services if each.service.name == name)
        return {"service": name, "slept": list(slept), "rung": str(state.rung)}

    @api.get("/services/<name>/hosts")
    def hosts(name: str) -> wire.Document:
        population = request.args.get("population", "")
        return {"hosts": [wire.choice(each) for each in orchestrator.explain(name, population)]}

    @api.get("/services/<name>/console")
    def console(name: str) -> Response:
        text = orchestrator.console(name).decode(errors="replace")
        return Response(text, mimetype="text/plain")


def _add_hosts(api: Blueprint, orchestrator: Orchestrator) -> None:
    """Add what is asked of one host."""

    @api.post("/hosts/<name>/drain")
    def drain(name: str) -> wire.Document:
        force = _flag(_json_object().get("force", False), "force")
        return {"host": name, "drain": wire.drain(orchestrator.drain(name, force=force))}

    @api.delete("/hosts/<name>/drain")
    def undrain(name: str) -> wire.Document:
        orchestrator.undrain(name)
        return {"host": name, "drain": None}


def _wake(orchestrator: Orchestrator, service: str, client: Client) -> wire.Document:
    summons = orchestrator.summon(service, client, insist=True)
    try:
        endpoints = _await(summons.endpoints, orchestrator, service)
    finally:
        if summons.trace is not None:
            summons.trace.replied()
    orchestrator.asked[service] = time.monotonic()
    return {
        "endpoints": [wire.endpoint(each) for each in endpoints],
        "wake": _wake_of(orchestrator, summons.trace),
    }


def _last_wakes(orchestrator: Orchestrator) -> tuple[Wake, ...]:
    service = request.args.get("service", "")
    if service:
        orchestrator.known(service)
    return orchestrator.wakes.last(service, _limit())


def _await(
    endpoints: Future[tuple[Endpoint, ...]], orchestrator: Orchestrator, service: str
) -> tuple[Endpoint, ...]:
    """Wait for a wake, which bounds its own time; the bound here is for the day it does not."""
    deadlines = {each.name: each.deadline_s for each in orchestrator.lab.services}
    deadline_s = deadlines.get(service, 0.0) + GRACE_S
    try:
        return endpoints.result(deadline_s)
    except FutureTimeout:
        raise NotReady(service, f"no answer within {deadline_s:g} s") from None


def _wake_of(orchestrator: Orchestrator, trace: WakeTrace | None) -> wire.Document | None:
    """Return the wake that was waited for; None if the service was awake."""
    if trace is None:
        return None
    for wake in reversed(orchestrator.wakes.last(trace.service)):
        if wake.started_at == trace.started_at:
            return wire.wake(wake)
    return None


def _client(lab: Lab, written: object) -> Client:
    """Return who asks, with the population whose narrowest subnet holds the address."""
    if written is None:
        return Client()
    try:
        address = ip_address(str(written))
    except ValueError:
        abort(HTTPStatus.BAD_REQUEST, f"client: {written!r} is not an IP address")
    return Client(address=address, population=_population(lab, address))


def _population(lab: Lab, address: IPv4Address | IPv6Address) -> str:
    holding = [
        (subnet.prefixlen, population.name)
        for population in lab.populations
        for subnet in population.subnets
        if address in subnet
    ]
    return max(holding)[1] if holding else ""


def _lab_file() -> tuple[str, str]:
    """Return the text and path of the lab file in the request."""
    if request.is_json:
        body = _json_object()
        text, path = body.get("text"), body.get("path")
        if not isinstance(text, str) or not isinstance(path, str):
            abort(HTTPStatus.BAD_REQUEST, "a JSON body needs 'text' and 'path', both text")
    else:
        path = unquote(request.headers.get("X-Lab-Path", ""))
        try:
            text = request.get_data().decode()
        except UnicodeDecodeError:
            abort(HTTPStatus.BAD_REQUEST, "the lab file is not UTF-8 text")
    if not Path(path).is_absolute() or "\0" in path:
        abort(HTTPStatus.BAD_REQUEST, "name the lab file's absolute path (X-Lab-Path, or 'path')")
    return text, path


def _json_object() -> dict[str, Any]:
    """Return the request's JSON object; an empty body counts as an empty one."""
    if not request.get_data():
        return {}
    try:
        body = request.get_json(force=True)
    except RecursionError:
        abort(HTTPStatus.BAD_REQUEST, "the body is nested too deeply")
    if not isinstance(body, dict):
        abort(HTTPStatus.BAD_REQUEST, "the body must be a JSON object")
    return body


def _limit() -> int:
    written = request.args.get("limit", str(DEFAULT_LISTED))
    if not (written.isascii() and written.isdigit() and 1 <= int(written[:9]) <= MOST_LISTED):
        abort(HTTPStatus.BAD_REQUEST, f"limit must be a number from 1 to {MOST_LISTED}")
    return int(written)


def _flag(written: object, name: str) -> bool:
    if isinstance(written, bool):
        return written
    if written not in {"0", "1"}:
        abort(HTTPStatus.BAD_REQUEST, f"{name} must be true or false in JSON, 0 or 1 in a URL")
    return written == "1"
