"""The process that is the user-space links of one owner on this machine; started by `wires`.

Its input is the listening socket at which it is told what wires there are (`wire_messages`); the
devices come with the messages, open. So it gives up all rights at once, and runs as a user of its
own. It ends by itself when it has had no wire and nobody who asks for a while.
"""

import argparse
import gc
import json
import logging
import os
import resource
import select
import socket
import struct
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from orchestrator.linux.namespaces import inode as namespace_inode
from orchestrator.routers.wire_loop import Loop, Pair
from orchestrator.routers.wire_messages import (
    MESSAGE_BYTES,
    WIRES_PER_MESSAGE,
    Add,
    Change,
    Listing,
    Remove,
    Wire,
    WireState,
    parse_request,
    states_text,
)

_TICK_S = 2.0  # how often namespaces are looked for
_IDLE_S = 10.0  # how long it stays without a wire before the first one
_MOST_CLIENTS = 16
_MOST_FILES = 253  # unix(7): in one message
_NICE = -10  # a frame that is late is worse than a program that is
_PEER = struct.Struct("3i")  # unix(7) SO_PEERCRED: pid, uid, gid

log = logging.getLogger("wires")


class Server:
    """Answers those who may ask, and keeps the loop's pairs as they say."""

    def __init__(self, listener: socket.socket, users: frozenset[int]) -> None:
        self._listener, self._users = listener, users
        self._loop = Loop()
        self._clients: dict[int, socket.socket] = {}
        self._wires: dict[str, tuple[Wire, tuple[int, int], Pair]] = {}
        self._started = time.monotonic()
        self._had_wires = False
        listener.setblocking(False)
        self._loop.epoll.register(listener.fileno(), select.EPOLLIN)

    def run(self) -> None:
        """Serve until there is nothing more to do."""
        tick = time.monotonic()
        while not self._idle():
            self._loop.send_due()
            for file in self._loop.wait(_TICK_S):
                if file == self._listener.fileno():
                    self._accept()
                elif file in self._clients:
                    self._hear(file)
            if time.monotonic() > tick + _TICK_S:
                tick = time.monotonic()
                self._look_for_namespaces()

    def _idle(self) -> bool:
        if self._clients or any(pair.alive for _, _, pair in self._wires.values()):
            return False
        return self._had_wires or time.monotonic() - self._started > _IDLE_S

    # --- those who ask ------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        told = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        pid, user, _ = _PEER.unpack(told)
        if user not in self._users or len(self._clients) >= _MOST_CLIENTS:
            log.warning("process %d of user %d was turned away", pid, user)
            client.close()
            return
        client.setblocking(False)
        self._clients[client.fileno()] = client
        self._loop.epoll.register(client.fileno(), select.EPOLLIN)

    def _hear(self, file: int) -> None:
        client = self._clients[file]
        try:
            text, files, flags, _ = socket.recv_fds(client, MESSAGE_BYTES, _MOST_FILES)
        except BlockingIOError:
            return
        except OSError:
            text, files, flags = b"", [], 0
        if not text:
            for sent in files:
                os.close(sent)
            self._dismiss(file)
            return
        whole = not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
        answer = self._answer(text, files, whole=whole)
        try:
            client.send(answer)
        except OSError:  # it has gone, or does not read
            self._dismiss(file)

    def _dismiss(self, file: int) -> None:
        self._loop.epoll.unregister(file)
        self._clients.pop(file).close()

    # --- what they ask ------------------------------------------------------------------------

    def _answer(self, text: bytes, files: list[int], *, whole: bool) -> bytes:
        """Do what a message says, or nothing of it; return the answer."""
        try:
            if not whole:
                raise ValueError("the message is too long")  # noqa: TRY301 - told as any other
            request = parse_request(text)
            if isinstance(request, Add):
                self._add(request, files)
            elif files:
                raise ValueError("files came with a message that needs none")  # noqa: TRY301
            elif isinstance(request, Change):
                self._change(request)
            elif isinstance(request, Remove):
                self._remove(request)
            else:
                return self._states(request)
        except (ValueError, OSError) as error:
            log.warning("refused: %s", error)
            return json.dumps({"error": str(error)}).encode()
        finally:
            for file in files:
                os.close(file)
        return b"{}"

    def _states(self, asked: Listing) -> bytes:
        until = asked.start + WIRES_PER_MESSAGE
        states = tuple(
            WireState(wire, pair.alive, inodes, *(way.traffic() for way in pair.directions))
            for _, (wire, inodes, pair) in sorted(self._wires.items())[asked.start : until]
        )
        return states_text(states, until if until < len(self._wires) else None)

    def _add(self, asked: Add, files: list[int]) -> None:
        """Take on wires; their files are taken out of `files`, and stay there after an error."""
        names = [wire.name for wire, _ in asked.wires]
        if len(files) != 2 * len(names):
            raise ValueError(f"{len(files)} files came for {len(names)} wires")
        known = self._wires.keys() & names
        if known or len(set(names)) != len(names):
            raise ValueError(f"there already: {', '.join(sorted(known)) or 'a name twice'}")
        added: dict[str, tuple[Wire, tuple[int, int], Pair]] = {}
        try:
            for wire, inodes in asked.wires:
                pair = self._loop.add((files[0], files[1]), wire.quality, up=wire.up)
                del files[:2]
                added[wire.name] = wire, inodes, pair
        except OSError:
            for _, _, pair in added.values():
                self._loop.remove(pair)
            raise
        self._wires.update(added)
        self._had_wires = True

    def _change(self, asked: Change) -> None:
        self._check_known(name for name, _, _ in asked.wires)
        for name, quality, up in asked.wires:
            wire, inodes, pair = self._wires[name]
            self._loop.change(pair, quality, up=up)
            self._wires[name] = replace(wire, quality=quality, up=up), inodes, pair

    def _remove(self, asked: Remove) -> None:
        self._check_known(asked.names)
        for name in set(asked.names):
            self._loop.remove(self._wires.pop(name)[2])

    def _check_known(self, names: Iterable[str]) -> None:
        unknown = set(names) - self._wires.keys()
        if unknown:
            raise ValueError(f"no such wires: {', '.join(sorted(unknown))}")

    def _look_for_namespaces(self) -> None:
        """Let go of wires whose namespaces lost their names: our files alone would keep them."""
        inodes: dict[str, int] = {}
        for wire, known, pair in self._wires.values():
            for end, inode in zip((wire.a, wire.b), known, strict=True):
                if end.namespace not in inodes:
                    inodes[end.namespace] = namespace_inode(end.namespace)
                if pair.alive and inodes[end.namespace] != inode:
                    log.warning("wire %s: namespace %s is gone", wire.name, end.namespace)
                    self._loop.remove(pair)


def main() -> None:
    """Serve the socket that is our standard input."""
    parser = argparse.ArgumentParser(description="the user-space links of one owner")
    parser.add_argument("--mark", required=True, help="what this process is found by")
    parser.add_argument("--user", type=int, help="the uid and gid to become")
    asked = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    may_ask = frozenset({os.geteuid()})
    _use_the_machine()
    if asked.user is not None:
        _become(asked.user)
    server = Server(socket.socket(fileno=0), may_ask)
    gc.collect()
    gc.freeze()
    gc.disable()  # frames make no cycles
    server.run()


def _use_the_machine() -> None:
    """Take what needs rights, as far as we have them."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _become(user: int) -> None:
    """Give up all rights for good (capabilities(7), "Effect of user ID changes")."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
