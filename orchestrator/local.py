"""What an installation has by itself: images, virtual networks, and whether KVM boots guests here.

For commands that ask a lab file alone as well as for the process that runs it. It opens no
database, no socket and no hypervisor, so that `edgewake plan LAB` starts without importing them.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from images.catalog import Catalog
from images.inspect import Inspector
from orchestrator.digests import Digests
from orchestrator.doctor import probe_kernel
from orchestrator.hypervisors.kvm import kept_verdict
from orchestrator.library import Library
from orchestrator.linux.records import Records
from orchestrator.model import Host
from orchestrator.networks import Networks
from orchestrator.routers.base import Apps, Routers
from orchestrator.state_dir import StateDir


def library_of(state: StateDir, digests: Digests | None = None) -> Library:
    """Return the images of an installation: files, and its catalogue.

    Whoever shares `digests` hashes each file once.
    """
    inspector = Inspector()
    return Library(inspector, Catalog(state.catalog, inspect=inspector), digests)


def kvm_known(state: StateDir) -> Callable[[Host], bool]:
    """Return what tells of a host whether KVM boots guests there, as far as was found out before.

    Nothing is booted to find out; `HostOpener` does that, for hosts on this machine only.
    """
    kernel = probe_kernel(state.images)
    verdict = kept_verdict(state.kvm, kernel) if kernel else None
    return lambda host: bool(verdict and verdict.usable and is_local_qemu(host))


def is_local_qemu(host: Host) -> bool:
    """Return whether a host is this machine, by QEMU."""
    parts = urlsplit(host.uri)
    return parts.scheme == "qemu" and not parts.hostname


# --- virtual networks -----------------------------------------------------------------------------


def networks_of(state: StateDir) -> Networks:
    """Return the virtual networks of an installation on this machine."""
    folder = state.path / "network"

    def open_netns(name: str, machine: str) -> Routers:
        return routers_here(f"{_owner(state)} {name}", folder / name, machine)

    def open_apps(name: str) -> Apps:
        return apps_here(f"{_owner(state)} {name}", folder / name, name)

    return Networks(Records(folder), open_netns, open_apps)


def routers_here(owner: str, folder: Path, machine: str = "") -> Routers:
    """Return the routers of an owner's network on this machine, and their routing daemons."""
    from orchestrator.routers.daemons import Daemons, OspfRouters  # noqa: PLC0415 - as below
    from orchestrator.routers.netns import NetnsRouters  # noqa: PLC0415 - imports ctypes, and more

    kernel = NetnsRouters(owner, folder, machine=machine)
    return OspfRouters(kernel, Daemons(owner, namespace_of), machine)


def apps_here(owner: str, folder: Path, network: str) -> Apps:
    """Return the programs in an owner's network on this machine."""
    from orchestrator.routers.apps import NetnsApps  # noqa: PLC0415 - as above

    names = partial(namespace_of, network)
    return NetnsApps(owner, folder=folder / "apps", namespace_of=names)


@contextmanager
def networks_in_memory(bridges: Iterable[str] = ()) -> Iterator[Networks]:
    """Yield networks that are nowhere, and forgotten afterwards: to try what would be done.

    It is as if this machine had these bridges.
    """
    from orchestrator.routers.memory import MemoryKernel, MemoryRouters  # noqa: PLC0415 - as above

    with TemporaryDirectory(prefix="edgewake-") as folder:
        routers = MemoryRouters("tried", MemoryKernel(bridges=set(bridges)))
        yield Networks(Records(Path(folder)), lambda _name, _machine: routers)


def namespace_of(network: str, node: str) -> str:
    """Return the network namespace of a router, or of a population of clients."""
    from orchestrator.routers import names  # noqa: PLC0415 - as above

    return names.namespace_of(network, node)


def _owner(state: StateDir) -> str:
    """Return the installation's mark, which the first use of its folder makes."""
    if not (state.path / "owner").exists():
        StateDir.open(state.path).close()
    return state.owner
