"""Ports for programs that have to be told one; what can listen on port 0 does not need this."""

import socket

HERE = "127.0.0.1"


def free_port() -> int:
    """Return a port of the loopback that nobody had just now, over UDP or TCP."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind((HERE, 0))
            port: int = tcp.getsockname()[1]
            try:
                udp.bind((HERE, port))
            except OSError:
                continue
            return port
