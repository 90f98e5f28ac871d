"""Finds what people name in the lab that runs, or lists what there is for who mistyped."""

from orchestrator.errors import UnknownHost, UnknownService
from orchestrator.fleet import Fleet
from orchestrator.model import Host, Service


def known_service(fleet: Fleet, name: str) -> Service:
    """Return a service of the lab; UnknownService lists those there are."""
    service = fleet.service(name)
    if service is None:
        names = ", ".join(known.name for known in fleet.lab.services)
        raise UnknownService(name, "no such service", hint=f"the lab has: {names}")
    return service


def known_host(fleet: Fleet, name: str) -> Host:
    """Return a host of the lab; UnknownHost lists those there are."""
    hosts = {host.name: host for host in fleet.lab.hosts}
    if name not in hosts:
        raise UnknownHost(f"{name}: no such host", hint=f"the lab has: {', '.join(hosts)}")
    return hosts[name]
