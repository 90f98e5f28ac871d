"""The sample guest: built from stand-ins, and built for real and booted once."""

import lzma
import os
import selectors
import struct
import subprocess
import time
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Literal, TypedDict

import pytest

from images.bootspec import BootRequest, GuestAddress, Image, Nic
from images.build import linux_microvm
from images.build.linux_microvm import build, newest_kernel, without_signature, without_type_info
from images.errors import BuildFailed
from images.families.linux import LEAST_MEMORY_MIB, LINUX
from images.inspect import inspect

BZIMAGE = bytes(0x202) + b"HdrS" + bytes(100)
STATIC = b"\x7fELF\x02\x01\x01" + bytes(57)
MODULE = b"\x7fELF module"
BOOT_TIMEOUT_S = 60.0

VIRTIO = "kernel/drivers/virtio"
NEEDS = f"{VIRTIO}/virtio.ko {VIRTIO}/virtio_ring.ko"
DEPENDS = f"""\
{VIRTIO}/virtio.ko: {VIRTIO}/virtio_ring.ko
{VIRTIO}/virtio_ring.ko:
{VIRTIO}/virtio-pci.ko.xz: {NEEDS}
kernel/drivers/net/virtio_net.ko: {NEEDS}
kernel/drivers/net/xen-netfront.ko:
kernel/drivers/net/other.ko:
"""


class Parts(TypedDict):
    """What an image is made of; also the arguments of `build`."""

    kernel: Path
    modules: Path
    busybox: Path


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    """Make a kernel, modules and a busybox that look like the real ones."""
    kernel, modules, busybox = tmp_path / "vmlinuz-9.9", tmp_path / "modules", tmp_path / "busybox"
    kernel.write_bytes(BZIMAGE)
    busybox.write_bytes(STATIC)
    for line in DEPENDS.splitlines():
        path = modules / line.partition(":")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        data = MODULE + path.name.encode()
        path.write_bytes(lzma.compress(data) if path.suffix == ".xz" else data)
    (modules / "modules.dep").write_text(DEPENDS)
    (modules / "modules.builtin").write_text("")
    return {"kernel": kernel, "modules": modules, "busybox": busybox}


def test_what_is_in_the_initrd(tmp_path: Path, parts: Parts) -> None:
    built = build(tmp_path / "out", **parts)
    data = built.initrd.read_bytes()
    names = subprocess.run(["busybox", "cpio", "-t"], input=data, capture_output=True, check=True)
    listed = names.stdout.decode().split()
    home = "lib/modules/9.9"
    assert [name for name in listed if name.endswith(".ko")] == [
        f"{home}/{name}.ko"
        for name in ("virtio_ring", "virtio", "virtio_pci", "virtio_net", "xen_netfront")
    ]
    assert {"init", "bin/busybox", "dev/console", "www/cgi-bin/index.cgi"} <= set(listed)
    assert MODULE + b"virtio-pci.ko.xz" in data, "compressed modules are unpacked"
    assert b"virtio_net.ko: virtio.ko virtio_ring.ko\n" in data
    assert not built.unpacked, "this kernel cannot be unpacked and is taken as it is"
    assert built.kernel.read_bytes() == BZIMAGE


def test_everybody_may_read_the_image(tmp_path: Path, parts: Parts) -> None:
    before = os.umask(0o077)
    try:
        built = build(tmp_path / "out", **parts)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (built.kernel, built.initrd)} == {0o644}


def test_the_same_inputs_make_the_same_bytes(tmp_path: Path, parts: Parts) -> None:
    first, second = (build(tmp_path / out, **parts) for out in ("a", "b"))
    assert first.initrd.read_bytes() == second.initrd.read_bytes()


def test_it_is_built_again_only_when_needed(tmp_path: Path, parts: Parts) -> None:
    out = tmp_path / "out"
    assert build(out, **parts).rebuilt
    assert not build(out, **parts).rebuilt
    (out / "initrd").write_bytes(b"damaged")
    assert build(out, **parts).rebuilt
    parts["busybox"].write_bytes(STATIC + b"newer")
    assert build(out, **parts).rebuilt
    assert not build(out, **parts).rebuilt
    assert {path.name for path in out.iterdir()} == {"kernel", "initrd", "built-from"}


@pytest.mark.parametrize(
    ("part", "package"),
    [
        ("kernel", "linux-image-cloud-amd64"),
        ("modules", "linux-image-cloud-amd64"),
        ("busybox", "busybox-static"),
    ],
)
def test_a_missing_part_names_its_package(
    tmp_path: Path, parts: Parts, part: Literal["kernel", "modules", "busybox"], package: str
) -> None:
    parts[part] = tmp_path / "nowhere"
    with pytest.raises(BuildFailed, match=rf"nowhere.*{package}"):
        build(tmp_path / "out", **parts)
    assert not (tmp_path / "out").exists()


def test_a_busybox_that_needs_libraries_is_refused(tmp_path: Path, parts: Parts) -> None:
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQ", 3, 62, 1, 0, 64, 0)
    header += struct.pack("<IHHHHHH", 0, 64, 56, 1, 0, 0, 0)
    parts["busybox"].write_bytes(header + struct.pack("<I", 3) + bytes(52))
    with pytest.raises(BuildFailed, match=r"not a static program.*busybox-static"):
        build(tmp_path / "out", **parts)


def test_a_driver_may_be_built_in(tmp_path: Path, parts: Parts) -> None:
    (parts["modules"] / "modules.dep").write_text("\n".join(DEPENDS.splitlines()[:3]) + "\n")
    with pytest.raises(BuildFailed, match="no module virtio_net"):
        build(tmp_path / "out", **parts)
    (parts["modules"] / "modules.builtin").write_text(
        "kernel/drivers/net/virtio_net.ko\nkernel/drivers/net/xen-netfront.ko\n"
    )
    assert build(tmp_path / "out", **parts).rebuilt


def test_the_newest_kernel_is_the_highest_version(tmp_path: Path) -> None:
    for root, version in (("a", "6.1.0-9"), ("b", "6.1.0-10"), ("b", "5.10.0-30")):
        boot = tmp_path / root / "boot"
        boot.mkdir(parents=True, exist_ok=True)
        (boot / f"vmlinuz-{version}-cloud-amd64").touch()
    newest = newest_kernel((tmp_path / "a", tmp_path / "b"))
    assert newest == tmp_path / "b/boot/vmlinuz-6.1.0-10-cloud-amd64"
    with pytest.raises(BuildFailed, match="linux-image-cloud-amd64"):
        newest_kernel((tmp_path / "empty",))


def test_signatures_and_type_info_are_taken_out() -> None:
    signed = MODULE + b"S" * 70 + struct.pack(">8xI", 70) + b"~Module signature appended~\n"
    assert without_signature(signed) == MODULE
    assert without_signature(MODULE) == MODULE
    assert without_type_info(b"x\0.BTF\0y") == b"x\0.btf\0y"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert linux_microvm.main([]) == 2
    assert linux_microvm.main(["--help"]) == 2
    assert "usage:" in capsys.readouterr().err


@pytest.fixture(scope="module")
def real_image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    built = build(tmp_path_factory.mktemp("image"))
    return Image("sample", "linux", built.kernel, built.initrd)


@pytest.mark.real
def test_the_real_image_is_small_and_passes(real_image: Image) -> None:
    LINUX.check(real_image, inspect)
    assert real_image.initrd is not None
    assert real_image.initrd.stat().st_size < 4 * 1024 * 1024


@pytest.mark.real
def test_the_real_image_boots_in_the_least_memory(real_image: Image) -> None:
    request = BootRequest(
        name="ew-test-web-0",
        service="web",
        host="here",
        address=GuestAddress(IPv4Interface("10.0.2.15/24"), None),
        nic=Nic("user", "02:ed:0a:00:02:0f"),
        memory_mib=LEAST_MEMORY_MIB,
    )
    spec = LINUX.boot_spec(real_image, inspect(real_image.main_file), request)
    console = console_until(qemu(spec.kernel, spec.initrd, spec.cmdline), b"edgewake: ready")
    assert b"edgewake: ready" in console, console[-2000:].decode(errors="replace")


def qemu(kernel: Path, initrd: Path | None, cmdline: str) -> list[str]:
    card = "virtio-net-pci,netdev=net,romfile=,mac=02:ed:0a:00:02:0f"
    return [
        "qemu-system-x86_64",
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"),
        *("-machine", "pc,accel=tcg", "-m", str(LEAST_MEMORY_MIB)),
        *("-netdev", "user,id=net,restrict=on", "-device", card),
        *("-kernel", str(kernel), "-initrd", str(initrd), "-append", cmdline),
    ]


def console_until(command: list[str], wanted: bytes) -> bytes:
    """Run a machine until its console says what is wanted, it ends, or time is up."""
    deadline, seen = time.monotonic() + BOOT_TIMEOUT_S, b""
    with (
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as machine,
        selectors.DefaultSelector() as selector,
    ):
        assert machine.stdout is not None
        selector.register(machine.stdout, selectors.EVENT_READ)
        while wanted not in seen and (left := deadline - time.monotonic()) > 0:
            if selector.select(left):
                chunk = os.read(machine.stdout.fileno(), 65536)
                if not chunk:
                    break
                seen += chunk
        machine.kill()
    return seen
