"""Third-party files for tests of `images`: what Debian packages ship, unpacked, not installed."""

import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

SHARED = Path("/var/lib/edgewake/specimens")
TIMEOUT_S = 100

DebianFile = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def debian_file() -> DebianFile:
    """Return a function from a package and a path in it to that file on this machine."""

    def find(package: str, path: str) -> Path:
        installed = Path("/", path)
        return installed if installed.is_file() else _unpacked(package) / path

    return find


def _unpacked(package: str) -> Path:
    """Return a directory with the contents of a package, downloaded if it is not there yet."""
    cache = _cache()
    target = cache / package
    if target.is_dir():
        return target
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".{package}-") as directory:
        archives, contents = Path(directory, "archives"), Path(directory, "contents")
        archives.mkdir()
        _run(["apt-get", "download", "-q", package], archives, package, target)
        (archive,) = archives.glob("*.deb")
        _run(["dpkg-deb", "-x", str(archive), str(contents)], archives, package, target)
        contents.chmod(0o755)
        contents.rename(target)
    return target


def _cache() -> Path:
    """Return where packages are kept from one run to the next."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = SHARED if os.access(SHARED.parent, os.W_OK) else home / "edgewake" / "specimens"
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def _run(command: list[str], directory: Path, package: str, target: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=directory, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        failure = done.stderr.strip() if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        failure = str(error)
    if failure:
        pytest.fail(
            f"cannot get the Debian package {package} ({failure}): run 'apt-get update' as root "
            f"and try again, or unpack the package yourself: dpkg-deb -x {package}_*.deb {target}",
            pytrace=False,
        )
