"""The wheel, in an environment that has nothing else: what a user gets must run on its own.

This is the one test that needs a package index (or pip's cache), and the slowest that boots no
guest: libvirt-python is compiled if pip has no wheel of it in its cache.
"""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"orchestrator", "placement", "images", "dns_boot", "web"}
PIP = ["-m", "pip", "--no-input", "--disable-pip-version-check"]

pytestmark = pytest.mark.timeout(900)


def _run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command without the settings of this test run; a failure shows all it wrote."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, *PIP, "wheel", "--no-deps", "--wheel-dir", target, ROOT)
    (file,) = target.glob("edgewake-*.whl")
    return file


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of a new environment into which only the wheel was installed."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=True)
    interpreter = home / "bin" / "python"
    _run(interpreter, *PIP, "install", wheel, cwd=home)
    return interpreter


def test_the_wheel_holds_our_packages_whole_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    tracked = {
        str(file.relative_to(ROOT))
        for package in PACKAGES
        for file in (ROOT / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert held == tracked
    assert {f"{package}/py.typed" for package in PACKAGES} <= held


def test_the_wheel_carries_its_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())


def test_the_installation_is_sound_from_another_folder(python: Path, tmp_path: Path) -> None:
    check = "import orchestrator.installation as i; i.check_installation(); print(i.__file__)"
    file = Path(_run(python, "-c", check, cwd=tmp_path).strip())
    assert file.is_relative_to(python.parents[1])


def test_every_module_can_be_imported_without_the_development_tools(
    python: Path, tmp_path: Path
) -> None:
    walk = (
        "import importlib, pkgutil\n"
        "from orchestrator.errors import InstallationError\n"
        f"for name in {sorted(PACKAGES)}:\n"
        "    package = importlib.import_module(name)\n"
        "    for each in pkgutil.walk_packages(package.__path__, f'{name}.'):\n"
        "        if not each.name.endswith('__main__'):\n"
        "            try:\n"
        "                print(importlib.import_module(each.name).__name__)\n"
        "            except InstallationError as error:\n"
        "                print(f'lacks:{each.name}:{error.hint}')\n"
    )
    told = _run(python, "-c", walk, cwd=tmp_path)
    assert "orchestrator.store.sql" in told.split()
    lacks = [line for line in told.splitlines() if line.startswith("lacks:")]
    assert lacks == [
        "lacks:orchestrator.trace_otel:install edgewake with its extra: "
        "pip install 'edgewake[otel]'"
    ]


def test_the_command_line_runs_from_another_folder(python: Path, tmp_path: Path) -> None:
    told = _run(python.with_name("edgewake"), "--help", cwd=tmp_path)
    for command in ("up", "apply", "status", "wake", "demo"):
        assert command in told
