"""What the commands `edgewake net ...` ask of an edgewake that runs, instead of doing it.

A change to the network of its lab goes through its API: so it is in its journal, and done in turn
with what edgewake does. Any other network, and all of them while none runs, are this machine's.
"""

# ruff: noqa: PLC0415 - as in orchestrator.cli: what a command needs is imported by it

from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import typer

from web.client import ApiError, Client, NotRunning

if TYPE_CHECKING:
    from orchestrator.network_edits import LinkWish
    from orchestrator.routers.base import Done


class Running:
    """The network of the lab that runs. Documents are those of the API; errors `ApiError`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def network(self) -> dict[str, Any]:
        """Return all of the network."""
        document: dict[str, Any] = self._client.get("/network")
        return document

    def put_link(self, name: str, wish: "LinkWish") -> "Done":
        """Change a link."""
        from orchestrator.cli_waiting import asking
        from orchestrator.routers.base import Done

        body = {key: value for key, value in asdict(wish).items() if value is not None}
        with asking(self._client.place, f"changing {name} ...") as client:
            changes = client.put(f"/links/{quote(name, safe='')}", body)["changes"]
        made, changed, removed = (tuple(changes[key]) for key in ("made", "changed", "removed"))
        return Done(made, changed, removed, changes["routes"])

    def start(self, node: str, name: str, run: str, parameters: dict[str, str]) -> dict[str, Any]:
        """Start a ready-made program."""
        body = {"name": name, "run": run, "parameters": parameters}
        document: dict[str, Any] = self._client.post(f"/routers/{quote(node, safe='')}/apps", body)
        return document

    def stop(self, node: str, name: str) -> dict[str, Any]:
        """End a program."""
        document: dict[str, Any] = self._client.post(f"{_app(node, name)}/stop")
        return document

    def remove(self, node: str, name: str) -> None:
        """End a program and forget it; one that is not there is no error."""
        try:
            self._client.delete(_app(node, name))
        except ApiError as error:
            if error.status != 404:
                raise


def running(ctx: typer.Context, network: str = "") -> Running | None:
    """Return the edgewake that runs a network, of this name if one is given; None if none does.

    It must be the one with our state directory, and its lab must run its network.
    """
    client = Client(ctx.obj.socket)
    try:
        told = client.get("/routers?limit=1")
    except NotRunning:
        return None
    return Running(client) if told["runs"] and network in {"", told["network"]} else None


def _app(node: str, name: str) -> str:
    return f"/routers/{quote(node, safe='')}/apps/{quote(name, safe='')}"
