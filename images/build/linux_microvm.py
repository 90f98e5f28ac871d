"""Makes the sample image of family `linux` on this machine: a stock Debian kernel and one page.

`build` takes Debian's cloud kernel (package linux-image-cloud-amd64), the modules that go with it
for cards of QEMU's and of Xen's, and busybox-static, adds the scripts in `guest/`, and writes two
files that many guests can share: ``kernel`` and ``initrd``. It needs no root and no network. How
they are booted is the business of `images.families.linux`.

    python -m images.build.linux_microvm DIRECTORY
"""

import gzip
import hashlib
import lzma
import re
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from images.build import cpio
from images.build.files import replace
from images.build.vmlinux import NotUnpacked, unpack
from images.errors import BuildFailed
from images.facts import Entry
from images.inspect import inspect

KERNEL_NAME = "kernel"
INITRD_NAME = "initrd"
STAMP_NAME = "built-from"

# Where a cloud kernel may be: installed, or only unpacked there by scripts/setup.sh, which leaves
# alone what this machine itself boots.
_ROOTS = (Path("/"), Path("/var/lib/edgewake/kernel"))
_BUSYBOX = Path("/bin/busybox")
_WANTED_MODULES = ("virtio_pci", "virtio_net", "xen_netfront")
_KERNEL_PACKAGE = "linux-image-cloud-amd64"
_BUSYBOX_PACKAGE = "busybox-static"
_SIGNATURE_MAGIC = b"~Module signature appended~\n"  # Linux kernel/module_signature.c
_SIGNATURE_INFO = struct.Struct(">8xI")  # struct module_signature: 8 bytes, then sig_len
_RECIPE = ("linux_microvm.py", "vmlinux.py", "cpio.py")
_SCRIPTS = ("init", "index.cgi", "end.cgi")

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Built:
    """The files of the image. `rebuilt` is False when they were there from the same inputs.

    `unpacked` says whether the kernel could be unpacked beforehand, which makes it boot faster.
    """

    kernel: Path
    initrd: Path
    version: str
    rebuilt: bool
    unpacked: bool


@dataclass(frozen=True, slots=True)
class _Inputs:
    version: str
    kernel: bytes
    modules: tuple[tuple[str, bytes], ...]  # in an order in which they can be loaded
    depends: tuple[tuple[str, tuple[str, ...]], ...]
    busybox: bytes
    scripts: tuple[tuple[str, bytes], ...]

    def digest(self) -> str:
        """Return a digest of everything that decides what is built, this recipe included."""
        here = resources.files(__package__)
        recipe = [(name, here.joinpath(name).read_bytes()) for name in _RECIPE]
        named = [("kernel", self.kernel), ("busybox", self.busybox), *self.modules, *self.scripts]
        digest = hashlib.sha256(self.version.encode())
        for name, data in (*named, *recipe):
            digest.update(f"\n{name} {len(data)}\n".encode())
            digest.update(data)
        return digest.hexdigest()


def build(
    out: Path,
    *,
    kernel: Path | None = None,
    modules: Path | None = None,
    busybox: Path | None = None,
    progress: Progress = lambda _: None,
) -> Built:
    """Make the image in directory `out`, unless it is there already from the same inputs.

    `kernel` is a bzImage (default: the newest cloud kernel in /boot), `modules` the directory of
    its ``modules.dep`` (default: the one of that kernel's version in /lib/modules), `busybox` a
    static busybox. Raises `BuildFailed` and says which Debian package is missing; files of an
    earlier build are then as they were.
    """
    inputs = _read_inputs(kernel, modules, busybox)
    kernel_out, initrd_out, stamp = out / KERNEL_NAME, out / INITRD_NAME, out / STAMP_NAME
    rebuilt = not _is_current(inputs, kernel_out, initrd_out, stamp)
    if rebuilt:
        progress(f"unpacking Linux {inputs.version}")
        kernel_bytes = _bootable(inputs.kernel, progress)
        progress("writing the initial file system")
        initrd_bytes = cpio.archive(_entries(inputs))
        try:
            out.mkdir(mode=0o755, parents=True, exist_ok=True)
            stamp.unlink(missing_ok=True)
            replace(kernel_out, kernel_bytes)
            replace(initrd_out, initrd_bytes)
            replace(stamp, _stamp(inputs, kernel_bytes, initrd_bytes).encode())
        except OSError as error:
            raise BuildFailed(f"{out}: cannot be written: {error.strerror}") from error
    return Built(
        kernel=kernel_out,
        initrd=initrd_out,
        version=inputs.version,
        rebuilt=rebuilt,
        unpacked=Entry.PVH in inspect(kernel_out).entries,
    )


def newest_kernel(roots: Sequence[Path] = _ROOTS) -> Path:
    """Return the newest cloud kernel below `roots`; raises `BuildFailed` if there is none."""
    pattern = "boot/vmlinuz-*-cloud-amd64"
    found = sorted((file for root in roots for file in root.glob(pattern)), key=_version_key)
    if not found:
        places = " or ".join(str(root / pattern) for root in roots)
        raise BuildFailed(
            f"no kernel {places}; run 'make setup' or install the Debian package {_KERNEL_PACKAGE}"
        )
    return found[-1]


def without_signature(module: bytes) -> bytes:
    """Return a kernel module without its signature.

    Checking a signature is an RSA operation for every module at every boot; who could change the
    module inside the image could change the kernel beside it as well.
    """
    end = len(module) - len(_SIGNATURE_MAGIC)
    if not module.endswith(_SIGNATURE_MAGIC) or end < _SIGNATURE_INFO.size:
        return module
    (length,) = _SIGNATURE_INFO.unpack_from(module, end - _SIGNATURE_INFO.size)
    size = end - _SIGNATURE_INFO.size - length
    return module[:size] if size > 0 else module


def without_type_info(module: bytes) -> bytes:
    """Return a kernel module whose BTF section has another name.

    The kernel parses that section of every module it loads, for eBPF, which the guest never uses.
    """
    name = b"\0.BTF\0"
    return module.replace(name, b"\0.btf\0") if module.count(name) == 1 else module


def _version_key(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdigit() else (0, part) for part in parts]


def _read_inputs(kernel: Path | None, modules: Path | None, busybox: Path | None) -> _Inputs:
    kernel = kernel or newest_kernel()
    version = kernel.name.removeprefix("vmlinuz-")
    modules = modules or kernel.parents[1] / "lib" / "modules" / version
    order, depends = _modules_in_order(modules)
    busybox_bytes = _read(busybox or _BUSYBOX, _BUSYBOX_PACKAGE)
    if not _is_static(busybox_bytes):
        raise BuildFailed(
            f"{busybox or _BUSYBOX}: not a static program; "
            f"install the Debian package {_BUSYBOX_PACKAGE}"
        )
    scripts = resources.files(__package__).joinpath("guest")
    return _Inputs(
        version=version,
        kernel=_read(kernel, _KERNEL_PACKAGE),
        modules=tuple((name, _module(path)) for name, path in order),
        depends=depends,
        busybox=busybox_bytes,
        scripts=tuple((name, scripts.joinpath(name).read_bytes()) for name in _SCRIPTS),
    )


def _modules_in_order(
    modules: Path,
) -> tuple[list[tuple[str, Path]], tuple[tuple[str, tuple[str, ...]], ...]]:
    """Return the modules the guest loads, each after those it needs, and what each needs.

    ``modules.dep`` lists for each module all it depends on, indirectly too, the last to be loaded
    first (depmod(8)). A driver built into the kernel is in ``modules.builtin`` instead.
    """
    dep_file = modules / "modules.dep"
    lines = _read(dep_file, _KERNEL_PACKAGE).decode(errors="replace").splitlines()
    paths = {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}
    by_name = {_module_name(path): path for path in paths}
    chosen: dict[str, Path] = {}
    needs: dict[str, tuple[str, ...]] = {}
    for wanted in _WANTED_MODULES:
        if wanted not in by_name:
            _must_be_builtin(modules, wanted)
            continue
        for path in (*reversed(paths[by_name[wanted]]), by_name[wanted]):
            chosen.setdefault(_module_name(path), modules / path)
            needs[_module_name(path)] = tuple(_module_name(need) for need in paths.get(path, []))
    return list(chosen.items()), tuple(needs.items())


def _must_be_builtin(modules: Path, wanted: str) -> None:
    builtin = _read(modules / "modules.builtin", _KERNEL_PACKAGE).decode(errors="replace")
    if wanted not in {_module_name(line) for line in builtin.splitlines()}:
        raise BuildFailed(
            f"{modules}: no module {wanted}; install the Debian package {_KERNEL_PACKAGE}"
        )


def _module_name(path: str) -> str:
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def _module(path: Path) -> bytes:
    data = _read(path, _KERNEL_PACKAGE)
    try:
        if path.suffix == ".xz":
            data = lzma.decompress(data)
        elif path.suffix == ".gz":
            data = gzip.decompress(data)
    except (lzma.LZMAError, OSError, EOFError) as error:
        raise BuildFailed(f"{path}: damaged: {error}") from error
    if not data.startswith(b"\x7fELF"):
        raise BuildFailed(f"{path}: not a kernel module, or compressed in an unknown way")
    return without_type_info(without_signature(data))


def _read(path: Path, package: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BuildFailed(
            f"{path}: {error.strerror}; install the Debian package {package}, "
            "or run as a user who may read the file"
        ) from error


def _is_static(program: bytes) -> bool:
    """Return whether an ELF64 program names no interpreter (a PT_INTERP program header)."""
    if program[:5] != b"\x7fELF\x02" or len(program) < 64:
        return False
    (table,) = struct.unpack_from("<Q", program, 32)
    size, count = struct.unpack_from("<HH", program, 54)
    headers = (program[table + n * size : table + n * size + 4] for n in range(count))
    return all(int.from_bytes(header, "little") != 3 for header in headers)


def _bootable(kernel: bytes, progress: Progress) -> bytes:
    """Return the kernel as it boots fastest: unpacked, or else the bzImage it came as."""
    try:
        unpacked = unpack(kernel)
    except NotUnpacked as why:
        progress(f"the kernel stays packed and boots slower: {why}")
        return kernel
    return unpacked


def _entries(inputs: _Inputs) -> Iterator[cpio.Entry]:
    scripts = dict(inputs.scripts)
    home = f"lib/modules/{inputs.version}"
    folders = ["bin", "dev", "proc", "lib", "lib/modules", home, "www", "www/cgi-bin"]
    yield from map(cpio.directory, folders)
    yield cpio.character_device("dev/console", 5, 1, 0o600)
    yield cpio.character_device("dev/null", 1, 3)
    yield cpio.file("bin/busybox", inputs.busybox, executable=True)
    yield cpio.file("init", scripts["init"], executable=True)
    for name, data in inputs.modules:
        yield cpio.file(f"{home}/{name}.ko", data)
    yield cpio.file(f"{home}/modules.dep", _modules_dep(inputs).encode())
    yield cpio.file("www/healthz", b"ok\n")
    yield cpio.file("www/cgi-bin/index.cgi", scripts["index.cgi"], executable=True)
    for name in ("poweroff", "crash"):
        yield cpio.file(f"www/cgi-bin/{name}", scripts["end.cgi"], executable=True)


def _modules_dep(inputs: _Inputs) -> str:
    return "".join(
        f"{name}.ko: {' '.join(f'{need}.ko' for need in needs)}".rstrip() + "\n"
        for name, needs in inputs.depends
    )


def _stamp(inputs: _Inputs, kernel: bytes, initrd: bytes) -> str:
    made = "\n".join(
        f"{hashlib.sha256(data).hexdigest()}  {name}"
        for name, data in ((KERNEL_NAME, kernel), (INITRD_NAME, initrd))
    )
    return f"{inputs.digest()}  inputs\n{made}\n"


def _is_current(inputs: _Inputs, kernel: Path, initrd: Path, stamp: Path) -> bool:
    """Return whether the files are there, whole, and made from these inputs."""
    try:
        return stamp.read_text() == _stamp(inputs, kernel.read_bytes(), initrd.read_bytes())
    except (OSError, UnicodeDecodeError):
        return False


def main(arguments: list[str]) -> int:
    """Build into the directory named on the command line; return the exit code."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.stderr.write("usage: python -m images.build.linux_microvm DIRECTORY\n")
        return 2
    try:
        built = build(Path(arguments[0]), progress=lambda text: print_line(f"{text} ..."))
    except BuildFailed as error:
        sys.stderr.write(f"{error}\n")
        return 1
    done = "made" if built.rebuilt else "up to date"
    print_line(f"{built.kernel} and {built.initrd}: {done} (Linux {built.version})")
    return 0


def print_line(text: str) -> None:
    """Write a line to standard output at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
