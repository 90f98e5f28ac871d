"""A file that is not what its digest says is never given to a hypervisor."""

import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from images.catalog import Adding, Catalog, Entry, ImageConfig
from images.catalog import blobs as blobs_module
from images.catalog.blobs import SMALL
from images.errors import CatalogError, ImageDamaged, ImageError, ImageNotFound, ImageRefused
from tests.images.catalog.ready import ready

LARGE = b"KERN" + bytes(SMALL)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _spoil(path: Path, data: bytes) -> None:
    """Change a file in place, as a disk or another program would."""
    path.chmod(0o644)
    path.write_bytes(data)


@pytest.fixture(params=[b"KERN small", LARGE], ids=["small", "large"])
def entry(request: pytest.FixtureRequest, catalog: Catalog, file: Callable[..., Path]) -> Entry:
    return catalog.add_from("web", str(file(contents=request.param)))


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    "harm", [_flipped, lambda data: data[:-1], lambda _: b"", lambda data: data + b"\0"],
    ids=["a bit", "truncated", "empty", "longer"],
)  # fmt: skip
def test_a_damaged_file_is_refused_with_its_name_and_both_digests(
    catalog: Catalog, entry: Entry, harm: Callable[[bytes], bytes], file: Callable[..., Path]
) -> None:
    path = ready(catalog, entry).main_file
    good = path.read_bytes()
    _spoil(path, harm(good))
    with pytest.raises(ImageDamaged) as refused:
        ready(catalog, "web")
    error = refused.value
    assert (error.file, error.expected, error.found) == (
        str(path),
        _digest(good),
        _digest(harm(good)),
    )
    assert all(part in str(error) for part in (error.file, error.expected, error.found))
    (damage,) = catalog.verify()
    assert (damage.what, damage.refs) == (str(path), ("web:latest",))
    catalog.add_from("web", str(file(contents=good)))  # adding it again mends it
    assert ready(catalog, "web").main_file.read_bytes() == good
    assert catalog.verify() == ()


def test_a_file_that_is_gone(catalog: Catalog, entry: Entry) -> None:
    path = ready(catalog, entry).main_file
    path.unlink()
    with pytest.raises(ImageNotFound, match=path.name):
        ready(catalog, entry)
    (damage,) = catalog.verify("web")
    assert str(path) in damage.message


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of blobs as they are hashed; files count as unchanged for long enough."""
    names: list[str] = []
    real = blobs_module._hash

    def spy(file: object, what: str, *rest: object) -> object:
        names.append(what)
        return real(file, what, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(blobs_module, "_hash", spy)
    monkeypatch.setattr(blobs_module, "SETTLED_NS", -1)
    return names


def test_large_files_are_hashed_once_and_small_ones_always(
    open_catalog: Callable[..., Catalog], entry: Entry, hashed: list[str]
) -> None:
    catalog = open_catalog()
    for _ in range(3):
        ready(catalog, entry)
    assert len(hashed) == (1 if entry.size > SMALL else 3)


@pytest.mark.parametrize(
    "touch",
    [
        lambda path: os.utime(path, ns=(1, 1)),
        lambda path: path.chmod(0o400),
        lambda path: (
            path.with_name("copy").write_bytes(path.read_bytes())
            and path.with_name("copy").replace(path)
        ),
    ],
    ids=["mtime", "ctime", "inode"],
)
def test_a_large_file_that_was_touched_is_hashed_again(
    catalog: Catalog, file: Callable[..., Path], hashed: list[str], touch: Callable[[Path], object]
) -> None:
    entry = catalog.add_from("web", str(file(contents=LARGE)))
    path = ready(catalog, entry).main_file
    before = len(hashed)
    time.sleep(0.02)  # the time stamps of a file system have steps of some milliseconds
    touch(path)
    ready(catalog, entry)
    assert len(hashed) == before + 1


def test_a_change_within_one_time_stamp_is_seen(
    catalog: Catalog, file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as a file is so fresh that its times could stay the same, it is hashed."""
    monkeypatch.setattr(blobs_module, "SETTLED_NS", 3600 * 10**9)
    entry = catalog.add_from("web", str(file(contents=LARGE)))
    path = ready(catalog, entry).main_file
    monkeypatch.setattr(
        blobs_module, "_stamp", lambda _: blobs_module._Stamp(1, 1, 2**21, 1, time.time_ns())
    )
    ready(catalog, entry)
    _spoil(path, _flipped(LARGE))
    with pytest.raises(ImageDamaged):
        ready(catalog, entry)


def test_a_damaged_document(catalog: Catalog, root: Path, file: Callable[..., Path]) -> None:
    entry = catalog.add_from("web", str(file()))
    catalog.add_from("good", str(file("g", "KERN good")))
    _spoil(root / "blobs" / "sha256" / entry.digest[7:], b"{}")
    with pytest.raises(ImageDamaged, match=entry.digest):
        catalog.find("web")
    assert {each.ref: bool(each.problem) for each in catalog.list()} == {
        "good:latest": False,
        "web:latest": True,
    }
    assert {damage.refs for damage in catalog.verify()} == {("web:latest",), ()}
    assert [damage.refs for damage in catalog.verify("web")] == [("web:latest",)]
    with pytest.raises(ImageDamaged, match="remove the name"):
        catalog.collect(grace_s=0)  # who knows what the document referred to?
    with pytest.raises(ImageError, match="--replace"):
        catalog.add_from("web", str(file("n", "KERN n")))
    catalog.add_from("web", str(file("n", "KERN n")), how=Adding(replace=True))
    catalog.collect(grace_s=0)
    assert catalog.verify() == ()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"manifests": 5}', '{"manifests": [{}]}'])
def test_a_damaged_index(
    catalog: Catalog, root: Path, file: Callable[..., Path], text: str
) -> None:
    catalog.add_from("web", str(file()))
    blobs = sorted((root / "blobs" / "sha256").iterdir())
    (root / "index.json").write_text(text)
    for use in (catalog.list, catalog.verify, catalog.collect, lambda: catalog.find("web")):
        with pytest.raises(ImageRefused, match=r"index.json"):
            use()
    assert sorted((root / "blobs" / "sha256").iterdir()) == blobs


def test_an_index_that_cannot_be_read_is_not_an_empty_one(
    catalog: Catalog, root: Path, file: Callable[..., Path]
) -> None:
    catalog.add_from("web", str(file()))
    (root / "index.json").unlink()
    (root / "index.json").symlink_to("index.json")
    with pytest.raises(CatalogError, match=r"index.json"):
        catalog.list()


def test_verify_finds_what_nothing_refers_to_as_well(
    catalog: Catalog, file: Callable[..., Path]
) -> None:
    path = ready(catalog, catalog.add_from("web", str(file()))).main_file
    catalog.remove("web")
    _spoil(path, b"?")
    assert [(each.what, each.refs) for each in catalog.verify()] == [(str(path), ())]


def test_a_qcow2_with_another_file_is_refused_also_when_it_is_used(
    catalog: Catalog, file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another OCI tool may have put it there: here the check is away while it is added."""
    head = b"QFI\xfb" + (2).to_bytes(4, "big") + (99).to_bytes(8, "big") + bytes(100)
    with monkeypatch.context() as lax:
        for module in ("sources", "recognise"):
            lax.setattr(f"images.catalog.{module}.disk_format", lambda *_: "qcow2")
        how = Adding(config=ImageConfig(family="other"))
        entry = catalog.add_from("web", str(file("d.qcow2", head)), how=how)
    with pytest.raises(ImageRefused, match="another file"):
        ready(catalog, entry)


def test_many_who_want_one_file_have_it_hashed_once(
    open_catalog: Callable[..., Catalog],
    file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    hashed: list[str],
) -> None:
    digest = open_catalog().add_from("web", str(file(contents=LARGE))).flavours[0].layers[0].blob
    slowly = blobs_module._hash

    def slow(*args: Any) -> Any:
        time.sleep(0.2)
        return slowly(*args)

    hashed.clear()
    monkeypatch.setattr(blobs_module, "_hash", slow)
    catalog = open_catalog()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: ready(catalog, "web"), range(8)))
    assert hashed == [digest.digest[:19]]


def test_a_damaged_large_file_is_hashed_once_too(
    catalog: Catalog, file: Callable[..., Path], hashed: list[str]
) -> None:
    entry = catalog.add_from("web", str(file(contents=LARGE)))
    _spoil(ready(catalog, entry).main_file, _flipped(LARGE))
    hashed.clear()
    for _ in range(3):
        with pytest.raises(ImageDamaged):
            ready(catalog, entry)
    assert len(hashed) == 1
