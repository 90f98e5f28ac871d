"""Keeps the virtual network of the running lab as its file says, for `edgewake up`.

Each applied lab is told with `want`. A network that cannot be made at once, such as while a host's
bridge is missing, is tried again; services go on meanwhile. It stays when edgewake ends, and is
found again. A lab that does not run its network has the one removed that an earlier file wanted.
What people change of it meanwhile (`orchestrator.live_network`) is done in turn with that.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.errors import CannotNetwork
from orchestrator.journal import Journal
from orchestrator.model import Lab
from orchestrator.net_report import changes_told
from orchestrator.networks import Kept, Networks
from orchestrator.wanted_network import apps_of, network_of, this_machine

RETRY_S = 10.0
PATIENCE_S = 30.0  # for an attempt that is under way when edgewake ends


class NetworkKeeper:
    """One lab's network, set in the caller's thread first and then, until it is, in its own."""

    def __init__(self, networks: Networks, journal: Journal, *, retry_s: float = RETRY_S) -> None:
        self._networks = networks
        self._journal = journal
        self._retry_s = retry_s
        self._lock = threading.Lock()
        self._lab: Lab | None = None  # whose network is not as it wants
        self._said = ""
        self._wake = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)
        self._thread.start()

    def want(self, lab: Lab) -> None:
        """Make the network of a lab as it says; what cannot be done now is done later."""
        with self._lock:
            self._lab, self._said = lab, ""
            self._attempt()
        self._wake.set()

    @property
    def why_not(self) -> str:
        """Why the network is not yet as its lab wants; empty if it is."""
        return self._said or "it is being made" if self._lab is not None else ""

    @contextmanager
    def turn(self) -> Iterator[Networks]:
        """Yield the networks, and leave them alone meanwhile.

        Raises CannotNetwork while the lab's is not as it wants: what is tried again would undo what
        is done here.
        """
        with self._lock:
            self.demand()
            yield self._networks

    def demand(self) -> None:
        """Raise what `turn` would, if the network could not be made as its lab wants.

        Says nothing of one that is being made now: whoever waits for a turn may get it.
        """
        lab, said = self._lab, self._said
        if lab is not None and said:
            raise CannotNetwork(
                f"network {lab.name} is not there yet: {said}",
                hint=f"it is tried again every {self._retry_s:g} s",
            )

    def close(self) -> None:
        """Try no more; the network stays. May be called twice."""
        self._closed = True
        self._wake.set()
        self._thread.join(PATIENCE_S)

    def remove(self, name: str) -> None:
        """Try no more, and remove the network of a lab, if it is set; what fails is journaled."""
        self.close()
        with self._lock:
            try:
                if name in self._networks.names():
                    self._networks.remove(name)
            except CannotNetwork as error:
                self._journal.record("network-failed", name, str(error))

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait(self._retry_s if self._lab else None)
            if self._wake.is_set():
                self._wake.clear()
                continue
            with self._lock:
                if self._lab and not self._closed:
                    self._attempt()

    def _attempt(self) -> None:
        """Try once; say what was changed, and what is in the way unless that was said."""
        lab = self._lab
        if lab is None:
            return
        try:
            told = self._set(lab)
        except CannotNetwork as error:
            if str(error) != self._said:
                self._said = str(error)
                self._journal.record("network-failed", lab.name, str(error))
            return
        self._lab = None
        if told:
            self._journal.record("network", lab.name, told)

    def _set(self, lab: Lab) -> str:
        """Return what was changed in a few words; nothing if there is no network to speak of."""
        if lab.network.run:
            done = self._networks.set(Kept(network_of(lab), this_machine(lab)), apps=apps_of(lab))
        elif lab.name in self._networks.names():
            done = self._networks.remove(lab.name)
        else:
            return ""
        return "; ".join(" ".join(line.split()) for line in changes_told(done))
