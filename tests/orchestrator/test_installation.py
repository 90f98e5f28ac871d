"""A shadowed package is noticed, and the error says by what."""

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import installation
from orchestrator.errors import InstallationError
from orchestrator.installation import PACKAGES, check_installation

ROOT = Path(__file__).parents[2]
CHECK = "import orchestrator.installation as i; i.check_installation()"


def _package(folder: Path, name: str) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text("")
    return folder


def _distribution(site: Path, name: str, version: str, *files: str) -> None:
    """Write what pip leaves of an installed distribution."""
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{file},sha256=x,0\n" for file in files))


def test_this_installation_is_sound() -> None:
    check_installation()


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_found_elsewhere_first_is_refused(name: str, tmp_path: Path) -> None:
    _package(tmp_path, name)
    with pytest.raises(InstallationError, match=f"package '{name}' is taken by") as caught:
        check_installation([str(tmp_path), str(ROOT)])
    assert str(tmp_path / name / "__init__.py") in str(caught.value)
    assert "virtual environment" in caught.value.hint


def test_the_distribution_that_shadows_us_is_named(tmp_path: Path) -> None:
    _package(tmp_path, "web")
    _distribution(tmp_path, "web.py", "0.62", "web/__init__.py", "web/db.py")
    _distribution(tmp_path, "webthings", "1.0", "webthings/__init__.py", "old/web/__init__.py")
    with pytest.raises(InstallationError, match=r"belongs to the distribution web\.py 0\.62;"):
        check_installation([str(tmp_path), str(ROOT)])


def test_a_package_found_later_does_no_harm(tmp_path: Path) -> None:
    check_installation([str(ROOT), str(_package(tmp_path, "web"))])


def test_a_folder_without_init_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    check_installation([str(tmp_path), str(ROOT)])


def test_a_missing_package_is_told(tmp_path: Path) -> None:
    with pytest.raises(InstallationError, match=r"'orchestrator' is missing .* again"):
        check_installation([str(tmp_path)])


def test_a_distribution_that_wrote_over_ours_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PACKAGES:
        _package(tmp_path, name)
    ours = [f"{name}/__init__.py" for name in PACKAGES]
    _distribution(tmp_path, "edgewake", "0.1.0", *ours)
    module = tmp_path / "orchestrator" / "installation.py"
    monkeypatch.setattr(installation, "__file__", str(module))
    check_installation([str(tmp_path)])

    _distribution(tmp_path, "web.py", "0.62", "web/__init__.py")
    with pytest.raises(InstallationError, match=r"'web' .* also installed by web\.py 0\.62;"):
        check_installation([str(tmp_path)])


def test_python_run_in_a_folder_with_our_names_is_refused(tmp_path: Path) -> None:
    """`python -c` puts the working directory first, as `python -m` does."""
    _package(tmp_path, "images")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.append({str(ROOT)!r}); {CHECK}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "package 'images' is taken by" in done.stderr
