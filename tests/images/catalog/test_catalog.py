"""The catalogue's verbs: what is added can be found, fetched, named again, and removed."""

import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from images.bootspec import Image, Platform
from images.catalog import Adding, Catalog, Entry, ImageConfig, Part, Role
from images.catalog.blobs import Staging
from images.errors import (
    CatalogError,
    ImageDamaged,
    ImageError,
    ImageExists,
    ImageNotFound,
    ImageRefused,
)
from tests.images.catalog.ready import ready

QEMU, XEN = Platform.QEMU, Platform.XEN


def a(**said: object) -> Adding:
    """Return how to add with a configuration, and options of `Adding` itself."""
    options = {key: said.pop(key) for key in ("replace", "flavour", "parts") if key in said}
    return Adding(config=ImageConfig(**said), **options)  # type: ignore[arg-type]


def qcow2(*, version: int = 3, backing: int = 0, features: int = 0) -> bytes:
    head = b"QFI\xfb" + version.to_bytes(4, "big") + backing.to_bytes(8, "big")
    head += (0).to_bytes(4, "big") + (16).to_bytes(4, "big")  # cluster bits
    return head.ljust(72, b"\0") + features.to_bytes(8, "big") + bytes(432)


# --- adding and finding -----------------------------------------------------------------------


def test_a_file_becomes_an_image(catalog: Catalog, file: Callable[..., Path]) -> None:
    entry = catalog.add_from("web:1", str(file(contents="KERN and more")), how=a(cmdline="--v"))
    assert entry == catalog.find("web:1") == catalog.list()[0]
    image = ready(catalog, entry)
    assert image.main_file.read_bytes() == b"KERN and more"
    assert (image.name, image.cmdline, image.disks) == ("web:1", "--v", ())


def test_all_that_an_image_is_comes_back(catalog: Catalog, file: Callable[..., Path]) -> None:
    config = ImageConfig(
        family="linux",
        platforms=(QEMU,),
        architecture="x86_64",
        cmdline="quiet 'ä'",
        template="{ip} {args}",
        machine="pc",
        end_pattern="^\\[halted\\]$",
        obeys_shutdown=False,
        least_memory_mib=64,
    )
    parts = [
        Part(file("k", "LINX")),
        Part(file("i", "INIT"), Role.INITRD),
        Part(file("a.raw", "DISK"), Role.DISK, name="storage", read_only=False),
        Part(file("b.qcow2", qcow2()), Role.DISK),
    ]
    entry = catalog.add("all", parts, Adding(config=config))
    (flavour,) = entry.flavours
    assert flavour.config == config
    assert [layer.title for layer in flavour.layers] == ["k", "i", "a.raw", "b.qcow2"]
    image = ready(catalog, entry, QEMU)
    assert image.initrd is not None
    assert image.initrd.read_bytes() == b"INIT"
    assert [(d.format, d.name, d.read_only) for d in image.disks] == [
        ("raw", "storage", False),
        ("qcow2", "", True),
    ]
    assert (image.end_pattern, image.obeys_shutdown, image.least_memory_mib) == (
        "^\\[halted\\]$",
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
    file("src/kernel", "OSVK")
    file("src/disk.raw", "DISK")
    file("src/disk2.qcow2", qcow2())
    file("src/notes.txt", "no part of it")
    said = {"family": "osv", "platforms": ["qemu"], "cmdline": "/app", "obeys_shutdown": True}
    folder = file(f"src/{file_name}", json.dumps(said)).parent
    entry = catalog.add_from("osv", str(folder))
    image = ready(catalog, entry)
    assert (image.family, image.cmdline, image.obeys_shutdown) == ("osv", "/app", True)
    assert [disk.format for disk in image.disks] == ["raw", "qcow2"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n", "field: value"),
        ("familly: osv\n", "there is no familly; known are family"),
        ("family: [osv]\n", "family: not one word"),
        ("platforms: [kvm]\n", "qemu, xen, spt"),
        ("end_pattern: '(a+)+'\n", "write one text"),
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
        (b"what is this", r"/x\.img does not tell"),
        (qcow2(backing=100), "another file"),
        (qcow2(features=4), "another file"),
        (qcow2()[:40], "cut off"),
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


@pytest.mark.parametrize(
    ("contents", "said", "why"),
    [
        ("ODDK", {}, "add 'family:'"),
        ("KERN", {"family": "mirage"}, "the bytes of .* say unikraft"),
        ("ODDK", {"family": "mirag"}, "unknown image family 'mirag'; known families"),
        ("what", {"family": "other"}, "no loader knows a way into it"),
        ("XENK", {"platforms": (QEMU,)}, "Xen PV notes only"),
        ("KERN", {"platforms": (Platform.SPT,)}, "does not run on a host that runs the solo5-spt"),
        ("QEMU", {"machine": "microvm"}, "machine microvm"),
        ("KERN", {"template": "{ip"}, "a lone {"),
        ("LINX", {}, "needs an initrd"),
        ("DISK", {"family": "unikraft"}, "can be entered by BIOS boot disk"),
    ],
    ids=str,
)
def test_what_boots_nowhere(
    catalog: Catalog, file: Callable[..., Path], contents: str, said: dict[str, Any], why: str
) -> None:
    path = file("dir/x.img", contents)
    with pytest.raises(ImageRefused, match=why) as refused:
        catalog.add_from("x", str(path), how=a(**said))
    assert str(refused.value).startswith(str(path))
    assert catalog.list() == ()


def test_one_platform_that_takes_it_is_enough(catalog: Catalog, file: Callable[..., Path]) -> None:
    how = a(platforms=(QEMU, XEN), least_memory_mib=1 << 20)
    assert catalog.add_from("x", str(file(contents="XENK")), how=how)


@pytest.mark.parametrize(
    ("pattern", "right"),
    [
        ("halted", True), ("^halted$", True), (r"\[ 1\.0\] off", True), ("Ende \u00e4", True),
        ("a.c", False), ("(a+)+$", False), ("a|b", False), (r"\d", False), ("^", False),
        ("$", False), ("^$", False), ("a$b", False), ("(?m)^x", False), ("a{2}", False),
        ("a\\", False),
    ],
)  # fmt: skip
def test_an_end_pattern_is_one_text(
    catalog: Catalog, file: Callable[..., Path], pattern: str, right: bool
) -> None:
    how = a(end_pattern=pattern)
    if right:
        assert ready(catalog, catalog.add_from("x", str(file()), how=how)).end_pattern == pattern
        return
    with pytest.raises(ImageRefused, match="end_pattern: write one text"):
        catalog.add_from("x", str(file()), how=how)


def test_an_end_pattern_that_got_in_is_refused_when_it_is_used(
    catalog: Catalog, file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another OCI tool may have put it there: here the check is away while it is added."""
    with monkeypatch.context() as lax:
        lax.setattr("images.catalog.config._PATTERN", re.compile(".*"))
        catalog.add_from("x", str(file()), how=a(end_pattern="(a+)+$"))
    with pytest.raises(ImageRefused, match="end_pattern: write one text"):
        catalog.find("x")


def test_a_local_file_is_looked_at_before_it_is_copied(
    catalog: Catalog, file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[Path] = []
    monkeypatch.setattr(Staging, "copy_file", lambda _, path, **__: copied.append(path))
    initrd = Part(file("i", "KERN no cpio"), Role.INITRD)
    sources = (str(file("d.img", qcow2(backing=9))), str(file("k", "LINX")))
    for source in sources:
        with pytest.raises(ImageRefused):
            catalog.add_from("x", source, how=a(parts=(initrd,)))
    assert copied == []


def test_a_file_that_cannot_be_read_is_named(
    catalog: Catalog, root: Path, file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ImageError, match="/proc/self/mem") as refused:
        catalog.add_from("x", "/proc/self/mem", how=a(family="other"))
    assert str(root) not in str(refused.value)
    kernel = file()
    memory = Path("/proc/self/mem")
    monkeypatch.setattr("images.catalog.blobs.open_regular", lambda _: memory.open("rb"))
    with pytest.raises(ImageError, match=str(kernel)) as refused:
        catalog.add_from("x", str(kernel))
    assert str(root) not in str(refused.value)


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


@pytest.mark.parametrize("name", ["a b", "a,b"])
def test_a_catalogue_that_hypervisors_could_not_be_told(tmp_path: Path, name: str) -> None:
    """Who never uses one has no use for an error, either."""
    catalog = Catalog(tmp_path / name)
    plain = Image("plain", kernel=tmp_path / "k")
    assert catalog.fetch(plain)[0].ready() is plain
    catalog.hold("guest", [tmp_path / "k"])
    catalog.release("guest")
    assert catalog.holders() == ()
    for use in (
        catalog.list,
        lambda: catalog.find("x"),
        lambda: catalog.add_from("x", str(tmp_path)),
        lambda: catalog.fetch(Image("x", catalog="x")),
    ):
        with pytest.raises(CatalogError, match="blanks or commas"):
            use()


# --- on disk ----------------------------------------------------------------------------------


def test_hypervisors_can_read_it_and_nobody_writes_it(
    open_catalog: Callable[..., Catalog], root: Path, file: Callable[..., Path]
) -> None:
    before = os.umask(0o077)
    try:
        image = ready(open_catalog(), open_catalog().add_from("x", str(file())))
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
    fetched = catalog.fetch(Image("w", catalog="web"))
    assert [(each.flavour, each.platforms) for each in fetched] == [
        ("qemu", (QEMU,)),
        ("xen", (XEN,)),
    ]
    assert [each.ready().main_file.read_bytes() for each in fetched] == [b"KERN", b"XENK"]


def test_one_bad_flavour_leaves_the_others(
    open_catalog: Callable[..., Catalog], catalog: Catalog, two: Entry, root: Path
) -> None:
    """Whatever is wrong: its file, its documents, its signature, or who made it."""
    qemu = two.flavours[0]
    manifest = root / "blobs" / "sha256" / qemu.digest[7:]
    for spoilt, error in ((qemu.layers[0].blob.digest, ImageNotFound), (qemu.digest, ImageError)):
        path = root / "blobs" / "sha256" / spoilt[7:]
        path.rename(path.with_name("away"))
        bad, good = open_catalog().fetch(Image("w", catalog="web"))
        assert bad.flavour == "qemu"
        with pytest.raises(error):
            bad.ready()
        assert good.ready().main_file.read_bytes() == b"XENK"
        assert {each.refs for each in catalog.verify()} == {("web:latest",)}
        path.with_name("away").rename(path)
    manifest.chmod(0o644)
    manifest.write_bytes(b"{}")
    (entry,) = catalog.list()
    assert [bool(each.problem) for each in entry.flavours] == [True, False]
    with pytest.raises(ImageRefused, match="image sha256:"):
        catalog.find(qemu.digest)


def test_adding_beside_a_bad_flavour_keeps_what_can_be_mended(
    catalog: Catalog, two: Entry, root: Path, file: Callable[..., Path]
) -> None:
    (root / "blobs" / "sha256" / two.flavours[0].digest[7:]).unlink()
    with pytest.raises(ImageExists, match="another image for qemu"):
        catalog.add_from("web", str(file("n", "QEMU new")), how=a(platforms=(QEMU,)))
    both = a(platforms=(QEMU, XEN))
    after = catalog.add_from("web", str(file("b", "KERN both")), how=both)
    assert [(each.name, bool(each.problem)) for each in after.flavours] == [
        ("qemu", True),
        ("qemu-xen", False),
        ("xen", False),
    ]
    mended = catalog.add_from("web", str(file("q")), how=a(platforms=(QEMU,)))
    assert not any(each.problem for each in mended.flavours)


def test_only_what_is_tried_is_verified(
    catalog: Catalog, two: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    real = catalog._blobs.verified
    monkeypatch.setattr(catalog._blobs, "verified", lambda d: seen.append(d) or real(d))
    catalog.fetch(Image("w", catalog="web"))[1].ready()
    assert seen == [two.flavours[1].layers[0].blob.digest]


def test_several_sources_at_once(catalog: Catalog, file: Callable[..., Path]) -> None:
    sources = str(file("m", "MIRA")), str(file("x", "XENK"))
    assert [each.name for each in catalog.add_from("w", *sources).flavours] == ["qemu", "xen"]
    with pytest.raises(ImageRefused, match="several of these images are for xen"):
        catalog.add_from("v", sources[1], str(file("y", "XENK y")))
    assert [each.ref for each in catalog.list()] == ["w:latest"]


def test_a_flavour_is_replaced_only_on_purpose(
    catalog: Catalog, two: Entry, file: Callable[..., Path]
) -> None:
    other = str(file("q2", "KERN 2"))
    with pytest.raises(ImageExists, match=r"another image for qemu.*--replace"):
        catalog.add_from("web", other, how=a(platforms=(QEMU,)))
    assert catalog.find("web") == two
    after = catalog.add_from("web", other, how=a(platforms=(QEMU,), replace=True))
    assert ready(catalog, after, QEMU).main_file.read_bytes() == b"KERN 2"
    assert after.flavours[1] == two.flavours[1]


def test_a_flavour_can_be_called_something(catalog: Catalog, file: Callable[..., Path]) -> None:
    catalog.add_from("w", str(file("a")), how=a(flavour="small"))
    entry = catalog.add_from("w", str(file("b", "KERN b")), how=a(flavour="large"))
    assert [each.name for each in entry.flavours] == ["large", "small"]
    with pytest.raises(ImageRefused, match="no name for a flavour"):
        catalog.add_from("w", str(file("a")), how=a(flavour="a b"))


def test_what_the_lab_file_says_counts_more(catalog: Catalog, file: Callable[..., Path]) -> None:
    how = a(cmdline="theirs", machine="pc", obeys_shutdown=True, platforms=(QEMU,))
    catalog.add_from("w", str(file()), how=how)
    asked = Image("tiny", catalog="w", cmdline="mine", obeys_shutdown=False)
    (fetched,) = catalog.fetch(asked)
    image = fetched.ready()
    assert (image.name, image.cmdline, image.machine, image.obeys_shutdown) == (
        "tiny",
        "mine",
        "pc",
        False,
    )
    plain = Image("plain", kernel=Path("/k"))
    assert catalog.fetch(plain)[0].ready() is plain


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
    assert ready(catalog, xen).main_file.read_bytes() == b"XENK"
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


def test_tagging_can_be_refused_too(
    catalog: Catalog, two: Entry, file: Callable[..., Path]
) -> None:
    asked: list[str] = []

    def guard(entry: Entry) -> None:
        asked.append(entry.ref)
        raise RuntimeError("in use")

    catalog.tag("web", "again", guard=guard)  # takes nothing away
    catalog.add_from("other", str(file("o", "KERN o")))
    with pytest.raises(RuntimeError, match="in use"):
        catalog.tag("other", "web", replace_it=True, guard=guard)
    assert asked == ["web:latest"]
    assert catalog.find("web") == two


def test_what_depends_on_a_name(catalog: Catalog, two: Entry, file: Callable[..., Path]) -> None:
    """By whatever it is called: name, digest, or the digest of one flavour."""
    other = catalog.add_from("other", str(file("o", "KERN o")))
    for ref in ("web", "web:latest", two.digest, two.digest[7:15], two.flavours[1].digest):
        assert catalog.depends(ref, two)
        assert not catalog.depends(ref, other)
    assert not catalog.depends("absent", two)
    catalog.tag("web", "web:2")
    assert not catalog.depends(two.flavours[1].digest, two)  # the other name leads there as well
    assert catalog.depends("web:latest", two)
