"""The ready-made programs of routers, for the form that starts them; a test compares."""

from collections.abc import Mapping

PROGRAMS: Mapping[str, tuple[str, str]] = {  # what it does, and its parameters
    "ping": ("sends echo requests, and prints each reply", "to, count, every, size"),
    "send": ("sends numbered datagrams, for receive", "to, port, rate, size, count"),
    "receive": ("prints loss, reordering and latency of what send sends", "port, every"),
    "echo": ("sends back what it receives", "port"),
    "iperf3-server": ("measures throughput: the side that is asked", "port"),
    "iperf3-client": ("measures throughput: the side that asks", "to, port, seconds, udp"),
    "firewall": ("filters packets while it runs", "drop, allow, where, table, every"),
    "cache": ("a small shared HTTP cache", "port, origin"),
    "python": ("calls a Python function; takes an admin", "function, path"),
    "command": ("any program of this machine; takes an admin", "line, rights"),
}
