"""What an installation knows by itself: its images, and whether KVM boots guests on this machine.

For commands that ask a lab file alone as well as for the process that runs it. It opens no
database, no socket and no hypervisor, so that `edgewake plan LAB` starts without importing them.
"""

from collections.abc import Callable
from urllib.parse import urlsplit

from images.catalog import Catalog
from images.inspect import Inspector
from orchestrator.doctor import probe_kernel
from orchestrator.hypervisors.kvm import kept_verdict
from orchestrator.library import Library
from orchestrator.model import Host
from orchestrator.state_dir import StateDir


def library_of(state: StateDir) -> Library:
    """Return the images of an installation: files, and its catalogue."""
    inspector = Inspector()
    return Library(inspector, Catalog(state.catalog, inspect=inspector))


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
