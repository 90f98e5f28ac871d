"""OCI image layouts: what comes out goes in again, and what others made is read without trust."""

import gzip
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from images.bootspec import Platform
from images.catalog import Adding, Catalog, Entry, ImageConfig
from images.catalog import packages as packages_module
from images.errors import ImageDamaged, ImageError, ImageExists, ImageNotFound, ImageRefused
from tests.images.catalog.ready import ready

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
TAR = "application/vnd.oci.image.layer.v1.tar"
REF = "org.opencontainers.image.ref.name"
QEMU, XEN = Platform.QEMU, Platform.XEN


class Foreign:
    """A layout as another tool writes it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "blobs" / "sha256").mkdir(parents=True)
        (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self.index()

    def put(self, data: bytes | object, media_type: str, **more: object) -> dict[str, Any]:
        raw = data if isinstance(data, bytes) else json.dumps(data).encode()
        digest = hashlib.sha256(raw).hexdigest()
        (self.root / "blobs" / "sha256" / digest).write_bytes(raw)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(raw), **more}

    def manifest(self, config: dict[str, Any], *layers: dict[str, Any]) -> dict[str, Any]:
        document = {"schemaVersion": 2, "config": config, "layers": list(layers)}
        return self.put(document, MANIFEST)

    def index(self, *manifests: dict[str, Any]) -> None:
        document = {"schemaVersion": 2, "manifests": list(manifests)}
        (self.root / "index.json").write_text(json.dumps(document))

    def tar(self, **files: bytes) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(name.replace("__", "/"))
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return out.getvalue()

    def kraft(self, kernel: bytes, platform: str, *, packed: bool = False) -> dict[str, Any]:
        """Return the manifest of a package as `kraft pkg` makes it."""
        config = self.put(
            {"architecture": "x86_64", "os": platform, "config": {"Cmd": ["/app", "a b"]}},
            "application/vnd.oci.image.config.v1+json",
        )
        parts = self.tar(unikraft__bin__kernel=kernel), self.tar(unikraft__bin__initrd=b"INIT")
        if packed:
            layers = [self.put(gzip.compress(part), f"{TAR}+gzip") for part in parts]
        else:
            layers = [self.put(part, TAR) for part in parts]
        return self.manifest(config, *layers)


@pytest.fixture
def foreign(tmp_path: Path) -> Foreign:
    return Foreign(tmp_path / "foreign")


@pytest.fixture
def entry(catalog: Catalog, file: Callable[..., Path]) -> Entry:
    for name, platform in (("KERN q", QEMU), ("XENK x", XEN)):
        config = ImageConfig(platforms=(platform,), architecture="x86_64", cmdline="--v")
        how = Adding(config=config)
        entry = catalog.add_from("web:1", str(file(name[-1], name)), how=how)
    return entry


def _contents(catalog: Catalog, entry: Entry) -> dict[str, bytes]:
    return {
        each.name: ready(catalog, each.digest).main_file.read_bytes() for each in entry.flavours
    }


# --- out and in again -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["out", "out.tar"])
def test_an_export_comes_in_again_as_it_was(
    catalog: Catalog,
    entry: Entry,
    open_catalog: Callable[..., Catalog],
    tmp_path: Path,
    name: str,
) -> None:
    catalog.export("web", tmp_path / name)
    other = open_catalog(tmp_path / "other")
    for source in (f"oci:{tmp_path / name}:web:1", str(tmp_path / name)):
        again = other.add_from("web:1", source)
        assert (again.digest, again.flavours) == (entry.digest, entry.flavours)
    assert _contents(other, again) == {"qemu": b"KERN q", "xen": b"XENK x"}
    assert other.verify() == ()


def test_one_flavour_can_be_exported(
    catalog: Catalog, entry: Entry, open_catalog: Callable[..., Catalog], tmp_path: Path
) -> None:
    catalog.export(entry.flavours[1].digest, tmp_path / "x.tar")
    again = open_catalog(tmp_path / "other").add_from("x", str(tmp_path / "x.tar"))
    assert again.flavours == (entry.flavours[1],)


def test_what_is_said_besides_changes_the_image(
    catalog: Catalog, entry: Entry, tmp_path: Path
) -> None:
    catalog.export("web", tmp_path / "out")
    how = Adding(config=ImageConfig(cmdline="other"))
    again = catalog.add_from("new", str(tmp_path / "out"), how=how)
    assert {each.config.cmdline for each in again.flavours} == {"other"}
    assert [each.name for each in again.flavours] == ["qemu", "xen"]


@pytest.mark.parametrize("name", ["out", "out.tar"])
def test_an_export_of_something_damaged_leaves_nothing(
    catalog: Catalog, entry: Entry, tmp_path: Path, name: str
) -> None:
    path = ready(catalog, entry, XEN).main_file
    path.chmod(0o644)
    path.write_bytes(b"XENK y")
    with pytest.raises(ImageDamaged, match=path.name):
        catalog.export("web", tmp_path / name)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["catalog", "q", "x"]


def test_an_export_overwrites_nothing(catalog: Catalog, entry: Entry, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ImageExists):
        catalog.export("web", tmp_path / "out")
    with pytest.raises(ImageError, match="cannot be written"):
        catalog.export("web", tmp_path / "absent" / "out")


@pytest.mark.real
def test_skopeo_reads_and_writes_it(
    catalog: Catalog, entry: Entry, root: Path, tmp_path: Path
) -> None:
    skopeo = shutil.which("skopeo")
    if skopeo is None:
        pytest.fail("skopeo is missing: apt-get install skopeo")

    def run(*arguments: str) -> str:
        command = [skopeo, "--insecure-policy", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    raw = json.loads(run("inspect", "--raw", f"oci:{root}:web:1"))
    assert len(raw["manifests"]) == 2
    run("copy", "--all", f"oci:{root}:web:1", f"oci:{tmp_path}/copy:there:1")
    again = catalog.add_from("again", f"oci:{tmp_path}/copy:there:1")
    assert again.digest == entry.digest
    run("copy", "--all", f"oci:{tmp_path}/copy:there:1", f"oci:{root}:by-skopeo:2")
    assert catalog.find("by-skopeo").digest == entry.digest
    assert _contents(catalog, catalog.find("by-skopeo")) == {"qemu": b"KERN q", "xen": b"XENK x"}
    platform = ["--override-os", "xen", "--override-arch", "amd64"]
    run(*platform, "copy", f"oci:{root}:web:1", f"oci:{root}:one:1")
    assert catalog.find("one").flavours == (entry.flavours[1],)
    catalog.collect(grace_s=0)
    assert catalog.verify() == ()


# --- what others make -------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_a_package_of_unikraft(catalog: Catalog, foreign: Foreign, packed: bool) -> None:
    flavours = [
        foreign.kraft(b"KERN u", "qemu", packed=packed),
        foreign.kraft(b"XENK u", "xen", packed=packed),
    ]
    nested = foreign.put({"manifests": flavours}, INDEX, annotations={REF: "unikraft.org/x:latest"})
    foreign.index(nested)
    entry = catalog.add_from("x", f"oci:{foreign.root}:unikraft.org/x:latest")
    assert [each.name for each in entry.flavours] == ["qemu", "xen"]
    image = ready(catalog, entry, XEN)
    assert image.main_file.read_bytes() == b"XENK u"
    assert image.initrd is not None
    assert image.initrd.read_bytes() == b"INIT"
    assert image.cmdline == "/app 'a b'"
    assert catalog.collect(grace_s=0) == ()  # the archives it came in were not kept


def test_plain_files_as_oras_pushes_them(catalog: Catalog, foreign: Foreign) -> None:
    empty = foreign.put(b"{}", "application/vnd.oci.empty.v1+json")
    title = {"annotations": {"org.opencontainers.image.title": "../../web.bin"}}
    kernel = foreign.put(b"KERN o", "application/octet-stream", **title)
    readme = foreign.put(b"read me", "text/plain")
    foreign.index(foreign.manifest(empty, kernel, readme))
    (flavour,) = catalog.add_from("o", str(foreign.root)).flavours
    assert [(each.role, each.title) for each in flavour.layers] == [("kernel", "web.bin")]


def test_images_of_others_that_we_cannot_use_are_left_out(
    catalog: Catalog, foreign: Foreign
) -> None:
    usable, other = (
        foreign.kraft(b"KERN u", "qemu"),
        foreign.manifest(
            foreign.put({}, "application/vnd.oci.image.config.v1+json"),
            foreign.put(foreign.tar(bin__sh=b"a container"), TAR),
        ),
    )
    foreign.index(foreign.put({"manifests": [other, usable]}, INDEX))
    assert len(catalog.add_from("x", str(foreign.root)).flavours) == 1
    foreign.index(other)
    with pytest.raises(ImageRefused, match="no layer has an image that we know"):
        catalog.add_from("y", str(foreign.root))


def test_which_image_of_a_layout(catalog: Catalog, foreign: Foreign) -> None:
    for number in (1, 2):
        foreign.kraft(b"KERN %d" % number, "qemu")
    manifests = [
        foreign.kraft(b"KERN %d" % number, "qemu") | {"annotations": {REF: f"a:{number}"}}
        for number in (1, 2)
    ]
    foreign.index(*manifests)
    with pytest.raises(ImageNotFound, match="oci:PATH:REF, of: a:1, a:2"):
        catalog.add_from("x", str(foreign.root))
    with pytest.raises(ImageNotFound, match="no image 'a:3'"):
        catalog.add_from("x", f"oci:{foreign.root}:a:3")
    entry = catalog.add_from("x", f"oci:{foreign.root}:a:2")
    assert ready(catalog, entry).main_file.read_bytes() == b"KERN 2"


def test_it_is_told_how_to_use_what_another_tool_put_here(
    catalog: Catalog, entry: Entry, root: Path, foreign: Foreign
) -> None:
    """As `skopeo copy ... oci:CATALOGUE:NAME` does."""
    package = foreign.kraft(b"KERN u", "qemu") | {"annotations": {REF: "kraft:1"}}
    shutil.copytree(foreign.root / "blobs", root / "blobs", dirs_exist_ok=True)
    index = json.loads((root / "index.json").read_text())
    index["manifests"].append(package)
    (root / "index.json").write_text(json.dumps(index))
    problem = {each.ref: each.problem for each in catalog.list()}["kraft:1"]
    source = f"oci:{root}:kraft:1"
    assert f"edgewake image add NAME {source}" in problem
    assert ready(catalog, catalog.add_from("mine", source)).main_file.read_bytes() == b"KERN u"


# --- lies -------------------------------------------------------------------------------------


def _wrong_size(foreign: Foreign) -> dict[str, Any]:
    return foreign.kraft(b"KERN u", "qemu") | {"size": 5 << 20}


def _damaged_layer(foreign: Foreign) -> dict[str, Any]:
    layer = foreign.put(b"KERN 1", "application/octet-stream")
    (foreign.root / "blobs" / "sha256" / layer["digest"][7:]).write_bytes(b"KERN 2")
    return foreign.manifest(foreign.put(b"{}", "x"), layer)


def _short_layer(foreign: Foreign) -> dict[str, Any]:
    layer = foreign.put(b"KERN 1", "application/octet-stream") | {"size": 3}
    return foreign.manifest(foreign.put(b"{}", "x"), layer)


def _missing_layer(foreign: Foreign) -> dict[str, Any]:
    layer = {"mediaType": "x", "digest": f"sha256:{'0' * 64}", "size": 3}
    return foreign.manifest(foreign.put(b"{}", "x"), layer)


def _up_and_out(foreign: Foreign) -> dict[str, Any]:
    layer = {"mediaType": "x", "digest": "sha256:../../../etc/passwd", "size": 3}
    return foreign.manifest(foreign.put(b"{}", "x"), layer)


def _two_kernels(foreign: Foreign) -> dict[str, Any]:
    layers = [foreign.put(b"KERN %d" % number, "application/octet-stream") for number in (1, 2)]
    return foreign.manifest(foreign.put(b"{}", "x"), *layers)


def _deep(foreign: Foreign) -> dict[str, Any]:
    top = foreign.kraft(b"KERN u", "qemu")
    for _ in range(5):
        top = foreign.put({"manifests": [top]}, INDEX)
    return top


def _wide(foreign: Foreign) -> dict[str, Any]:
    inner = foreign.put({"manifests": []}, INDEX)
    middle = foreign.put({"manifests": [inner] * 1000}, INDEX)
    return foreign.put({"manifests": [middle] * 1000}, INDEX)


def _bomb(foreign: Foreign) -> dict[str, Any]:
    packed = gzip.compress(bytes(packages_module.MOST_UNPACKED + 1))
    return foreign.manifest(foreign.put(b"{}", "x"), foreign.put(packed, f"{TAR}+gzip"))


def _cut_gzip(foreign: Foreign) -> dict[str, Any]:
    packed = gzip.compress(foreign.tar(unikraft__bin__kernel=b"KERN"))[:-12]
    return foreign.manifest(foreign.put(b"{}", "x"), foreign.put(packed, f"{TAR}+gzip"))


def _deep_json(foreign: Foreign) -> dict[str, Any]:
    return foreign.put(b"[" * 100_000, MANIFEST)


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        (_wrong_size, "larger than"),
        (_damaged_layer, "damaged or truncated"),
        (_short_layer, "more than 3 bytes"),
        (_missing_layer, "cannot be read"),
        (_up_and_out, "no digest"),
        (_two_kernels, "at most one kernel"),
        (_deep, "nested"),
        (_wide, "flavours"),
        (_bomb, "which is the limit"),
        (_cut_gzip, "truncated"),
        (_deep_json, "not JSON"),
    ],
)
def test_lies_are_refused_and_leave_nothing(  # noqa: PLR0917 - fixtures
    catalog: Catalog,
    root: Path,
    foreign: Foreign,
    monkeypatch: pytest.MonkeyPatch,
    lie: Callable[[Foreign], dict[str, Any]],
    said: str,
) -> None:
    monkeypatch.setattr(packages_module, "MOST_UNPACKED", 1 << 20)
    foreign.index(lie(foreign))
    with pytest.raises(ImageError, match=said):
        catalog.add_from("x", str(foreign.root))
    assert list((root / "blobs" / "sha256").iterdir()) == []
    assert catalog.list() == ()


@pytest.mark.parametrize("text", ['{"imageLayoutVersion": "2.0.0"}', "{}", "[]", ""])
def test_layouts_of_another_kind(catalog: Catalog, foreign: Foreign, text: str) -> None:
    (foreign.root / "oci-layout").write_text(text)
    with pytest.raises(ImageRefused, match=r"oci-layout|not an OCI image layout"):
        catalog.add_from("x", str(foreign.root))


def test_what_is_no_layout(catalog: Catalog, file: Callable[..., Path], tmp_path: Path) -> None:
    for path in (tmp_path, file()):
        with pytest.raises(ImageError, match="neither an OCI image layout"):
            catalog.add_from("x", f"oci:{path}")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(file("inside"), "inside")
    with pytest.raises(ImageNotFound, match="has no oci-layout"):
        catalog.add_from("x", str(tmp_path / "x.tar"))
    with pytest.raises(ImageRefused, match="a layout has no digest"):
        catalog.add_from("x", f"oci:{tmp_path}", digests=["sha256:" + "0" * 64])
