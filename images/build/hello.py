"""Makes the sample unikernel of family `hello` from its sources in `images/hello`, with gcc.

One file comes out, ``kernel``: a 32-bit ELF that QEMU boots by multiboot and Xen by PVH. The
recipe needs no root, no network, no header and no library; the same sources and the same gcc give
the same bytes.
How it is booted is the business of `images.families.hello`; docs/hello.md describes it.

    python -m images.build.hello DIRECTORY
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from images.build.files import replace
from images.errors import BuildFailed

KERNEL_NAME = "kernel"
STAMP_NAME = "built-from"

_COMPILER = "gcc"
_LINKER_SCRIPT = "link.ld"
_COMPILED = (".c", ".S")
_READ = (*_COMPILED, ".h", ".ld")
_WORKERS = len(os.sched_getaffinity(0))
_TIMEOUT_S = 60  # it takes one; but this machine may be very busy

# 32-bit code that asks nothing of an operating system, a C library or the processor's vector units.
_COMPILE = (
    *("-m32", "-march=i686", "-std=gnu11", "-Os", "-Wall", "-Wextra", "-pipe"),
    *("-ffreestanding", "-fno-pie", "-fno-stack-protector", "-fno-asynchronous-unwind-tables"),
    *("-mno-sse", "-mno-mmx", "-fcf-protection=none"),
)
_LINK = (
    *("-m32", "-nostdlib", "-static", "-no-pie", "-s"),
    *(f"-Wl,-T,{_LINKER_SCRIPT}", "-Wl,--build-id=none", "-Wl,-n"),  # -n: no padding to pages
)

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Built:
    """The image. `rebuilt` is False when it was there from the same sources.

    `warnings` is what gcc had to say about sources it nevertheless compiled.
    """

    kernel: Path
    rebuilt: bool
    warnings: str = ""


def build(out: Path, *, progress: Progress = lambda _: None) -> Built:
    """Make the image in directory `out`, unless it is there already from the same sources.

    Raises `BuildFailed` with gcc's own words when it fails, or says what to install when it is
    missing; an image made earlier is then as it was.
    """
    sources = _read_sources()
    kernel, stamp = out / KERNEL_NAME, out / STAMP_NAME
    if _is_current(sources, kernel, stamp):
        return Built(kernel, rebuilt=False)
    progress(f"compiling {len(_named(sources, _COMPILED))} files")
    image, warnings = _compile(sources)
    try:
        out.mkdir(mode=0o755, parents=True, exist_ok=True)
        stamp.unlink(missing_ok=True)
        replace(kernel, image)
        replace(stamp, _stamp(sources, image).encode())
    except OSError as error:
        raise BuildFailed(f"{out}: cannot be written: {error.strerror}") from error
    return Built(kernel, rebuilt=True, warnings=warnings)


def _read_sources() -> dict[str, bytes]:
    folder = resources.files("images").joinpath("hello")
    try:
        files = sorted(folder.iterdir(), key=lambda file: file.name)
        return {file.name: file.read_bytes() for file in files if file.name.endswith(_READ)}
    except OSError as error:
        raise BuildFailed(
            f"{folder}: {error.strerror}; the sources of the sample unikernel belong to edgewake, "
            "install it again"
        ) from error


def _named(sources: dict[str, bytes], endings: tuple[str, ...]) -> list[str]:
    return [name for name in sources if name.endswith(endings)]


def _compile(sources: dict[str, bytes]) -> tuple[bytes, str]:
    """Return the image and gcc's warnings.

    The sources are compiled in a copy, so that they may lie in an archive or be edited meanwhile;
    one gcc for each processor, since each takes its files one after another.
    """
    with tempfile.TemporaryDirectory(prefix="edgewake-hello-") as name:
        folder = Path(name)
        for file, data in sources.items():
            (folder / file).write_bytes(data)
        files = _named(sources, _COMPILED)
        shares = [share for n in range(_WORKERS) if (share := files[n::_WORKERS])]
        with ThreadPoolExecutor(_WORKERS) as workers:
            said = list(workers.map(lambda share: _gcc(folder, (*_COMPILE, "-c", *share)), shares))
        objects = [f"{Path(file).stem}.o" for file in files]
        said.append(_gcc(folder, (*_LINK, "-o", KERNEL_NAME, *objects)))
        return (folder / KERNEL_NAME).read_bytes(), "".join(said)


def _gcc(folder: Path, arguments: Sequence[str]) -> str:
    """Run gcc in `folder` and return what it said; variables such as CPATH have no say."""
    env = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    try:
        done = subprocess.run(
            [_COMPILER, *arguments],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise BuildFailed(
            f"{_COMPILER} is not installed; install the Debian packages gcc and binutils"
        ) from error
    except OSError as error:
        raise BuildFailed(f"{_COMPILER} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise BuildFailed(f"{_COMPILER} did not finish within {_TIMEOUT_S} s") from error
    text = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        raise BuildFailed(f"{_COMPILER} cannot compile images/hello:\n{text.strip()}")
    return text


def _stamp(sources: dict[str, bytes], image: bytes) -> str:
    digest = hashlib.sha256(repr((_COMPILE, _LINK)).encode())
    for name, data in sources.items():
        digest.update(f"\n{name} {len(data)}\n".encode())
        digest.update(data)
    return f"{digest.hexdigest()}  sources\n{hashlib.sha256(image).hexdigest()}  {KERNEL_NAME}\n"


def _is_current(sources: dict[str, bytes], kernel: Path, stamp: Path) -> bool:
    """Return whether the image is there, whole, and made from these sources."""
    try:
        return stamp.read_text() == _stamp(sources, kernel.read_bytes())
    except (OSError, UnicodeDecodeError):
        return False


def main(arguments: list[str]) -> int:
    """Build into the directory named on the command line; return the exit code."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.stderr.write("usage: python -m images.build.hello DIRECTORY\n")
        return 2
    try:
        built = build(Path(arguments[0]))
    except BuildFailed as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stderr.write(built.warnings)
    done = "made" if built.rebuilt else "up to date"
    sys.stdout.write(f"{built.kernel}: {done} ({built.kernel.stat().st_size} bytes)\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
