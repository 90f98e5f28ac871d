"""The programs that a network is to have, beside those that people have started in it.

For `orchestrator.networks`, each time that it has set a network.
"""

from collections.abc import Collection, Sequence

from orchestrator.network import App
from orchestrator.routers.base import Apps


def settle(apps: Apps, wanted: Sequence[App], nodes: Collection[str]) -> tuple[str, ...]:
    """Start the programs that are wanted on these nodes and not there; return them by place.

    One that is there as something else is replaced. One that has ended stays so: it may have done
    what it was for. Programs whose node is gone are forgotten. Errors are `CannotNetwork`.
    """
    there = {(state.app.router, state.app.name): state.app for state in apps.all()}
    for place in there:
        if place[0] not in nodes:
            apps.remove(*place)
    started = []
    for app in wanted:
        place = app.router, app.name
        if app.router in nodes and there.get(place) != app:
            apps.remove(*place)
            apps.start(app)
            started.append("/".join(place))
    return tuple(started)
