"""The two things a bed itself asks of its libvirt: whether it is there, and to store a file."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from xml.sax.saxutils import escape

import libvirt

_POLL_S = 0.05
_CHUNK = 256 << 10  # bytes; what libvirt sends in one message


def why_silent(uri: str, deadline: float) -> str:
    """Return "" once libvirt answers, or why it did not before the deadline.

    A call may hang for long when packets are lost, so it is made by a thread that can be left.
    """
    why = ["no answer"]

    def ask() -> None:
        try:
            with _connection(uri) as connection:
                connection.listAllDomains()
        except libvirt.libvirtError as error:
            why[0] = str(error)
        else:
            why[0] = ""

    while why[0] and time.monotonic() < deadline:
        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(max(0.0, deadline - time.monotonic()))
        if why[0]:
            time.sleep(_POLL_S)
    return why[0]


def upload(uri: str, pool: str, data: bytes, name: str) -> str:
    """Store a file in a pool, over one of that name, and return its path there.

    Raises libvirt's errors.
    """
    with _connection(uri) as connection:
        store = connection.storagePoolLookupByName(pool)
        if name in store.listVolumes():
            store.storageVolLookupByName(name).delete()
        volume = store.createXML(
            f"<volume><name>{escape(name)}</name><allocation>0</allocation>"
            f"<capacity unit='bytes'>{len(data)}</capacity></volume>"
        )
        stream = connection.newStream()
        volume.upload(stream, 0, len(data))
        for start in range(0, len(data), _CHUNK):
            stream.send(data[start : start + _CHUNK])
        stream.finish()
        path: str = volume.path()
        return path


@contextmanager
def _connection(uri: str) -> Iterator[libvirt.virConnect]:
    connection = libvirt.open(uri)
    try:
        yield connection
    finally:
        connection.close()
