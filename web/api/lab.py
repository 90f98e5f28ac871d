"""The lab file: what is wanted, now and before."""

from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from urllib.parse import unquote

from flask import Response, request
from pydantic import ValidationError

from orchestrator.control import Orchestrator
from orchestrator.errors import Outdated, UnknownVersion
from orchestrator.lab_secrets import without_secrets
from orchestrator.model import Lab
from orchestrator.operations import Job
from orchestrator.store.base import LabVersion
from web.api import reading
from web.api.caller import caller
from web.api.conditional import Condition, outdated, tag_of
from web.api.context import Context
from web.api.operation import Api
from web.api.working import ACCEPTED, Begun, begin
from web.models.base import NumberedPage
from web.models.lab import (
    LabApplied,
    LabHeaders,
    LabOptions,
    LabText,
    LabWish,
    RollbackWish,
    VersionDocument,
    VersionNamed,
    VersionsDocument,
)
from web.models.operations import Preferred
from web.problems import HttpProblem, refused
from web.roles import Role

BODIES = {"application/json": LabWish, "text/yaml": None}


def add(api: Api, context: Context) -> None:
    """Add what reads and changes the lab."""
    control = context.control

    @api.get("/lab", LabText, problems=(404,), etag=True)
    def lab() -> LabText:
        """Return the lab file that is in use, word for word.

        Who is no admin sees of webhooks' URLs only the hosts: the rest may be a secret.
        """
        return _readable(in_use(control))

    @api.put(
        "/lab",
        LabApplied,
        role=Role.ADMIN,
        problems=(409, 412, 503),
        others=ACCEPTED,
        bodies=BODIES,
    )
    def put_lab(query: LabOptions, header: LabHeaders) -> Begun:
        """Go over to a lab file, or with `dry_run` only check it; says what has to end for it.

        With `If-Match` only if the lab in use is the one that was read; with `If-None-Match: *`
        only if none is. The same file twice is one version, and changes nothing.
        """
        wish = _wish(header)
        wanted = context.load(wish.text, Path(wish.path))
        instead_of = _instead_of(control)
        if isinstance(instead_of, Response):
            return instead_of

        def work(job: Job) -> LabApplied:
            return _apply(control, wanted, wish, job, instead_of, dry_run=query.dry_run)

        return begin(control, header, "apply", wanted.name, work)

    @api.get("/lab/versions", VersionsDocument)
    def lab_versions(query: NumberedPage) -> VersionsDocument:
        """Return the labs that were applied, oldest first, without their text."""
        kept = control.versions()
        found = [each for each in kept if not query.before or each.number < query.before]
        page = [VersionDocument.of(each) for each in found[-query.limit :]]
        more = len(found) > len(page)
        return VersionsDocument(versions=page, next=str(page[0].number) if more else None)

    @api.get("/lab/versions/<number>", LabText, etag=True)
    def lab_version(path: VersionNamed) -> LabText:
        """Return a lab that was applied, as `GET /lab` returns the one in use."""
        return _readable(version_of(control, path.number))

    @api.post(
        "/lab/rollback", LabApplied, role=Role.ADMIN, problems=(404, 409, 503), others=ACCEPTED
    )
    def roll_lab_back(body: RollbackWish, header: Preferred) -> Begun:
        """Go over to an earlier version of the lab, which becomes the newest one."""
        version = version_of(control, body.version)
        wish = LabWish(text=version.text, path=version.path)
        wanted = context.load(wish.text, Path(wish.path))

        def work(job: Job) -> LabApplied:
            return _apply(control, wanted, wish, job, None, dry_run=body.dry_run)

        return begin(control, header, "rollback", wanted.name, work)


def in_use(control: Orchestrator) -> LabVersion:
    """Return the version of the lab that is in use; raises `UnknownVersion` if there is none."""
    for version in control.versions(1):
        return version
    raise UnknownVersion(
        "the lab in use was read from no file", hint="apply one: 'edgewake apply LAB.yaml'"
    )


def version_of(control: Orchestrator, number: int) -> LabVersion:
    """Return a version of the lab; raises `UnknownVersion`."""
    kept = control.versions()
    for version in kept:
        if version.number == number:
            return version
    told = f"from {kept[0].number} to {kept[-1].number}" if kept else "none"
    raise UnknownVersion(f"{number}: no such version of the lab", hint=f"kept are: {told}")


def _readable(version: LabVersion) -> LabText:
    """Return a version as whoever asks may read it."""
    if not caller().role.covers(Role.ADMIN):
        text = without_secrets(version.text, Path(version.path))
        version = replace(version, text=text)
    return LabText.of(version)


def _apply(
    control: Orchestrator,
    wanted: Lab,
    wish: LabWish,
    job: Job,
    instead_of: int | None,
    *,
    dry_run: bool,
) -> LabApplied:
    changes = control.apply(
        *(wanted,),
        text=wish.text,
        path=wish.path,
        dry_run=dry_run,
        job=job,
        instead_of=instead_of,
    )
    return LabApplied.of(wanted, changes, applied=not dry_run, version=number_in_use(control))


def number_in_use(control: Orchestrator) -> int:
    """Return the number of the version of the lab that is in use; 0 if there is none."""
    return next((each.number for each in control.versions(1)), 0)


def _instead_of(control: Orchestrator) -> int | Response | None:
    """Return which version the request is to replace, by its conditions; None: whichever it is.

    If that is not in use, return a 412 with the ETag of the one that is.
    """
    condition = Condition.of(request)
    if not condition:
        return None
    version = next(iter(control.versions(1)), None)
    number = version.number if version else 0
    tag = tag_of(LabText.of(version).model_dump_json().encode()) if version else ""
    if condition.met_by(tag):
        return number
    error = Outdated(
        f"the lab at version {number} is not the one that you have read"
        if version
        else "no lab file is in use that could be replaced",
        now=number,
        hint="read it again, make your change to what is there now, and send that",
    )
    return outdated(error, tag)


def _wish(header: LabHeaders) -> LabWish:
    """Return the lab file in the request, which is JSON or the file itself."""
    if request.is_json:
        return reading.body(LabWish)
    try:
        return LabWish(text=request.get_data().decode(), path=unquote(header.path))
    except UnicodeDecodeError:
        raise HttpProblem(
            HTTPStatus.BAD_REQUEST, "the lab file is not UTF-8 text", hint="save it as UTF-8"
        ) from None
    except ValidationError as error:
        raise refused(error, "X-Lab-Path") from None
