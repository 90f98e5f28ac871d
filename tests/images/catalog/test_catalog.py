"""The catalogue's verbs: what is added can be found, fetched, named again, and removed."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from images.bootspec import Image, Platform
from images.catalog import Adding, Catalog, Entry, ImageConfig, Part, Role
from images.errors import CatalogError, ImageDamaged, ImageExists, ImageNotFound, ImageRefused

QEMU, XEN = Platform.QEMU, Platform.XEN


def a(**said: object) -> Adding:
    """Return how to add with a configuration, and options of `Adding` itself."""
    options = {key: said.pop(key) for key in ("replace", "flavour", "parts") if key in said}
    return Adding(config=ImageConfig(**said), **options)  # type: ignore[arg-type]


def qcow2(*, version: int = 3, backing: int = 0, features: int = 0) -> bytes:
    head = b"QFI\xfb" + version.to_bytes(4, "big") + backing.to_bytes(8, "big")
    return head.ljust(72, b"\0") + features.to_bytes(8, "big") + bytes(432)


# --- adding and finding -----------------------------------------------------------------------


def test_a_file_becomes_an_image(catalog: Catalog, file: Callable[..., Path]) -> None:
    entry = catalog.add_from("web:1", str(file(contents="KERN and more")), how=a(cmdline="--v"))
    assert entry == catalog.find("web:1") == catalog.list()[0]
    image = catalog.files(entry)
    assert image.main_file.read_bytes() == b"KERN and more"
    assert (image.name, image.cmdline, image.disks) == ("web:1", "--v", ())


def test_all_that_an_image_is_comes_back(catalog: Catalog, file: Callable[..., Path]) -> None:
    config = ImageConfig(
        family="linux",
        platforms=(QEMU,),
        architecture="x86_64",
        cmdline="quiet 'ä'",
        template="{ip} {args}",
        machine="q35",
        end_pattern="halted$",
        obeys_shutdown=False,
        least_memory_mib=64,
    )
    parts = [
        Part(file("k")),
        Part(file("i", "INIT"), Role.INITRD),
        Part(file("a.raw", "DISK"), Role.DISK, name="storage", read_only=False),
        Part(file("b.qcow2", qcow2()), Role.DISK),
    ]
    entry = catalog.add("all", parts, Adding(config=config))
    (flavour,) = entry.flavours
    assert flavour.config == config
    assert [layer.title for layer in flavour.layers] == ["k", "i", "a.raw", "b.qcow2"]
    image = catalog.files(entry, QEMU)
    assert image.initrd is not None
    assert image.initrd.read_bytes() == b"INIT"
    assert [(d.format, d.name, d.read_only) for d in image.disks] == [
        ("raw", "storage", False),
        ("qcow2", "", True),
    ]
    assert (image.end_pattern, image.obeys_shutdown, image.least_memory_mib) == (
        "halted$",
        False,
        64,
    )


def test_what_the_bytes_tell_is_added(catalog: Catalog, file: Callable[..., Path]) -> None:
    (flavour,) = catalog.add_from("m", str(file(contents="MIRA"))).flavours
    assert (flavour.config.family, flavour.config.architecture) == ("mirage", "x86_64")
    assert flavour.config.platforms == (QEMU,)
    assert flavour.name == "qemu"


@pytest.mark.parametrize("file_name", ["image.yaml", "image.json"])
def test_a_folder_becomes_an_image(
    catalog: Catalog, file: Callable[..., Path], file_name: str
) -> None:
    file("src/kernel")
    file("src/initrd", "INIT")
    file("src/disk.raw", "DISK")
    file("src/disk2.qcow2", qcow2())
    file("src/notes.txt", "no part of it")
    said = {"family": "osv", "platforms": ["qemu"], "cmdline": "/app", "obeys_shutdown": True}
    folder = file(f"src/{file_name}", json.dumps(said)).parent
    entry = catalog.add_from("osv", str(folder))
    image = catalog.files(entry)
    assert (image.family, image.cmdline, image.obeys_shutdown) == ("osv", "/app", True)
    assert [disk.format for disk in image.disks] == ["raw", "qcow2"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n", "field: value"),
        ("familly: osv\n", "there is no familly; known are family"),
        ("family: [osv]\n", "family: not one word"),
        ("platforms: [kvm]\n", "qemu, xen, spt"),
        ("end_pattern: '('\n", "not a regular expression"),
        ("least_memory_mib: 1.5\n", "not a number of MiB"),
        ("obeys_shutdown: 1\n", "neither true nor false"),
        ('cmdline: "a\\nb"\n', "not one line"),
        ("a: &a [x]\nb: [*a, *a", "cannot be read"),
        ("!!python/object:os.system {}", "cannot be read"),
        ("[" * 5000, "cannot be read"),
    ],
)
def test_a_wrong_config_file(
    catalog: Catalog, file: Callable[..., Path], text: str, said: str
) -> None:
    file("src/kernel")
    folder = file("src/image.yaml", text).parent
    with pytest.raises(ImageRefused, match=r"image.yaml") as refused:
        catalog.add_from("x", str(folder))
    assert said in str(refused.value)


def test_an_alias_bomb_is_only_refused(catalog: Catalog, file: Callable[..., Path]) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    file("src/kernel")
    folder = file("src/image.yaml", "\n".join(lines) + "\nplatforms: *a59\n").parent
    with pytest.raises(ImageRefused):
        catalog.add_from("x", str(folder))


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (b"ARMK", "built for ARM"),
        (b"INIT", "nothing to boot"),
        (b"what is this", "--family"),
        (qcow2(backing=100), "another file"),
        (qcow2(features=4), "another file"),
        (qcow2()[:40], "another file"),
    ],
    ids=["unusable", "initrd", "unknown", "backing file", "data file", "short qcow2"],
)
def test_what_is_not_taken(
    catalog: Catalog, file: Callable[..., Path], root: Path, contents: bytes, said: str
) -> None:
    with pytest.raises(ImageRefused, match=said):
        catalog.add_from("x", str(file("x.img", contents)))
    assert catalog.list() == ()
    assert [path.name for path in (root / "blobs" / "sha256").iterdir()] == []


def test_an_unknown_file_is_taken_with_a_family(
    catalog: Catalog, file: Callable[..., Path]
) -> None:
    entry = catalog.add_from("x", str(file(contents="odd")), how=a(family="hermit"))
    assert catalog.files(entry).family == "hermit"


def test_a_disk_said_to_be_of_another_format(catalog: Catalog, file: Callable[..., Path]) -> None:
    file("src/disk.raw", qcow2())
    with pytest.raises(ImageRefused, match="said to be raw, and its bytes are qcow2"):
        catalog.add_from("x", str(file("src/kernel").parent))


@pytest.mark.parametrize("source", ["absent", "."])
def test_sources_that_are_none(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageNotFound):
        catalog.add_from("x", source)


def test_a_pipe_does_not_hang(catalog: Catalog, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageRefused, match="not a regular file"):
        catalog.add_from("x", str(tmp_path / "pipe"))


def test_a_file_with_the_wrong_digest(catalog: Catalog, file: Callable[..., Path]) -> None:
    wanted = "sha256:" + "0" * 64
    with pytest.raises(ImageDamaged, match=f"{wanted} and is sha256:[0-9a-f]{{64}}"):
        catalog.add_from("x", str(file()), digests=[wanted])
    assert catalog.list() == ()


@pytest.mark.parametrize(
    "name", ["", ":1", "a:", "A", "../x", "a b", "a,b", "a//b", "-a", "a:-", "sha256:" + "0" * 64]
)
def test_wrong_names(catalog: Catalog, file: Callable[..., Path], name: str) -> None:
    with pytest.raises(ImageRefused, match="no name for an image"):
        catalog.add_from(name, str(file()))


def test_a_catalogue_that_hypervisors_could_not_be_told(tmp_path: Path) -> None:
    for name in ("a b", "a,b"):
        with pytest.raises(CatalogError, match="blanks or commas"):
            Catalog(tmp_path / name)


# --- on disk ----------------------------------------------------------------------------------


def test_hypervisors_can_read_it_and_nobody_writes_it(
    open_catalog: Callable[..., Catalog], root: Path, file: Callable[..., Path]
) -> None:
    before = os.umask(0o077)
    try:
        image = open_catalog().files(open_catalog().add_from("x", str(file())))
    finally:
        os.umask(before)
    assert stat.S_IMODE(image.main_file.stat().st_mode) == 0o444
    assert {
        stat.S_IMODE(path.stat().st_mode) for path in (root, *root.rglob("*")) if path.is_dir()
    } == {0o755}
    assert stat.S_IMODE((root / "index.json").stat().st_mode) == 0o644
    assert not set(" ,") & set(str(image.main_file))


def test_it_is_an_oci_image_layout(catalog: Catalog, root: Path, file: Callable[..., Path]) -> None:
    entry = catalog.add_from("web:1", str(file()), how=a(platforms=(QEMU,)))
    assert json.loads((root / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((root / "index.json").read_text())
    (named,) = index["manifests"]
    assert (index["schemaVersion"], named["annotations"]["org.opencontainers.image.ref.name"]) == (
        2,
        "web:1",
    )
    assert named["platform"] == {"os": "qemu", "architecture": ""}
    blobs = root / "blobs" / "sha256"
    manifest = json.loads((blobs / entry.digest[7:]).read_text())
    assert manifest["artifactType"] == "application/vnd.edgewake.image.v1"
    assert manifest["config"]["mediaType"] == "application/vnd.edgewake.image.config.v1+json"
    (layer,) = manifest["layers"]
    assert layer["mediaType"] == "application/vnd.edgewake.image.kernel.v1"
    assert (blobs / layer["digest"][7:]).stat().st_size == layer["size"]


def test_the_same_image_is_kept_once_and_has_the_same_digest(
    catalog: Catalog, root: Path, file: Callable[..., Path]
) -> None:
    first = catalog.add_from("a", str(file()))
    files = sorted(root.rglob("*"))
    index = (root / "index.json").read_bytes()
    assert catalog.add_from("a", str(file())) == first
    assert (root / "index.json").read_bytes() == index
    assert catalog.add_from("b", str(file())).digest == first.digest
    assert sorted(root.rglob("*")) == files


def test_nothing_is_made_by_looking(catalog: Catalog, root: Path) -> None:
    assert (catalog.list(), catalog.verify(), catalog.collect()) == ((), (), ())
    for look in (catalog.find, catalog.remove, lambda ref: catalog.tag(ref, "b")):
        with pytest.raises(ImageNotFound, match="it has none yet"):
            look("a")
    assert not root.exists()


def test_what_others_wrote_stays(catalog: Catalog, root: Path, file: Callable[..., Path]) -> None:
    """Another tool's entries and unknown fields survive our changes, and say what they are."""
    catalog.add_from("ours", str(file()))
    index = json.loads((root / "index.json").read_text())
    theirs = {"mediaType": "application/x", "digest": "sha256:" + "1" * 64, "size": 3, "x": [1]}
    named = {**theirs, "annotations": {"org.opencontainers.image.ref.name": "theirs:1"}}
    index |= {"manifests": [theirs, *index["manifests"], named], "annotations": {"a": "b"}}
    (root / "index.json").write_text(json.dumps(index))
    catalog.tag("ours", "again")
    after = json.loads((root / "index.json").read_text())
    assert after["annotations"] == {"a": "b"}
    assert theirs in after["manifests"]
    assert named in after["manifests"]
    assert {each.ref: bool(each.problem) for each in catalog.list()} == {
        "ours:latest": False,
        "again:latest": False,
        "theirs:1": True,
    }


# --- flavours ---------------------------------------------------------------------------------


@pytest.fixture
def two(catalog: Catalog, file: Callable[..., Path]) -> Entry:
    """Return an entry with a flavour for QEMU and one for Xen."""
    catalog.add_from("web", str(file("q")), how=a(platforms=(QEMU,)))
    return catalog.add_from("web", str(file("x", "XENK")), how=a(platforms=(XEN,)))


def test_flavours_are_beside_one_another(catalog: Catalog, two: Entry) -> None:
    assert [each.name for each in two.flavours] == ["qemu", "xen"]
    assert catalog.files(two, QEMU).main_file.read_bytes() == b"KERN"
    assert catalog.files(two, XEN).main_file.read_bytes() == b"XENK"
    with pytest.raises(ImageRefused, match="flavours qemu, xen; say which"):
        catalog.files(two)
    with pytest.raises(ImageRefused, match="none is for spt"):
        catalog.files(two, Platform.SPT)
    files = [each.main_file.read_bytes() for each in catalog.fetch(Image("w", catalog="web"))]
    assert files == [b"KERN", b"XENK"]


def test_several_sources_at_once(catalog: Catalog, file: Callable[..., Path]) -> None:
    sources = str(file("m", "MIRA")), str(file("x", "XENK"))
    assert [each.name for each in catalog.add_from("w", *sources).flavours] == ["any", "qemu"]
    with pytest.raises(ImageRefused, match="several of these images are for any"):
        catalog.add_from("v", sources[1], str(file("k")))
    assert [each.ref for each in catalog.list()] == ["w:latest"]


def test_a_flavour_is_replaced_only_on_purpose(
    catalog: Catalog, two: Entry, file: Callable[..., Path]
) -> None:
    other = str(file("q2", "KERN 2"))
    with pytest.raises(ImageExists, match=r"another image for qemu.*--replace"):
        catalog.add_from("web", other, how=a(platforms=(QEMU,)))
    assert catalog.find("web") == two
    after = catalog.add_from("web", other, how=a(platforms=(QEMU,), replace=True))
    assert catalog.files(after, QEMU).main_file.read_bytes() == b"KERN 2"
    assert after.flavours[1] == two.flavours[1]


def test_a_flavour_can_be_called_something(catalog: Catalog, file: Callable[..., Path]) -> None:
    catalog.add_from("w", str(file("a")), how=a(flavour="small"))
    entry = catalog.add_from("w", str(file("b", "KERN b")), how=a(flavour="large"))
    assert [each.name for each in entry.flavours] == ["large", "small"]
    with pytest.raises(ImageRefused, match="no name for a flavour"):
        catalog.add_from("w", str(file("a")), how=a(flavour="a b"))


def test_what_the_lab_file_says_counts_more(catalog: Catalog, file: Callable[..., Path]) -> None:
    how = a(cmdline="theirs", machine="q35", obeys_shutdown=True, platforms=(QEMU,))
    catalog.add_from("w", str(file()), how=how)
    asked = Image("tiny", catalog="w", cmdline="mine", obeys_shutdown=False)
    (image,) = catalog.fetch(asked)
    assert (image.name, image.cmdline, image.machine, image.obeys_shutdown) == (
        "tiny",
        "mine",
        "q35",
        False,
    )
    plain = Image("plain", kernel=Path("/k"))
    assert catalog.fetch(plain) == (plain,)


# --- names ------------------------------------------------------------------------------------


def test_how_an_image_can_be_called(
    catalog: Catalog, two: Entry, file: Callable[..., Path]
) -> None:
    other = catalog.add_from("db:9", str(file("db", "KERN db")))
    assert catalog.find("db") == other  # the only tag
    assert catalog.find("web") == catalog.find("web:latest") == two
    for digest in (two.digest, two.digest[7:], two.digest[7:15]):
        assert catalog.find(digest) == two
    xen = catalog.find(two.flavours[1].digest)
    assert (xen.flavours, xen.ref) == ((two.flavours[1],), two.flavours[1].digest)
    assert catalog.files(xen).main_file.read_bytes() == b"XENK"
    for ref in ("we", "web:2", "web:lates", "0" * 64, "00000", "..", ""):
        with pytest.raises(ImageNotFound, match="db:9, web:latest"):
            catalog.find(ref)


def test_a_name_with_several_tags_is_not_guessed(
    catalog: Catalog, file: Callable[..., Path]
) -> None:
    for tag in ("1", "2"):
        catalog.add_from(f"web:{tag}", str(file(contents=f"KERN {tag}")))
    with pytest.raises(ImageNotFound, match=r"which one.*web:1, web:2"):
        catalog.find("web")


def test_tagging(catalog: Catalog, two: Entry, file: Callable[..., Path]) -> None:
    assert catalog.tag("web", "web:stable").digest == two.digest
    assert catalog.tag("web", "web:stable").digest == two.digest
    one = catalog.tag(two.flavours[0].digest, "only-qemu")
    assert [each.name for each in one.flavours] == ["qemu"]
    catalog.add_from("other", str(file("o", "KERN o")))
    with pytest.raises(ImageExists, match="--replace"):
        catalog.tag("other", "web:stable")
    assert catalog.tag("other", "web:stable", replace_it=True).digest != two.digest
    assert catalog.find("web") == two


def test_removing(catalog: Catalog, two: Entry) -> None:
    catalog.tag("web", "web:2")
    assert catalog.remove("web:2").digest == two.digest
    assert [each.ref for each in catalog.list()] == ["web:latest"]
    with pytest.raises(ImageNotFound):
        catalog.remove(two.digest)
    catalog.remove("web")
    assert catalog.list() == ()


def test_a_guard_can_refuse(catalog: Catalog, two: Entry, file: Callable[..., Path]) -> None:
    def guard(entry: Entry) -> None:
        raise RuntimeError(f"{entry.ref} is in use")

    with pytest.raises(RuntimeError, match="web:latest is in use"):
        catalog.remove("web", guard=guard)
    how = Adding(config=ImageConfig(platforms=(XEN,)), replace=True, guard=guard)
    with pytest.raises(RuntimeError, match="in use"):
        catalog.add_from("web", str(file("new", "XENK new")), how=how)
    assert catalog.find("web") == two
    catalog.add_from("web", str(file("x", "XENK")), how=how)  # changes nothing
