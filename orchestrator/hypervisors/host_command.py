"""Runs a fixed shell text on the host behind a libvirt URI: on this machine, or over ssh.

For what libvirt cannot tell or do: `orchestrator.host_shell` asks, `xenstore` writes and watches.
The text is parsed by a shell there, so nothing that comes from elsewhere is ever put into it; that
goes to its standard input. ssh gets what the URI says, as libvirt's own would. A process here is
ended with all that it started; a text that waits there ends itself when its input does.
"""

import os
import signal
import subprocess
from contextlib import suppress
from threading import Timer

from orchestrator.hypervisors.connection_uri import ConnectionUri

CONNECT_S = 8
ALIVE_S, ALIVE_COUNT = 5, 3  # a silent host counts as lost after about 20 s, as for libvirt
MOST_BYTES = 64 * 1024


def host_command(uri: ConnectionUri, text: str) -> list[str]:
    """Return the command that runs a text on a host, or nothing if its URI gives no way to."""
    if uri.transport == "unix" and not uri.host and uri.driver in {"qemu", "xen"}:
        return ["sh", "-c", text]
    if uri.transport != "ssh":
        return []
    options = ["BatchMode=yes", f"ConnectTimeout={CONNECT_S}"]
    options += [f"ServerAliveInterval={ALIVE_S}", f"ServerAliveCountMax={ALIVE_COUNT}"]
    if uri.is_set("no_verify"):  # the user wrote it; `weaknesses` says what it means
        options.append("StrictHostKeyChecking=no")
    command = [uri.option("command") or "ssh", "-T", *(f"-o{each}" for each in options)]
    if uri.option("keyfile"):
        command += ["-i", uri.option("keyfile")]
    if uri.port:
        command += ["-p", str(uri.port)]
    if uri.user:
        command += ["-l", uri.user]
    return [*command, "--", uri.host or "localhost", text]


class HostProcess:
    """A command that runs; what it says is read from `fileno()`. `end` it, whatever happens.

    `with_errors` mixes what it says on standard error into the rest. Raises OSError if it cannot
    be started.
    """

    def __init__(self, command: list[str], *, with_errors: bool = False) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if with_errors else subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # no terminal to ask anything at
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise OSError("a process without its pipes")
        self._input, self._output = self._process.stdin, self._process.stdout

    def fileno(self) -> int:
        """Return the file that is readable when the process said something, or ended."""
        return self._output.fileno()

    def tell(self, data: bytes) -> None:
        """Write to the process; what it no longer wants is dropped."""
        rest = memoryview(data)
        with suppress(OSError):
            while rest:
                rest = rest[self._input.write(rest) or 0 :]

    def read(self, most: int = MOST_BYTES) -> bytes:
        """Return what the process says next, at most so many bytes; empty at its end. Waits."""
        return self._output.read(most) or b""

    def exchange(self, data: bytes, timeout_s: float) -> bytes:
        """Write, close, and return the beginning of what the process says until its end; end it.

        Takes `timeout_s` at most; what was said until then is returned.
        """
        said = bytearray()
        watch = Timer(timeout_s, self._kill)
        watch.start()
        try:
            self.tell(data)
            with suppress(OSError):
                self._input.close()
            while len(said) < MOST_BYTES and (more := self.read(MOST_BYTES - len(said))):
                said += more
        finally:
            watch.cancel()
            self.end()
        return bytes(said)

    def end(self) -> None:
        """End the process now, and all that it started here. May be called twice."""
        self._kill()
        for pipe in (self._input, self._output):
            with suppress(OSError):
                pipe.close()
        self._process.wait()

    def _kill(self) -> None:
        if self._process.returncode is None:  # nobody has waited for it: its id is still its own
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
