"""What must go together in the chains and slices of a lab file; see `orchestrator.lab_checks`."""

from collections.abc import Callable, Iterator
from functools import partial

from orchestrator.errors import CannotSay
from orchestrator.lab_report import Report, Where
from orchestrator.lab_schema import LabEntry
from orchestrator.model import Chain, ChainFunction, Lab, Slice
from orchestrator.rules.nft import to_nft
from orchestrator.steering.functions import Intercept
from orchestrator.units import BANDWIDTH

STEERED = ("netns", "memory")  # drivers of hosts at which packets can be led through a guest


def tenant_references(entry: LabEntry) -> Iterator[tuple[Where, str, str]]:
    """Yield where each name of something else is written, the name, and what it should name."""
    for name, chain in entry.chains.items():
        for index, function in enumerate(chain.functions):
            yield ("chains", name, "functions", index), function, "service"
        if chain.clients is not None:
            yield ("chains", name, "clients"), chain.clients, "clients"
    for name, each in entry.slices.items():
        for index, service in enumerate(each.services):
            yield ("slices", name, "services", index), service, "service"
        for index, clients in enumerate(each.clients):
            yield ("slices", name, "clients", index), clients, "clients"


def check_tenants(lab: Lab, report: Report) -> None:
    """Report every chain and slice that cannot be as it is written."""
    last: dict[str, str] = {}
    for chain in lab.chains:
        _check_chain(chain, lab, report)
        other = last.setdefault(chain.functions[-1], chain.name)
        if other != chain.name:
            line = report.line(("chains", other))
            message = f"ends at {chain.functions[-1]!r} as {other!r} does, in line {line}"
            report.add(("chains", chain.name, "functions"), f"{message}; a service ends one chain")
    for service in lab.services:
        if service.function is not None:
            _check_function(service.name, service.function, report)
    _check_shares(lab, report)
    for kind, key in (("services", "services"), ("clients", "populations")):
        owner: dict[str, str] = {}
        for each in lab.slices:
            for name in sorted(getattr(each, key)):
                first = owner.setdefault(name, each.name)
                if first != each.name:
                    message = f"{name!r} is in the slice {first!r} already, and can be in one only"
                    report.add(("slices", each.name, kind), message)
    for each in lab.slices:
        _check_slice(each, lab, report)


def _check_chain(chain: Chain, lab: Lab, report: Report) -> None:
    where = ("chains", chain.name, "functions")
    elsewhere = [host.name for host in lab.hosts if host.driver not in STEERED]
    copies = {service.name: service.most for service in lab.services}
    for index, name in enumerate(chain.functions):
        if name in chain.functions[:index]:
            report.add((*where, index), f"{name!r} is in the chain twice")
        elif copies.get(name, 1) != 1:
            message = f"{name!r} has up to {copies[name]} copies; a function of a chain has one"
            report.add((*where, index), message)
        elif elsewhere and (wrong := _may_run_on(name, lab) & set(elsewhere)):
            message = f"{name!r} may run on {min(wrong)!r}, where packets cannot be led through it"
            hint = "give it `constraints` with `hosts` whose uri is netns:///"
            report.add((*where, index), f"{message}; {hint}")


def _check_function(service: str, function: ChainFunction, report: Report) -> None:
    """Report the rules that are right, and that nftables cannot say."""
    where = ("services", service, "function")
    said: dict[Where, Callable[[], object]] = {
        (*where, "intercepts", index, "rule"): Intercept(rule, port).matches
        for index, (rule, port) in enumerate(function.intercepts)
    }
    if function.admits is not None:
        said[*where, "admits"] = partial(to_nft, function.admits)
    for place, say in said.items():
        try:
            say()
        except CannotSay:
            report.add(place, "as a list of filters it is too long; use fewer alternatives")


def _may_run_on(service: str, lab: Lab) -> set[str]:
    """Return the hosts that a service's constraints leave to it; none, if it is not a service."""
    return {
        host.name
        for each in lab.services
        if each.name == service
        for host in lab.hosts
        if each.constraints.allow(host)
    }


def _check_shares(lab: Lab, report: Report) -> None:
    """Check that no more is kept than there is, on hosts and on the narrowest link."""
    for key in ("cpu", "memory"):
        total = sum(getattr(each, key) for each in lab.slices)
        if total > 1 + 1e-9:
            message = f"the slices keep {total:.0%} of it in all, more than there is"
            report.add(("slices", lab.slices[-1].name, key), message)
    kept = sum(each.mbps for each in lab.slices)
    narrowest = min((link.bandwidth_mbps for link in lab.links), default=0.0)
    if lab.slices and lab.links and kept > narrowest:
        message = f"the slices keep {BANDWIDTH.write(kept)} in all, and the narrowest link has"
        message = f"{message} {BANDWIDTH.write(narrowest)}"
        report.add(("slices", lab.slices[-1].name, "bandwidth"), message)


def _check_slice(each: Slice, lab: Lab, report: Report) -> None:
    where = ("slices", each.name)
    if each.mbps and not each.populations:
        message = "is for the traffic of `clients`, and the slice has none"
        report.add((*where, "bandwidth"), message)
    if (each.cpu or each.memory or each.isolated) and not each.services:
        key = "cpu" if each.cpu else "memory" if each.memory else "isolated"
        report.add((*where, key), "is for `services`, and the slice has none")
    crossing = [
        chain.name
        for chain in lab.chains
        if 0 < len(each.services & set(chain.functions)) < len(chain.functions)
    ]
    if crossing:
        message = f"has some functions of the chain {crossing[0]!r}, and not the others"
        report.add((*where, "services"), message)
