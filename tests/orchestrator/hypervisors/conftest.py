"""The guest that tests of real hypervisors boot."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.build import hello, linux_microvm
from images.errors import BuildFailed

pytest.register_assert_rewrite("tests.contracts.hypervisor")


@pytest.fixture(scope="session")
def microvm_files() -> Iterator[linux_microvm.Built]:
    """Build the sample guest; its initramfs has busybox in /bin."""
    # Not below pytest's own folder: QEMU's user could not enter that.
    folder = Path(tempfile.mkdtemp(prefix="ewhv-"))
    folder.chmod(0o755)
    try:
        yield linux_microvm.build(folder)
    except BuildFailed as error:
        pytest.fail(f"the sample guest cannot be built: run `make setup` first ({error})")
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def hello_file() -> Iterator[Path]:
    """Build hello where QEMU's user can read it."""
    folder = Path(tempfile.mkdtemp(prefix="ewhv-"))
    folder.chmod(0o755)
    try:
        yield hello.build(folder).kernel
    finally:
        shutil.rmtree(folder)
