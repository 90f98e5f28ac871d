"""Cuts the root of a small dom0 out of unpacked Debian packages, as entries of one cpio archive.

`WANTED` names the programs and data; the libraries they need and the kernel modules others need
follow from the files themselves. What is ours (process 1, configuration, a fast vif script) lies in
`dom0/`, as it lies in the root. Which packages there are is the business of
`tests.xenbed.packages`, what differs between two beds that of `tests.xenbed.personality`.
"""

import posixpath
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from images.build import cpio
from images.build.linux_microvm import without_signature, without_type_info
from tests.xenbed.elf import needed_libraries
from tests.xenbed.errors import BedError

XEN_BIN = "/usr/lib/xen-4.17/bin"
LIBRARIES = "/usr/lib/x86_64-linux-gnu"
OURS = Path(__file__).parent / "dom0"

WANTED = (
    *(f"/usr/sbin/{name}" for name in ("libvirtd", "virtlogd", "sshd", "ip", "bridge", "tc")),
    *(f"/usr/sbin/{name}" for name in ("xl", "xtables-nft-multi")),
    *(f"/usr/bin/{name}" for name in ("busybox", "bash", "virsh", "virt-ssh-helper", "xenstore*")),
    "/usr/lib/openssh/sftp-server",
    "/usr/lib/libvirt/libvirt_iohelper",
    *(f"{LIBRARIES}/libvirt/connection-driver/libvirt_driver_{name}.so"
      for name in ("libxl", "network", "storage")),
    f"{LIBRARIES}/libvirt/storage-backend/libvirt_storage_backend_fs.so",
    f"{LIBRARIES}/libvirt/storage-file/libvirt_storage_file_fs.so",
    f"{LIBRARIES}/xtables/*",
    *(f"{XEN_BIN}/{name}" for name in (
        "xl", "xenstored", "xenconsoled", "xenconsole", "xen-init-dom0", "libxl-save-helper")),
    "/usr/lib/xen-common/bin/*",
    "/etc/xen/scripts/*",
    "/etc/xen/xl.conf",
    "/usr/share/libvirt/cpu_map/*",
    "/usr/share/libvirt/schemas/*",
    "/usr/lib64/ld-linux-x86-64.so.2",
)  # fmt: skip

MODULES = (
    *("xen-evtchn", "xen-gntdev", "xen-gntalloc", "xen-privcmd", "xenfs", "xen-netback"),
    *("xen-blkback", "virtio_pci", "virtio_net", "virtio_blk", "ext4", "crc32c_generic", "loop"),
    *("bridge", "tun", "veth", "br_netfilter", "nf_tables", "nft_compat", "nft_chain_nat"),
    *("xt_MASQUERADE", "xt_conntrack", "xt_tcpudp", "xt_physdev", "xt_CHECKSUM"),
)

_FOLDERS = (
    *("proc", "sys", "dev", "run", "tmp", "srv", "mnt", "root", "etc", "var"),
    *("var/lib", "var/cache", "var/empty", "var/log"),
    *("var/lib/xen", "var/lib/libvirt", "var/cache/libvirt", "var/lib/xenstored"),
)
_LINKS = {
    "bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64",
    "var/run": "../run", "var/lock": "../run/lock", "etc/mtab": "../proc/self/mounts",
    "usr/sbin/iptables": "xtables-nft-multi", "usr/sbin/ip6tables": "xtables-nft-multi",
    "etc/libvirt/qemu/networks/autostart/xenbr0.xml": "../xenbr0.xml",
    "etc/libvirt/storage/autostart/images.xml": "../images.xml",
}  # fmt: skip
_MERGED = re.compile(r"^/(bin|sbin|lib|lib64)/")
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")

# QEMU's TCG has no VME, and Xen hides SEP from guests of an AMD processor: no CPU model of libvirt
# then fits, and its libxl driver refuses to load.
_EDITED = {
    f"/usr/share/libvirt/cpu_map/{model}.xml": re.compile(rb"^.*name='sep'.*\n", re.MULTILINE)
    for model in ("x86_qemu64", "x86_kvm64")
}


def entries(tree: Path) -> Iterator[cpio.Entry]:
    """Yield the archive's entries from packages that are unpacked in `tree`.

    Raises `BedError` if something that is wanted is not there.
    """
    found = {entry.path: entry for entry in _collect(tree)}
    yield from with_folders(found.values())


def kernel_version(tree: Path) -> str:
    """Return the version of the one kernel in `tree`. Raises `BedError`."""
    versions = [path.name for path in (tree / "lib/modules").glob("*")]
    if len(versions) != 1:
        raise BedError(f"one kernel was expected among the packages, not {versions}")
    return versions[0]


def with_folders(files: Iterable[cpio.Entry]) -> Iterator[cpio.Entry]:
    """Yield entries sorted by path, with the directories that they lie in and that are missing."""
    by_path = {entry.path: entry for entry in files}
    for path in tuple(by_path):
        for parent in map(str, Path(path).parents[:-1]):
            by_path.setdefault(parent, cpio.directory(parent))
    yield from (by_path[path] for path in sorted(by_path))


def _collect(tree: Path) -> Iterator[cpio.Entry]:
    yield from map(cpio.directory, _FOLDERS)
    yield cpio.Entry("root", stat.S_IFDIR | 0o700)
    yield cpio.character_device("dev/console", 5, 1, 0o600)
    yield cpio.character_device("dev/null", 1, 3)
    yield from (_link(path, target) for path, target in _LINKS.items())
    yield from _Cut(tree).entries()
    yield from _modules(tree)
    for file in sorted(path for path in OURS.rglob("*") if path.is_file()):
        executable = bool(file.stat().st_mode & stat.S_IXUSR)
        yield cpio.file(str(file.relative_to(OURS)), file.read_bytes(), executable=executable)


def _link(path: str, target: str) -> cpio.Entry:
    return cpio.Entry(path, stat.S_IFLNK | 0o777, target.encode())


class _Cut:
    """Collects the wanted files of a tree and all that they need, each once."""

    def __init__(self, tree: Path) -> None:
        self._tree = tree
        self._seen: dict[str, cpio.Entry] = {}

    def entries(self) -> Iterable[cpio.Entry]:
        for pattern in WANTED:
            paths = sorted(self._tree.glob(pattern.lstrip("/")))
            if not paths:
                raise BedError(f"the packages have no {pattern}")
            for path in paths:
                self._take("/" + str(path.relative_to(self._tree)))
        return self._seen.values()

    def _take(self, path: str) -> None:
        path = _MERGED.sub(r"/usr/\1/", path)
        name, source = path.lstrip("/"), self._tree / path.lstrip("/")
        if name in self._seen or (source.is_dir() and not source.is_symlink()):
            return
        if source.is_symlink():
            target = str(source.readlink())
            self._seen[name] = _link(name, target)
            self._take(posixpath.normpath(posixpath.join(posixpath.dirname(path), target)))
            return
        data = self._edited(path, source.read_bytes())
        self._seen[name] = cpio.file(name, data, executable=bool(source.stat().st_mode & 0o100))
        for library in needed_libraries(data):
            self._take(self._library(library, path))

    def _library(self, name: str, user: str) -> str:
        for folder in (LIBRARIES, posixpath.dirname(user), f"{LIBRARIES}/libvirt", "/usr/lib64"):
            path = f"{folder}/{name}"
            if (self._tree / path.lstrip("/")).is_symlink() or (self._tree / path[1:]).exists():
                return path
        raise BedError(f"{user} needs {name}, and none of the packages has it; see LEFT_OUT")

    def _edited(self, path: str, data: bytes) -> bytes:
        if path not in _EDITED:
            return data
        edited, times = _EDITED[path].subn(b"", data)
        if not times:
            raise BedError(f"{path}: does not name the CPU feature sep any more; see _EDITED")
        return edited


def _modules(tree: Path) -> Iterator[cpio.Entry]:
    """Yield the wanted kernel modules, those they need, and the index that modprobe reads."""
    home = Path("lib/modules") / kernel_version(tree)
    files = {_module_name(path.stem): path for path in (tree / home).rglob("*.ko")}
    builtin = {
        _module_name(Path(line).stem)
        for line in (tree / home / "modules.builtin").read_text().splitlines()
    }
    taken: dict[str, tuple[str, ...]] = {}
    todo = [_module_name(name) for name in MODULES]
    while todo:
        name = todo.pop()
        if name in taken or name in builtin:
            continue
        if name not in files:
            raise BedError(f"the kernel has no module {name}")
        data = files[name].read_bytes()
        yield cpio.file(f"usr/{home}/{name}.ko", without_type_info(without_signature(data)))
        taken[name] = tuple(each for each in module_needs(data) if each not in builtin)
        todo += taken[name]
    index = "".join(
        f"{name}.ko:{''.join(f' {need}.ko' for need in closure(name, taken))}\n" for name in taken
    )
    yield cpio.file(f"usr/{home}/modules.dep", index.encode())


def module_needs(module: bytes) -> tuple[str, ...]:
    """Return the modules that a kernel module names as its needs (its ``.modinfo`` section)."""
    match = _DEPENDS.search(module)
    return (
        tuple(_module_name(each) for each in match[1].decode().split(",") if each) if match else ()
    )


def closure(name: str, needs: dict[str, tuple[str, ...]]) -> list[str]:
    """Return all that `name` needs, indirectly too, the last to be loaded first (depmod(8))."""
    order: list[str] = []
    for need in needs[name]:
        for each in (need, *closure(need, needs)):
            if each in order:
                order.remove(each)
            order.append(each)
    return order


def _module_name(name: str) -> str:
    return name.replace("-", "_")
