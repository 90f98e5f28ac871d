"""Which Debian packages the bed is made of; fetches and unpacks them, and installs nothing.

apt itself answers what the packages of `ROOTS` need: it is shown a machine on which nothing is
installed. Its package lists are kept in the bed's own cache, so that neither root nor the state of
this machine matters, and so that the versions (and with them what is built) change only when asked.
What becomes of the files is the business of `tests.xenbed.rootfs`.
"""

import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from tests.xenbed.errors import BedError

ROOTS = (
    "linux-image-amd64",  # the cloud kernel cannot be a dom0 (CONFIG_XEN_DOM0)
    "xen-hypervisor-4.17-amd64",
    "xen-utils-4.17",
    "libvirt-daemon",
    "libvirt-daemon-driver-xen",
    "libvirt-clients",
    "openssh-server",
    "iproute2",
    "iptables",
    "busybox",
    "bash",  # Xen's own vif scripts are written in it
)

# What these packages need when they are installed or administered, and not when they run.
LEFT_OUT = re.compile(
    r"(lib)?(perl|python3|gdbm|text-glob|number-compare|file-find).*"
    r"|libvirt-daemon-driver-qemu|linux-image-amd64|linux-base|initramfs-tools.*|klibc.*|libklibc"
    r"|adduser|passwd|debconf|dpkg|tar|ucf|sensible-utils|usrmerge|udev|dmsetup|logsave|cpio"
    r"|init-system-helpers|runit-helper|dmidecode|procps|libproc2-0|debianutils|gcc-12-base"
    r"|libpam-.*|libsemanage.*|libsepol2|media-types|openssh-client"
)

_URI = re.compile(r"^'[^']+' (\S+)_(\S+)_(\S+)\.deb (\d+)")


@dataclass(frozen=True, slots=True)
class Package:
    """A Debian package in one version; `size` is that of its file, in bytes."""

    name: str
    version: str
    size: int


def parse_uris(text: str) -> tuple[Package, ...]:
    """Return the packages that ``apt-get install --print-uris`` names, by name."""
    found = [match for line in text.splitlines() if (match := _URI.match(line))]
    packages = (Package(each[1], unquote(each[2]), int(each[4])) for each in found)
    return tuple(sorted(packages, key=lambda each: each.name))


def needed(packages: Iterable[Package]) -> tuple[Package, ...]:
    """Return the packages without those that serve only their own installation."""
    return tuple(each for each in packages if not LEFT_OUT.fullmatch(each.name))


def digest(packages: Iterable[Package]) -> str:
    """Return what stands for these packages in these versions."""
    text = "".join(f"{each.name} {each.version}\n" for each in packages)
    return hashlib.sha256(text.encode()).hexdigest()


class Archive:
    """apt with lists and a store of its own in `folder`; nothing else may use it meanwhile."""

    def __init__(self, folder: Path) -> None:
        self._lists = folder / "lists"
        self._store = folder / "debs"
        self._status = folder / "nothing-installed"

    def update(self) -> None:
        """Fetch the package lists anew. Raises `BedError`."""
        self._prepare()
        self._apt("update")

    def resolve(self) -> tuple[Package, ...]:
        """Return the packages of the bed; fetches lists if there are none. Raises `BedError`."""
        if not any(self._lists.glob("*_Packages*")):
            self.update()
        self._prepare()
        listed = self._apt("install", "--no-install-recommends", "--print-uris", *ROOTS)
        packages = needed(parse_uris(listed))
        if not packages:
            raise BedError(f"apt-get named no package; it said: {listed.strip() or 'nothing'}")
        return packages

    def fetch(self, packages: Sequence[Package]) -> int:
        """Have all packages in the store, and no others; return how many bytes were fetched.

        Raises `BedError` when one cannot be had, as an old version that the mirror dropped.
        """
        self._store.mkdir(parents=True, exist_ok=True)
        missing = [each for each in packages if not self._file(each).exists()]
        if missing:
            with tempfile.TemporaryDirectory(dir=self._store) as new:
                self._apt("download", *(f"{p.name}={p.version}" for p in missing), cwd=Path(new))
                for file in Path(new).glob("*.deb"):
                    name, version, _ = file.stem.split("_")
                    file.rename(self._file(Package(name, unquote(version), 0)))
        wanted = {self._file(each) for each in packages}
        for file in set(self._store.glob("*.deb")) - wanted:
            file.unlink()
        return sum(each.size for each in missing)

    def unpack(self, packages: Iterable[Package], into: Path) -> None:
        """Unpack packages of the store below `into`, with /usr merged, which must not exist.

        dpkg-deb's own extraction would replace the links of a merged /usr; tar is told not to.
        """
        for name in ("bin", "sbin", "lib", "lib64"):
            (into / "usr" / name).mkdir(parents=True)
            (into / name).symlink_to(f"usr/{name}")
        for package in packages:
            self._unpack_one(self._file(package), into)

    def _unpack_one(self, deb: Path, into: Path) -> None:
        tar = ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", str(into)]
        tar += ["--exclude=./usr/share/doc", "--exclude=./usr/share/man"]
        with subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE
        ) as opened:
            done = subprocess.run(tar, stdin=opened.stdout, stderr=subprocess.PIPE, check=False)
        if done.returncode or opened.returncode:
            deb.unlink()
            said = done.stderr.decode(errors="replace").strip()
            raise BedError(f"{deb.name} cannot be unpacked ({said}); it is fetched anew next time")

    def _file(self, package: Package) -> Path:
        return self._store / f"{package.name}_{package.version.replace(':', '%3a')}.deb"

    def _prepare(self) -> None:
        (self._lists / "partial").mkdir(parents=True, exist_ok=True)
        (self._store / "partial").mkdir(parents=True, exist_ok=True)
        self._status.touch()

    def _apt(self, *arguments: str, cwd: Path | None = None) -> str:
        if shutil.which("apt-get") is None:
            raise BedError("there is no apt-get here: the bed is built on Debian 12 (amd64) only")
        settings = {
            "Dir::State::Lists": self._lists,
            "Dir::State::status": self._status,
            "Dir::Cache::archives": self._store,
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "",  # its user may not write into our cache
            "APT::Architecture": "amd64",
            "Debug::NoLocking": "true",  # the cache has one lock for all
        }
        options = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
        done = subprocess.run(
            ["apt-get", "-qq", *options, *arguments],
            capture_output=True, text=True, check=False, cwd=cwd, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode:
            raise BedError(
                f"apt-get {arguments[0]} failed: {done.stderr.strip()}\n"
                "The bed needs the package sources of Debian 12 (bookworm) in /etc/apt and a way "
                "to their mirror."
            )
        return done.stdout
