"""Edits of routers and links as operations, for the versions that they are meant for."""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from flask import request

from orchestrator.errors import NotInNetwork, Outdated
from orchestrator.live_network import Edit
from orchestrator.network import Network
from orchestrator.network_view import NetworkView
from orchestrator.operations import Job
from orchestrator.routers.base import Done
from web.api.conditional import Condition, mark_of, marked_tag, outdated
from web.api.context import Context
from web.api.working import Begun, begin
from web.models.base import Document
from web.models.operations import Conditions

LANE = "network"  # its edits are done one after the other

Tagged = tuple[Document, int, dict[str, str]]


@dataclass(frozen=True, slots=True)
class Editing:
    """How routers, or links, are edited and what is answered.

    `document` is one as it is, or raises `NotInNetwork`; `version` all of it that people change, as
    text; `result` tells of an edit that was done.
    """

    context: Context
    document: Callable[[NetworkView, str], Document]
    version: Callable[[Network | NetworkView, str], str]
    result: Callable[[str, Done], Document]

    def shown(self, view: NetworkView, name: str) -> Tagged:
        """Return one, marked with the version that it has; raises `NotInNetwork`."""
        mark = mark_of(self.version(view, name))
        headers = {"ETag": f'"{mark}"'} if mark else {}
        return self.document(view, name), HTTPStatus.OK, headers

    def begin(self, kind: str, edit: Edit, header: Conditions) -> Begun:
        """Begin an edit and answer; with a 412 if it is meant for another version.

        That is looked at again when its turn has come.
        """
        context, condition = self.context, Condition.of(request)

        def demand(network: Network) -> None:
            if not condition.met_by(mark_of(self.version(network, edit.name))):
                raise Outdated(
                    f"{edit.noun} {edit.name} is not as you have read it",
                    hint="read it again, and change it as it is now",
                )

        try:
            demand(context.live.network())
        except Outdated as error:
            return self._refused(edit.name, error)
        checked = edit.only_if(demand)

        def work(job: Job) -> Document:
            return self.result(edit.name, context.live.carry_out(checked, job.tell))

        return begin(context.control, header, kind, edit.name, work, lane=LANE)

    def _refused(self, name: str, error: Outdated) -> Begun:
        """Return the refusal, with the ETag of what there is."""
        view = self.context.network_view()
        try:
            content = self.document(view, name).model_dump_json().encode()
        except NotInNetwork:
            return outdated(error, "")
        return outdated(error, marked_tag(mark_of(self.version(view, name)), content))
