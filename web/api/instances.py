"""Instances."""

from web.api.context import Context
from web.api.operation import Api
from web.models.base import Named
from web.models.instances import InstanceDetails, InstancesDocument, InstancesWanted


def add(api: Api, context: Context) -> None:
    """Add what is told of instances."""
    control = context.control

    @api.get("/instances", InstancesDocument)
    def instances(query: InstancesWanted) -> InstancesDocument:
        """Return what runs and what sleeps, by name."""
        wanted = [
            each
            for each in control.insight.instances()
            if query.service in {"", each.instance.service}
            and query.host in {"", each.instance.host}
            and each.instance.name > query.after
        ]
        page = [InstanceDetails.with_origin(each) for each in wanted[: query.limit]]
        more = len(wanted) > query.limit
        return InstancesDocument(instances=page, next=page[-1].name if more else None)

    @api.get("/instances/<name>", InstanceDetails)
    def instance(path: Named) -> InstanceDetails:
        """Return one instance."""
        return InstanceDetails.with_origin(control.insight.instance(path.name))
