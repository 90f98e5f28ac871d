"""Collecting removes what nothing needs, and never what a name leads to, runs, or is arriving."""

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from images.bootspec import Platform
from images.catalog import Adding, Catalog, Entry, ImageConfig, upkeep
from images.catalog.files import locked
from images.errors import CatalogError, ImageNotFound
from tests.images.catalog.ready import ready

DAY = 24 * 3600.0


@pytest.fixture
def blobs(root: Path) -> Callable[[], set[str]]:
    return lambda: {path.name for path in (root / "blobs" / "sha256").iterdir()}


@pytest.fixture
def entry(catalog: Catalog, file: Callable[..., Path]) -> Entry:
    """Return an entry with two flavours, and so an index of its own."""
    for name, platform in (("q", Platform.QEMU), ("x", Platform.XEN)):
        how = Adding(config=ImageConfig(platforms=(platform,)))
        entry = catalog.add_from("web", str(file(name, f"KERN {name}")), how=how)
    return entry


def test_what_has_a_name_stays(catalog: Catalog, entry: Entry) -> None:
    catalog.collect(grace_s=0)  # the first flavour's own manifest has no name any more, only a use
    assert catalog.collect(grace_s=0) == ()
    assert catalog.verify() == ()
    assert catalog.find("web") == entry


def test_what_has_none_goes_when_it_is_old(
    open_catalog: Callable[..., Catalog],
    catalog: Catalog,
    entry: Entry,
    blobs: Callable[[], set[str]],
) -> None:
    catalog.add_from("keep", str(ready(catalog, entry, Platform.XEN).main_file))
    kept = {path.name for path in ready(catalog, "keep").files}
    catalog.remove("web")
    before = blobs()
    assert catalog.collect() == ()
    later = open_catalog(clock=lambda: time.time() + DAY + 60)
    foreseen = later.collect(dry_run=True)
    assert blobs() == before
    assert later.collect() == foreseen
    assert blobs() == before - {each.path.name for each in foreseen}
    assert kept < blobs()
    assert len(blobs()) == 3  # a manifest, a configuration, a kernel
    assert catalog.verify() == ()


def test_what_somebody_holds_stays_until_it_is_released(
    open_catalog: Callable[..., Catalog],
    catalog: Catalog,
    entry: Entry,
    blobs: Callable[[], set[str]],
    tmp_path: Path,
) -> None:
    """Also when another process collects, as after a restart of edgewake."""
    qemu, xen = (ready(catalog, entry, each).main_file for each in (Platform.QEMU, Platform.XEN))
    (tmp_path / "link").symlink_to(xen)
    catalog.hold("ew-lab-web-0", [qemu, qemu, Path("/boot/elsewhere")])
    catalog.hold("ew-lab-web-1", [tmp_path / "link"])
    catalog.remove("web")
    later = open_catalog()
    assert later.holders() == ("ew-lab-web-0", "ew-lab-web-1")
    later.collect(grace_s=0)
    assert blobs() == {qemu.name, xen.name}
    later.hold("ew-lab-web-1", [qemu])  # instead of the other one
    assert [each.path for each in later.collect(grace_s=0)] == [xen]
    later.release("ew-lab-web-0")
    later.release("ew-lab-web-0")
    later.hold("ew-lab-web-1", [Path("/boot/elsewhere")])  # nothing of ours: no lease
    assert later.holders() == ()
    assert [each.path for each in later.collect(grace_s=0)] == [qemu]


def test_what_is_gone_cannot_be_held(catalog: Catalog, entry: Entry) -> None:
    kernel = ready(catalog, entry, Platform.XEN).main_file
    catalog.remove("web")
    catalog.collect(grace_s=0)
    with pytest.raises(ImageNotFound, match="add the image again"):
        catalog.hold("guest", [kernel])
    assert catalog.holders() == ()


def test_nobody_holds_while_somebody_collects(catalog: Catalog, entry: Entry, root: Path) -> None:
    kernel = ready(catalog, entry, Platform.XEN).main_file
    done = threading.Event()

    def hold() -> None:
        catalog.hold("guest", [kernel])
        done.set()

    with locked(root / ".adding"):
        thread = threading.Thread(target=hold)
        thread.start()
        assert not done.wait(0.3)
    thread.join(20)
    assert done.is_set()


@pytest.mark.parametrize("who", ["", "../x", ".new-x", "a/b", "a b", "x" * 300])
def test_wrong_names_of_holders(catalog: Catalog, entry: Entry, who: str) -> None:
    with pytest.raises(CatalogError, match="no name for a lease"):
        catalog.hold(who, [ready(catalog, entry, Platform.XEN).main_file])


@pytest.mark.parametrize(
    "text",
    ["", "sha256:12\n", "half a dig", "\0" * 100, "x" * (5 << 20)],
    ids=["empty", "short", "cut", "zeros", "huge"],
)
def test_nothing_goes_while_a_lease_cannot_be_read(
    catalog: Catalog, entry: Entry, root: Path, blobs: Callable[[], set[str]], text: str
) -> None:
    catalog.hold("guest", [ready(catalog, entry, Platform.XEN).main_file])
    (root / "leases" / "guest").write_text(text)
    catalog.remove("web")
    before = blobs()
    for dry_run in (True, False):
        with pytest.raises(CatalogError, match=r"leases/guest: damaged.*nothing is removed.*guest"):
            catalog.collect(grace_s=0, dry_run=dry_run)
    assert blobs() == before
    assert catalog.holders() == ("guest",)
    catalog.release("guest")
    assert catalog.collect(grace_s=0)


def test_what_died_half_way_goes(catalog: Catalog, entry: Entry, root: Path) -> None:
    leftovers = [root / "blobs" / "sha256" / ".new-0", root / ".new-1", root / "leases" / ".new-2"]
    catalog.hold("guest", [ready(catalog, entry, Platform.XEN).main_file])
    for path in leftovers:
        path.write_bytes(b"half")
    foreign = root / "blobs" / "sha256" / "oci-put-blob123"
    foreign.write_bytes(b"not ours")
    assert {each.path for each in catalog.collect()} == set(leftovers)
    assert foreign.exists()


def test_a_download_that_broke_stays_for_a_while(
    catalog: Catalog, entry: Entry, root: Path
) -> None:
    part = root / "downloads" / ("0" * 64 + ".part")
    part.parent.mkdir()
    part.write_bytes(b"half")
    assert catalog.collect() == ()
    os.utime(part, (1, 1))
    with locked(part):
        assert catalog.collect() == ()  # somebody is at it
    assert [each.path for each in catalog.collect()] == [part]
    assert not part.exists()


def test_it_waits_for_who_adds(catalog: Catalog, entry: Entry, root: Path) -> None:
    started, done = threading.Event(), threading.Event()

    def collect() -> None:
        started.set()
        catalog.collect(grace_s=0)
        done.set()

    with locked(root / ".adding", shared=True):
        thread = threading.Thread(target=collect)
        thread.start()
        assert started.wait(20)
        assert not done.wait(0.3)
    thread.join(20)
    assert done.is_set()


def test_it_says_so_when_it_waits_for_too_long(root: Path, entry: Entry) -> None:
    with (
        locked(root / ".lock"),
        pytest.raises(CatalogError, match="try again"),
        locked(root / ".lock", wait_s=0.1),
    ):
        pytest.fail("two had the lock")


def test_what_another_tool_named_meanwhile_stays(
    catalog: Catalog, entry: Entry, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows nothing of our locks: between the two phases it names what was to go."""
    index = (root / "index.json").read_bytes()
    catalog.remove("web")
    real = upkeep._leftovers

    def meanwhile(*args: object) -> object:
        (root / "index.json").write_bytes(index)
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(upkeep, "_leftovers", meanwhile)
    removed = {each.path.name for each in catalog.collect(grace_s=0)}
    assert not removed & {layer.blob.digest[7:] for f in entry.flavours for layer in f.layers}
    assert catalog.find("web") == entry
    assert catalog.verify() == ()


def test_layers_of_other_tools_images_stay(
    catalog: Catalog, entry: Entry, root: Path, blobs: Callable[[], set[str]]
) -> None:
    """Whatever the media types say: what index.json leads to is needed."""

    def put(data: bytes) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (root / "blobs" / "sha256" / digest).write_bytes(data)
        return {"mediaType": "application/odd", "digest": f"sha256:{digest}", "size": len(data)}

    layer, config, plain = put(b"a layer"), put(b"{}"), put(b"no JSON at all")
    manifest = put(json.dumps({"config": config, "layers": [layer]}).encode())
    nested = put(json.dumps({"manifests": [manifest]}).encode())
    index = json.loads((root / "index.json").read_text())
    index["manifests"] += [nested, plain]
    (root / "index.json").write_text(json.dumps(index))
    catalog.collect(grace_s=0)
    theirs = {str(each["digest"])[7:] for each in (layer, config, plain, manifest, nested)}
    assert theirs <= blobs()
