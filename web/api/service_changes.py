"""What changes where a service is, and whether there is one: move, delete, roll back.

The last two edit the text of the lab that is in use, and apply that: it becomes a new version, and
rolling the lab back is the undo. The file on the user's disk is not touched.
"""

from pathlib import Path

from orchestrator.lab_edit import Edited, service_before, without_service
from orchestrator.operations import Job
from orchestrator.store.base import LabVersion
from web.api.context import Context
from web.api.lab import in_use, number_in_use
from web.api.operation import Api
from web.api.working import ACCEPTED, Begun, begin
from web.models.base import Named
from web.models.lab import LabApplied, LabOptions, ServiceEdited, ServiceRollbackWish
from web.models.operations import Preferred
from web.models.plans import ChangeDocument
from web.models.services import Moved, MoveWish
from web.roles import Role


def add(api: Api, context: Context) -> None:
    """Add what changes one service for good."""
    control = context.control

    @api.post(
        "/services/<name>/move",
        Moved,
        role=Role.OPERATOR,
        problems=(409, 503),
        others=ACCEPTED,
    )
    def move_service(path: Named, body: MoveWish, header: Preferred) -> Begun:
        """Move an instance of a service to a host: it answers there before it ends here."""
        control.known(path.name)
        control.known_host(body.host)

        def work(job: Job) -> Moved:
            changes = control.move(path.name, body.host, job)
            return Moved(
                service=path.name,
                host=body.host,
                changes=[ChangeDocument.of(each) for each in changes],
            )

        return begin(control, header, "move", path.name, work)

    @api.delete(
        "/services/<name>",
        ServiceEdited,
        role=Role.ADMIN,
        problems=(409, 503),
        others=ACCEPTED,
    )
    def delete_service(path: Named, query: LabOptions, header: Preferred) -> Begun:
        """Take a service out of the lab that is in use, and end it; all else stays as written.

        To undo it, roll the lab back to the version that the answer names.
        """
        control.known(path.name)
        now = in_use(control)
        edited = without_service(now.text, Path(now.path), path.name, context.load)

        def work(job: Job) -> ServiceEdited:
            return _edit(context, path.name, now, edited, job, dry_run=query.dry_run)

        return begin(control, header, "delete", path.name, work)

    @api.post(
        "/services/<name>/rollback",
        ServiceEdited,
        role=Role.ADMIN,
        problems=(409, 503),
        others=ACCEPTED,
    )
    def roll_service_back(path: Named, body: ServiceRollbackWish, header: Preferred) -> Begun:
        """Put back a service, and the images that it names, as they were when last otherwise."""
        control.known(path.name)
        now = in_use(control)
        edited, before = service_before(control.versions(), path.name, context.load)

        def work(job: Job) -> ServiceEdited:
            return _edit(context, path.name, now, edited, job, dry_run=body.dry_run, before=before)

        return begin(control, header, "rollback", path.name, work)


def _edit(
    context: Context,
    service: str,
    now: LabVersion,
    edited: Edited,
    job: Job,
    *,
    dry_run: bool,
    before: LabVersion | None = None,
) -> ServiceEdited:
    control = context.control
    changes = control.apply(
        edited.lab,
        text=edited.text,
        path=now.path,
        dry_run=dry_run,
        job=job,
        instead_of=now.number,
    )
    applied = LabApplied.of(
        edited.lab, changes, applied=not dry_run, version=number_in_use(control)
    )
    like = before.number if before else None
    return ServiceEdited(**dict(applied), service=service, undo=now.number, like=like)
