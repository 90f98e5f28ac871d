"""The lab file: what is wanted."""

from http import HTTPStatus
from pathlib import Path
from urllib.parse import unquote

from flask import request
from pydantic import ValidationError

from orchestrator.unguarded import unguarded
from web.api import reading
from web.api.context import Context
from web.api.operation import Api
from web.models.lab import LabApplied, LabHeaders, LabOptions, LabWish
from web.models.plans import ChangeDocument
from web.problems import HttpProblem, refused
from web.roles import Role

BODIES = {"application/json": LabWish, "text/yaml": None}


def add(api: Api, context: Context) -> None:
    """Add what changes the lab."""

    @api.put("/lab", LabApplied, role=Role.ADMIN, problems=(409, 503), bodies=BODIES)
    def put_lab(query: LabOptions, header: LabHeaders) -> LabApplied:
        """Go over to a lab file, or with `dry_run` only check it; says what has to end for it."""
        wish = _wish(header)
        wanted = context.load(wish.text, Path(wish.path))
        changes = context.control.apply(
            wanted, text=wish.text, path=wish.path, dry_run=query.dry_run
        )
        return LabApplied(
            lab=wanted.name,
            summary=changes.why,
            unguarded=unguarded(wanted),
            changes=[ChangeDocument.of(each) for each in changes],
            applied=not query.dry_run,
        )


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
