"""Files on a host through libvirt's storage interface: what a `depot.Pool` does, as libvirt calls.

A directory pool per owner. libvirt keeps no metadata on pools, so one is ours when its UUID is the
one `pool_uuid` derives, as with networks. It is transient: libvirt forgets it when the host
restarts, the files stay, and the next write makes the pool anew on top of them.

Files are volumes of format ``raw`` whatever is in them: libvirt then stores bytes and starts no
tool. Data go through libvirt's own streams, so they pass wherever the connection does.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID
from xml.etree import ElementTree as ET

import libvirt

from orchestrator.digests import PIECE
from orchestrator.errors import StartFailed
from orchestrator.hypervisors.depot import Stored

_FOLDER_MODE = "0711"  # QEMU's user may enter, and nobody but root may list
_SHARED_MODE = "0644"  # for those who know the digest
_OWN_MODE = "0600"
_PROGRAM_MODE = "0755"
_MAKING_S, _RETRY_S = 2.0, 0.02  # an empty volume is made in milliseconds
_PASSING = frozenset({libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_STORAGE_VOL})

BUSY_S, BUSY_POLL_S = 5.0, 0.02  # how long a file that is being written is waited for

T = TypeVar("T")


class LibvirtPool:
    """A folder of ours on the host behind a connection; see `depot.Pool` for the contract.

    The folder is `parent`/`owner`. `user` is the user and group id that QEMU runs as there, None
    where that is whom libvirt itself runs as. Methods raise `libvirtError`, and `StartFailed` if
    our name is taken; `host` is for that.
    """

    def __init__(
        self,
        conn: libvirt.virConnect,
        host: str,
        owner: str,
        parent: Path,
        user: tuple[int, int] | None,
    ) -> None:
        self._conn = conn
        self._host = host
        self._owner = owner
        self._wanted = parent / owner
        self._user = user

    @cached_property
    def folder(self) -> Path:
        """Return where it is on the host; an existing pool of ours may have been made elsewhere."""
        pool = self._find()
        path = None if pool is None else _parsed(pool.XMLDesc()).findtext("target/path")
        return Path(path) if path else self._wanted

    def stored(self) -> tuple[Stored, ...]:
        """Return all files in it."""
        pool = self._find()
        if pool is None:
            return ()
        _refresh(pool)
        found = [_stored(volume) for volume in pool.listAllVolumes()]
        return tuple(stored for stored in found if stored is not None)

    def find(self, name: str) -> Stored | None:
        """Return a file, None if it is not there."""
        pool = self._find()
        volume = None if pool is None else _volume(pool, name)
        if pool is None or volume is None:
            return None
        stored = _stored(volume)
        if stored is None:
            _refresh(pool)  # somebody removed the file, and libvirt has not noticed
        return stored

    def write(
        self, name: str, pieces: Iterable[bytes], *, offset: int = 0, writable: bool = False
    ) -> None:
        """Write from `offset` on; make the file if it is not there."""
        mode, user = (_OWN_MODE, self._user) if writable else (_SHARED_MODE, None)
        self._write(lambda: self._volume_to_write(name, mode, user), pieces, offset)

    def write_program(self, name: str, content: bytes) -> None:
        """Write a whole file that may be run."""
        self._write(lambda: self._volume_to_write(name, _PROGRAM_MODE, None), (content,), 0)

    def _write(
        self, volume: Callable[[], libvirt.virStorageVol], pieces: Iterable[bytes], offset: int
    ) -> None:
        with self._stream(lambda stream: volume().upload(stream, offset, 0)) as stream:
            for piece in pieces:
                _send_all(stream, piece)

    def read(self, name: str) -> Iterator[bytes]:
        """Return what the host has stored, in pieces."""
        volume = self._made().storageVolLookupByName(name)
        sparse = libvirt.VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM
        with self._stream(lambda stream: volume.download(stream, 0, 0, sparse)) as stream:
            while piece := stream.recvFlags(PIECE, libvirt.VIR_STREAM_RECV_STOP_AT_HOLE):
                if isinstance(piece, bytes):
                    yield piece
                else:  # a number that says: here is a hole
                    yield from _zeros(stream.recvHole())

    def remove(self, name: str) -> None:
        """Remove a file. Removing one that is not there does nothing.

        Somebody else of ours may be writing it just now; that is waited for, `BUSY_S` at most.
        """
        pool = self._find()
        volume = None if pool is None else _volume(pool, name)
        deadline = time.monotonic() + BUSY_S
        while volume is not None:
            try:
                _or_none(volume.delete)
            except libvirt.libvirtError as error:
                busy = error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID
                if not busy or time.monotonic() > deadline:
                    raise
                time.sleep(BUSY_POLL_S)
            else:
                return

    def free(self) -> int:
        """Return how many bytes there is room for; makes the folder if it is not there."""
        pool = self._made()
        _refresh(pool)
        info: Any = pool.info()  # the binding's annotation is wrong here
        return int(info[3])

    def remove_if_empty(self) -> None:
        """Remove the pool and its folder, unless there is anything in it, or there is none."""
        pool = self._find()
        if pool is None:
            return
        _refresh(pool)
        if pool.numOfVolumes():
            return
        xml = pool.XMLDesc()
        pool.destroy()
        kept = self._conn.storagePoolDefineXML(xml)  # only what is defined can be deleted
        try:
            kept.delete()
        finally:
            kept.undefine()

    # --- libvirt ----------------------------------------------------------------------------------

    def _find(self) -> libvirt.virStoragePool | None:
        return _or_none(lambda: self._conn.storagePoolLookupByUUIDString(pool_uuid(self._owner)))

    def _made(self) -> libvirt.virStoragePool:
        pool = self._find()
        if pool is not None:
            return pool
        xml = pool_xml(self._owner, self._wanted)
        try:
            return self._conn.storagePoolCreateXML(xml, libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
        except libvirt.libvirtError:
            pool = self._find()  # somebody else of ours may have been quicker
            if pool is not None:
                return pool
            name = pool_name(self._owner)
            if _or_none(lambda: self._conn.storagePoolLookupByName(name)) is not None:
                message = f"a storage pool named {name} exists there and is not ours"
                raise StartFailed(self._host, message, hint="rename or remove it") from None
            raise

    def _volume_to_write(
        self, name: str, mode: str, user: tuple[int, int] | None
    ) -> libvirt.virStorageVol:
        pool = self._made()
        volume = _volume(pool, name)
        if volume is not None:
            return volume
        try:
            return pool.createXML(_volume_xml(name, mode, user))
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_STORAGE_VOL_EXIST:
                raise
            return pool.storageVolLookupByName(name)  # made by another edgewake just now

    @contextmanager
    def _stream(self, begin: Callable[[libvirt.virStream], int]) -> Iterator[libvirt.virStream]:
        """Finish a stream, which is when libvirt tells late errors; abort it if anything fails."""
        stream = self._begun(begin)
        try:
            yield stream
            stream.finish()
        except BaseException:
            with suppress(libvirt.libvirtError):
                stream.abort()
            raise

    def _begun(self, begin: Callable[[libvirt.virStream], int]) -> libvirt.virStream:
        """Return a stream that has begun, when another edgewake has made the volume whole.

        While another one reads the folder anew, a volume that was just found may not be there.
        """
        deadline = time.monotonic() + _MAKING_S
        while True:
            stream = self._conn.newStream()
            try:
                begin(stream)
            except libvirt.libvirtError as error:
                if error.get_error_code() not in _PASSING or time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY_S)
            else:
                return stream


def pool_name(owner: str) -> str:
    """Return the name of an owner's pool."""
    return f"edgewake-{owner}"


def pool_uuid(owner: str) -> str:
    """Return the UUID that marks a storage pool as made by `owner`."""
    digest = hashlib.sha256(f"edgewake pool {owner}".encode()).digest()
    return str(UUID(bytes=digest[:16], version=5))


def pool_xml(owner: str, folder: Path) -> str:
    """Return the XML of an owner's pool (libvirt's formatstorage)."""
    root = ET.Element("pool", type="dir")
    ET.SubElement(root, "name").text = pool_name(owner)
    ET.SubElement(root, "uuid").text = pool_uuid(owner)
    target = ET.SubElement(root, "target")
    ET.SubElement(target, "path").text = str(folder)
    ET.SubElement(ET.SubElement(target, "permissions"), "mode").text = _FOLDER_MODE
    return ET.tostring(root, encoding="unicode")


def folder_pool(conn: libvirt.virConnect, name: str, folder: str) -> libvirt.virStoragePool:
    """Return a pool on a folder that the host has anyway, as it is now.

    Anybody's will do; else one of that name is made: transient, and kept for the next time.
    """
    with suppress(libvirt.libvirtError):
        pool = conn.storagePoolLookupByTargetPath(folder)
        pool.refresh()
        return pool
    root = ET.Element("pool", type="dir")
    ET.SubElement(root, "name").text = name
    ET.SubElement(root, "uuid").text = pool_uuid(name)
    ET.SubElement(ET.SubElement(root, "target"), "path").text = folder
    return conn.storagePoolCreateXML(ET.tostring(root, encoding="unicode"))


def qemu_user(capabilities: str) -> tuple[int, int] | None:
    """Return the user and group id that guests run as, from a host's capabilities.

    None if libvirt does not change the user: in a session, or on Xen.
    """
    for model in _parsed(capabilities).iterfind("host/secmodel[model='dac']"):
        for label in model.findall("baselabel"):
            user, _, group = (label.text or "").replace("+", "").partition(":")
            if user.isdecimal() and group.isdecimal():
                return int(user), int(group)
    return None


def files_of(domain_xml: str) -> frozenset[Path]:
    """Return all files of its host that a domain names: kernel, disks and what they lean on."""
    root = _parsed(domain_xml)
    paths = {element.get("file") for element in root.iter("source")}
    paths |= {root.findtext(f"os/{tag}") for tag in ("kernel", "initrd")}
    return frozenset(Path(path) for path in paths if path)


def _volume_xml(name: str, mode: str, user: tuple[int, int] | None) -> str:
    """Return the XML of an empty file; it grows as it is written."""
    root = ET.Element("volume")
    ET.SubElement(root, "name").text = name
    ET.SubElement(root, "capacity").text = "0"
    target = ET.SubElement(root, "target")
    ET.SubElement(target, "format", type="raw")
    permissions = ET.SubElement(target, "permissions")
    ET.SubElement(permissions, "mode").text = mode
    if user is not None:
        ET.SubElement(permissions, "owner").text = str(user[0])
        ET.SubElement(permissions, "group").text = str(user[1])
    return ET.tostring(root, encoding="unicode")


def _volume(pool: libvirt.virStoragePool, name: str) -> libvirt.virStorageVol | None:
    return _or_none(lambda: pool.storageVolLookupByName(name))


def _stored(volume: libvirt.virStorageVol) -> Stored | None:
    """Return a file as it is now: libvirt looks at it for each answer."""
    xml = _or_none(volume.XMLDesc)
    if xml is None:  # it was removed a moment ago
        return None
    root = _parsed(xml)
    changed_at = root.findtext("target/timestamps/mtime") or "0"
    return Stored(volume.name(), int(root.findtext("physical") or 0), float(changed_at))


def _refresh(pool: libvirt.virStoragePool) -> None:
    """Let libvirt look at the folder again; refused, for a moment, while a volume is being made."""
    with suppress(libvirt.libvirtError):
        pool.refresh()


def _zeros(count: int) -> Iterator[bytes]:
    piece = bytes(PIECE)
    for begin in range(0, count, PIECE):
        yield piece[: count - begin]


def _send_all(stream: libvirt.virStream, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[stream.send(bytes(rest)) :]


def _or_none(ask: Callable[[], T]) -> T | None:
    """Return libvirt's answer, or None when it says that there is no such thing."""
    try:
        return ask()
    except libvirt.libvirtError as error:
        if error.get_error_code() in {
            libvirt.VIR_ERR_NO_STORAGE_POOL,
            libvirt.VIR_ERR_NO_STORAGE_VOL,
            libvirt.VIR_ERR_NO_SUPPORT,  # this libvirt has no storage driver
        }:
            return None
        raise


def _parsed(xml: str) -> ET.Element:
    return ET.fromstring(xml)  # noqa: S314 - written by libvirt, without a document type
