"""Whatever an index, a manifest or a configuration says: it is read or refused, nothing else."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images.catalog import Catalog, oci
from images.catalog.config import config_of
from images.catalog.entry import Role, layers_of
from images.catalog.names import digest_of
from images.errors import ImageError, ImageRefused
from images.facts import Format, ImageFacts

DIGEST = "sha256:" + "0" * 64
KEYS = (
    *("manifests", "config", "layers", "digest", "size", "mediaType", "annotations"),
    *("platform", "os", "subject", "blobs", oci.REF_NAME, oci.FLAVOUR, oci.MINISIG),
    *("family", "platforms", "cmdline", "end_pattern", "least_memory_mib", "machine"),
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([DIGEST, oci.INDEX, oci.MANIFEST, oci.CONFIG, oci.KERNEL, "qemu", 1 << 60]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=6,
        )
    ),
    max_leaves=30,
)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"nul", b"{", b'{"a": NaN}', b'{"a": Infinity}', b"\xff", b"[" * 200_000,
        b'{"a":' * 100_000, b"1" * 10_000, b"{}" + b" " * oci.MOST_DOCUMENT,
    ],
)  # fmt: skip
def test_what_is_no_document(text: bytes) -> None:
    with pytest.raises(ImageRefused, match=r"^here: "):
        oci.read(text, "here")


@pytest.mark.parametrize(
    "digest",
    [
        "", DIGEST[:-1], DIGEST + "0", DIGEST + "\n", DIGEST.upper(), "sha512:" + "0" * 128,
        "sha256:../../etc/passwd", "sha256:" + "0" * 63 + "/", "../" + DIGEST, 5, None, [DIGEST],
    ],
)  # fmt: skip
def test_what_is_no_digest(digest: object) -> None:
    with pytest.raises(ImageRefused, match="no digest"):
        digest_of(digest, "here")


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": -1}, {"size": 1.0}, {"size": True}, {"size": "3"}, {"size": 1 << 51},
        {"size": None}, {"digest": None}, {"mediaType": 5}, {"annotations": []},
        {"annotations": {"a": 1}}, {"annotations": {"a": "\ud800"}}, {"platform": "linux"},
        {"platform": {"os": 1}}, {"annotations": {"a": "x" * 40_000}},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_descriptor(wrong: dict[str, Any]) -> None:
    right = {"mediaType": oci.KERNEL, "digest": DIGEST, "size": 3}
    assert oci.descriptor_of(right, "here").size == 3
    with pytest.raises(ImageRefused, match=r"^here"):
        oci.descriptor_of(right | wrong, "here")


def test_too_many_of_anything() -> None:
    one = {"mediaType": oci.KERNEL, "digest": DIGEST, "size": 3}
    with pytest.raises(ImageRefused, match="at most 64"):
        oci.manifest_of({"config": one, "layers": [one] * 65}, "here")
    with pytest.raises(ImageRefused, match="at most 10000"):
        oci.index_entries({"manifests": [one] * 10_001}, "here")
    disk = one | {"mediaType": oci.DISK.format(format="raw")}
    manifest = oci.manifest_of({"config": one, "layers": [disk] * 17}, "here")
    with pytest.raises(ImageRefused, match="at most 16 disks"):
        layers_of(manifest, "here")


def test_names_of_files_lead_nowhere() -> None:
    said = {oci.TITLE: "../../etc/pass\x1b[2Jwd\n", oci.DISK_NAME: "/dev/../sda"}
    one = {"mediaType": oci.DISK.format(format="raw"), "digest": DIGEST, "size": 3}
    manifest = oci.manifest_of({"config": one, "layers": [one | {"annotations": said}]}, "here")
    (layer,) = layers_of(manifest, "here")
    assert (layer.role, layer.title, layer.name) == (Role.DISK, "pass[2Jwd", "sda")


def test_names_that_a_terminal_would_obey_are_none(tmp_path: Path) -> None:
    one = {"mediaType": oci.MANIFEST, "digest": DIGEST, "size": 3}
    named = one | {"annotations": {oci.REF_NAME: "\x1b[2Jweb:1"}}
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "index.json").write_text(json.dumps({"manifests": [named]}))
    assert Catalog(tmp_path / "c").list() == ()


@settings(max_examples=300)
@given(JSON)
def test_any_document_is_read_or_refused(value: object) -> None:
    data = json.dumps(value).encode()
    for read in (
        lambda each: oci.index_entries(each, "here"),
        lambda each: layers_of(oci.manifest_of(each, "here"), "here"),
        lambda each: list(oci.linked(each, "here")),
        lambda each: config_of(each, "here"),
        lambda each: config_of(each, "here", strict=True),
    ):
        with suppress(ImageRefused):
            read(oci.read(data, "here"))


@settings(max_examples=150)
@given(st.lists(JSON, max_size=3), JSON)
def test_any_catalogue_is_used_or_refused(documents: list[object], index: object) -> None:
    """The documents are there under their digests, so that an index can lead to them."""
    with TemporaryDirectory() as folder:
        root = Path(folder) / "c"
        blobs = root / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        entries: list[object] = []
        for number, document in enumerate(documents):
            data = json.dumps(document).encode()
            digest = hashlib.sha256(data).hexdigest()
            (blobs / digest).write_bytes(data)
            media_type = oci.INDEX if number % 2 else oci.MANIFEST
            descriptor = oci.Descriptor(
                media_type,
                digest_of(f"sha256:{digest}", ""),
                len(data),
                {oci.REF_NAME: f"n{number}:1"},
            )
            entries.append(descriptor.document())
        whole = index if isinstance(index, dict) and not entries else {"manifests": entries}
        (root / "index.json").write_text(json.dumps(whole))
        (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        catalog = Catalog(root, inspect=lambda _: ImageFacts(0, format=Format.ELF))
        for use in (
            catalog.list,
            catalog.verify,
            lambda: catalog.find("n0"),
            lambda: catalog.find("abcdef"),
            lambda: catalog.collect(grace_s=0),
            lambda: catalog.remove("n0:1"),
            lambda: catalog.add_from("copy", f"oci:{root}:n1:1"),
        ):
            with suppress(ImageError):
                use()
        assert sorted(each.name for each in Path(folder).iterdir()) == ["c"]
