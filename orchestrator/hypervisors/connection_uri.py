"""libvirt connection URIs: made safe to open unattended, and read for what weakens them.

For whoever opens a connection or explains one. What a URI may hold is libvirt's (its page
"Connection URIs" and `remote_driver.c`); nothing here connects.
"""

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

DRIVERS = ("qemu", "xen", "test", "memory", "spt", "netns")
TRANSPORTS = ("unix", "ssh", "tls", "tcp", "libssh", "libssh2", "ext")
PARAMETERS = frozenset(
    {
        *("auth", "command", "debug", "keyfile", "known_hosts", "known_hosts_verify", "mode"),
        *("name", "netcat", "no_sanity", "no_tty", "no_verify", "pkipath", "proxy", "socket"),
        *("sshauth", "tls_priority"),
    }
)
UNCHECKED = frozenset({"ignore", "auto"})  # known_hosts_verify that takes any key, or any new one
LOOPBACK = ("localhost", "::1", "127.")


@dataclass(frozen=True, slots=True)
class ConnectionUri:
    """The parts of a URI; `host`, `user` are empty and `port` None where it has none."""

    driver: str
    transport: str
    user: str
    host: str
    port: int | None
    path: str
    options: tuple[tuple[str, str], ...]

    @property
    def at(self) -> str:
        """Return the host, with the user if one is named, as ssh takes them."""
        return f"{self.user}@{self.host}" if self.user else self.host

    @property
    def far(self) -> bool:
        """Return whether the libvirt is on another machine (or said to be, by a host's name)."""
        return self.transport == "ssh" or bool(self.host)

    @property
    def libvirt(self) -> tuple[object, ...]:
        """Return what two URIs have in common that lead to one libvirt in one way."""
        way = (self.driver, self.transport, self.host, self.port, self.path)
        return (*way, self.option("socket"))

    @property
    def loopback(self) -> bool:
        """Return whether its host is an address of this machine's alone: a tunnel, perhaps."""
        return self.host.startswith(LOOPBACK)

    def option(self, name: str) -> str:
        """Return a parameter's value, the last if it is there twice, as libvirt does."""
        return next((value for key, value in reversed(self.options) if key == name), "")

    def is_set(self, name: str) -> bool:
        """Return whether a switch, which libvirt reads as a number, is on."""
        return self.option(name).strip() not in {"", "0"}


def read_uri(uri: str) -> ConnectionUri:
    """Return the parts of a URI; ValueError says what is wrong with one that has none."""
    parts = urlsplit(uri)
    if not parts.scheme:
        raise ValueError("it begins with no driver: write one such as qemu:///system")
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError("its port is no number from 0 to 65535") from error
    driver, _, transport = parts.scheme.partition("+")
    host = parts.hostname or ""
    return ConnectionUri(
        driver=driver,
        transport=transport or ("tls" if host else "unix"),
        user=parts.username or "",
        host=host,
        port=port,
        path=parts.path,
        options=tuple(parse_qsl(parts.query, keep_blank_values=True)),
    )


def guarded(uri: str) -> str:
    """Return the URI with which nobody is asked for anything at a terminal.

    libvirt starts ``ssh`` for ``+ssh``, and ssh asks for passwords and unknown host keys on the
    terminal of the process, if there is one, and waits. ``no_tty`` makes it run with BatchMode, so
    that it fails and says why.
    """
    try:
        parts = read_uri(uri)
    except ValueError:
        return uri
    if parts.transport != "ssh" or parts.is_set("no_tty"):
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}no_tty=1"


def weaknesses(uri: str) -> tuple[str, ...]:
    """Return what the user wrote into a URI that makes it unsafe, or that has no effect."""
    try:
        parts = read_uri(uri)
    except ValueError:
        return ()
    return tuple(_weaknesses(parts, uri))


def _weaknesses(uri: ConnectionUri, written: str) -> list[str]:
    found = []
    if uri.is_set("no_verify"):
        what = "certificate" if uri.transport == "tls" else "key"
        found.append(
            f"no_verify: the host's {what} is not checked, so whoever is in between can take the "
            "host's place; remove it"
        )
    if uri.option("known_hosts_verify") in UNCHECKED:
        found.append("known_hosts_verify: unknown host keys are taken; remove it, or write normal")
    if uri.transport == "tcp" and not uri.loopback:
        found.append("+tcp: nothing is encrypted, nor perhaps anybody asked who he is; use +tls")
    if uri.transport == "ssh" and uri.option("known_hosts"):
        found.append(
            "known_hosts: has no effect with +ssh, whose keys are in ~/.ssh/known_hosts; set "
            "UserKnownHostsFile for this host in ~/.ssh/config"
        )
    if uri.transport == "ssh" and uri.option("no_tty") and not uri.is_set("no_tty"):
        found.append("no_tty=0: has no effect: edgewake never lets ssh ask at a terminal")
    if urlsplit(written).password is not None:
        found.append("the password in it is not used, but shown in logs; remove it")
    found += [
        f"{name}: libvirt knows no such parameter, and says nothing about it"
        for name in dict(uri.options)
        if name not in PARAMETERS
    ]
    return found
