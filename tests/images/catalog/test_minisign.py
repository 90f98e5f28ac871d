"""Signatures: what is taken, what is refused, and that minisign itself agrees."""

import base64
import hashlib
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from images.catalog import Adding, Catalog, ImageConfig, Part, Role, keys_of, minisign
from images.catalog.minisign import PublicKey, check, signature_of
from images.catalog.store import TRUSTED_KEYS
from images.errors import ImageRefused, ImageUntrusted
from tests.images.catalog.ready import ready


@dataclass(frozen=True)
class Signer:
    """Signs as minisign does (https://jedisct1.github.io/minisign/#signature-format)."""

    number: int = 1
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def key_id(self) -> bytes:
        return (0xA000_0000_0000_0000 + self.number).to_bytes(8, "little")

    @property
    def public_text(self) -> str:
        raw = b"Ed" + self.key_id + self.key.public_key().public_bytes_raw()
        return f"untrusted comment: minisign public key\n{base64.b64encode(raw).decode()}\n"

    @property
    def public(self) -> tuple[PublicKey, ...]:
        return keys_of(self.public_text, "test")

    def sign(self, data: bytes, comment: str = "timestamp:1", *, legacy: bool = False) -> str:
        message = data if legacy else hashlib.blake2b(data).digest()
        signature = self.key.sign(message)
        whole = (b"Ed" if legacy else b"ED") + self.key_id + signature
        over = self.key.sign(signature + comment.encode())
        return "\n".join(
            (
                "untrusted comment: signature from a test",
                base64.b64encode(whole).decode(),
                f"trusted comment: {comment}",
                base64.b64encode(over).decode(),
                "",
            )
        )

    def sign_file(self, path: Path, *, legacy: bool = False) -> Path:
        beside = path.with_name(f"{path.name}.minisig")
        beside.write_text(self.sign(path.read_bytes(), legacy=legacy))
        return beside


@pytest.fixture
def signer() -> Signer:
    return Signer()


# --- one signature ----------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("data", [b"", b"KERN", b"x" * 3_000_000], ids=len)
def test_a_right_signature(
    signer: Signer, file: Callable[..., Path], data: bytes, legacy: bool
) -> None:
    signature = signature_of(signer.sign(data, "file:web ä", legacy=legacy), "s")
    check(file(contents=data), "web", signature, (*Signer(2).public, *signer.public))
    assert (signature.comment, signature.key_id) == ("file:web ä", "A000000000000001")


@pytest.mark.parametrize("legacy", [False, True])
def test_other_bytes(signer: Signer, file: Callable[..., Path], legacy: bool) -> None:
    signature = signature_of(signer.sign(b"KERN", legacy=legacy), "s")
    for data in (b"KERM", b"KERN ", b""):
        with pytest.raises(ImageUntrusted, match="web: its bytes are not those"):
            check(file(contents=data), "web", signature, signer.public)


def test_another_comment(signer: Signer, file: Callable[..., Path]) -> None:
    text = signer.sign(b"KERN", "version 1").replace("version 1", "version 2")
    with pytest.raises(ImageUntrusted, match="trusted comment"):
        check(file(), "web", signature_of(text, "s"), signer.public)


def test_another_key(signer: Signer, file: Callable[..., Path]) -> None:
    signature = signature_of(signer.sign(b"KERN"), "s")
    with pytest.raises(ImageUntrusted, match=r"A000000000000001.*trusted keys: A000000000000002"):
        check(file(), "web", signature, Signer(2).public)
    with pytest.raises(ImageUntrusted, match="trusted comment"):  # of the same number
        check(file(), "web", signature, Signer(1).public)


def test_a_signature_of_one_kind_is_none_of_the_other(
    signer: Signer, file: Callable[..., Path]
) -> None:
    """Else whoever has a legacy signature of 64 bytes has one of a file with that BLAKE2b."""
    lines = signer.sign(hashlib.blake2b(b"KERN").digest(), legacy=True).split("\n")
    raw = base64.b64decode(lines[1])
    check(file(), "web", signature_of("\n".join([lines[0], base64.b64encode(b"ED" + raw[2:]).decode(), *lines[2:]]), "s"), signer.public)  # fmt: skip  # noqa: E501
    with pytest.raises(ImageUntrusted):
        check(file(), "web", signature_of("\n".join(lines), "s"), signer.public)


@pytest.mark.parametrize(
    "harm",
    [
        lambda _: "",
        lambda text: text.split("\n", 1)[1],
        lambda text: text.replace("untrusted", "trusted", 1),
        lambda text: text.replace("\ntrusted comment: ", "\ncomment: "),
        lambda text: text + "more\n",
        lambda text: text.replace("RUQB", "AAAA", 1),
        lambda text: text[:80] + "!" + text[81:],
        lambda text: text[:-20],
        lambda text: text.replace("timestamp", "t" * 20_000),
    ],
)
def test_what_is_no_signature(signer: Signer, harm: Callable[[str], str]) -> None:
    text = signer.sign(b"KERN")
    assert harm(text) != text
    with pytest.raises(ImageRefused, match=r"^here"):
        signature_of(harm(text), "here")


@given(
    st.text(max_size=300)
    | st.lists(st.sampled_from(Signer().sign(b"a").split("\n"))).map("\n".join)
)
def test_any_text_is_a_signature_or_refused(text: str) -> None:
    for read in (signature_of, keys_of):
        with suppress(ImageRefused):
            read(text, "here")


def test_keys_are_read_as_minisign_writes_them(signer: Signer) -> None:
    other = Signer(2)
    both = f"# ours\n{signer.public_text}\n\n{other.public_text}"
    assert keys_of(both, "k") == (*signer.public, *other.public)
    assert keys_of(signer.public_text.split("\n")[1], "k") == signer.public
    for text in ("", "# none\n", "RWQ", signer.sign(b"").split("\n")[1]):
        with pytest.raises(ImageRefused, match=r"^k: "):
            keys_of(text, "k")


def test_a_key_has_the_number_that_minisign_prints() -> None:
    """Which is not padded with zeros."""
    raw = base64.b64encode(b"Ed" + bytes.fromhex("2ED3984774AD240A") + bytes(32))
    assert keys_of(raw.decode(), "k")[0].key_id == "A24AD744798D32E"


def test_without_cryptography_nothing_is_believed(
    signer: Signer, file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography.exceptions", None)
    with pytest.raises(ImageUntrusted, match=r"edgewake\[signatures\]"):
        check(file(), "web", signature_of(signer.sign(b"KERN"), "s"), signer.public)


@pytest.mark.real
@pytest.mark.parametrize("option", ["-l", "-H"], ids=["legacy", "prehashed"])
def test_minisign_itself(file: Callable[..., Path], tmp_path: Path, option: str) -> None:
    program = shutil.which("minisign")
    if program is None:
        pytest.fail("minisign is missing: apt-get install minisign")
    public, secret, path = tmp_path / "k.pub", tmp_path / "k.key", file()

    def run(*arguments: str | Path) -> None:
        subprocess.run([program, *arguments], check=True, capture_output=True, input=b"\n\n")

    run("-G", "-W", "-p", public, "-s", secret)
    run("-S", option, "-s", secret, "-m", path, "-t", "a trusted comment")
    signature = signature_of(path.with_name(f"{path.name}.minisig").read_text(), "s")
    keys = keys_of(public.read_text(), "k")
    check(path, "web", signature, keys)
    assert (signature.comment, signature.prehashed) == ("a trusted comment", option == "-H")
    assert keys[0].key_id in public.read_text()  # as its comment has it
    path.write_bytes(b"other")
    with pytest.raises(ImageUntrusted):
        check(path, "web", signature, keys)


@pytest.mark.real
@pytest.mark.parametrize("legacy", [False, True])
def test_minisign_believes_what_the_tests_sign(
    signer: Signer, file: Callable[..., Path], tmp_path: Path, legacy: bool
) -> None:
    """So the signatures that all the tests above are about are real ones."""
    path = file()
    signer.sign_file(path, legacy=legacy)
    (tmp_path / "k.pub").write_text(signer.public_text)
    command = ["minisign", "-V", "-p", str(tmp_path / "k.pub"), "-m", str(path)]
    subprocess.run(command, check=True, capture_output=True)


# --- images -----------------------------------------------------------------------------------


def test_a_signature_is_kept_with_the_image(
    catalog: Catalog, signer: Signer, file: Callable[..., Path]
) -> None:
    path = file()
    how = Adding(signatures=(signer.sign_file(path),), keys=signer.public)
    (flavour,) = catalog.add_from("web", str(path), how=how).flavours
    signature = flavour.layers[0].signature
    assert signature is not None
    assert (signature.key_id, signature.comment) == ("A000000000000001", "timestamp:1")


def test_a_wrong_signature_leaves_nothing(
    catalog: Catalog, signer: Signer, file: Callable[..., Path], root: Path
) -> None:
    signature = signer.sign_file(file("other", "KERN other"))
    how = Adding(signatures=(signature,), keys=signer.public)
    with pytest.raises(ImageUntrusted, match=r"kernel\.bin: its bytes"):
        catalog.add_from("web", str(file()), how=how)
    with pytest.raises(ImageUntrusted, match="add --key"):
        catalog.add_from("web", str(file()), how=Adding(signatures=(signature,)))
    assert catalog.list() == ()
    assert list((root / "blobs" / "sha256").iterdir()) == []


def test_with_a_key_every_file_has_to_be_signed(
    catalog: Catalog, signer: Signer, file: Callable[..., Path]
) -> None:
    kernel, initrd = file("k"), file("i", "INIT")
    parts = [Part(kernel), Part(initrd, Role.INITRD)]
    one, two = signer.sign_file(kernel), signer.sign_file(initrd)
    with pytest.raises(ImageUntrusted, match="i: not signed"):
        catalog.add("web", parts, Adding(signatures=(one,), keys=signer.public))
    entry = catalog.add("web", parts, Adding(signatures=(two, one), keys=signer.public))
    assert all(layer.minisig for layer in entry.flavours[0].layers)


def test_trusted_keys_are_a_policy(
    open_catalog: Callable[..., Catalog], signer: Signer, file: Callable[..., Path], root: Path
) -> None:
    open_catalog().add_from("before", str(file("b", "KERN before")))
    (root / TRUSTED_KEYS).write_text(signer.public_text)
    catalog = open_catalog()
    path = file()
    with pytest.raises(ImageUntrusted, match="not signed"):
        catalog.add_from("web", str(path))
    stranger = Signer(2)
    stranger.sign_file(path)
    for how in (Adding(), Adding(keys=stranger.public)):
        with pytest.raises(ImageUntrusted, match="A000000000000002"):
            catalog.add_from("web", str(path), how=how)
    signer.sign_file(path)
    entry = catalog.add_from("web", str(path))  # its signature is beside it
    assert ready(catalog, entry).main_file.read_bytes() == b"KERN"
    with pytest.raises(ImageUntrusted, match="not signed"):
        ready(catalog, "before")
    assert [(each.what, each.refs) for each in catalog.verify()] == [
        ("before:latest (qemu-xen)", ("before:latest",))
    ]


def test_trusted_keys_count_as_they_are_now(
    catalog: Catalog, signer: Signer, file: Callable[..., Path], root: Path
) -> None:
    """A running edgewake must not go on with keys that were taken away."""
    path = file()
    signer.sign_file(path)
    entry = catalog.add_from("web", str(path), how=Adding(keys=signer.public))
    unsigned = catalog.add_from("plain", str(file("p", "KERN p")))
    assert ready(catalog, unsigned)
    keys = root / TRUSTED_KEYS
    keys.write_text(signer.public_text)
    assert ready(catalog, entry)
    with pytest.raises(ImageUntrusted):
        ready(catalog, unsigned)
    keys.write_text(Signer(2).public_text)
    with pytest.raises(ImageUntrusted):
        ready(catalog, entry)
    keys.write_text("")
    with pytest.raises(ImageRefused, match="trusted-keys"):
        ready(catalog, entry)
    keys.unlink()
    assert ready(catalog, unsigned)


@pytest.mark.parametrize("text", ["", "no key\n"])
def test_a_policy_that_cannot_be_read_lets_nothing_through(
    open_catalog: Callable[..., Catalog], root: Path, file: Callable[..., Path], text: str
) -> None:
    root.mkdir()
    (root / TRUSTED_KEYS).write_text(text)
    with pytest.raises(ImageRefused, match="trusted-keys"):
        open_catalog().add_from("web", str(file()))


def test_a_signature_travels(
    catalog: Catalog,
    open_catalog: Callable[..., Catalog],
    signer: Signer,
    file: Callable[..., Path],
    tmp_path: Path,
) -> None:
    path = file()
    how = Adding(signatures=(signer.sign_file(path),), keys=signer.public)
    entry = catalog.add_from("web", str(path), how=how)
    catalog.export("web", tmp_path / "web.tar")
    strict = open_catalog(tmp_path / "strict", keys=signer.public)
    assert strict.add_from("web", str(tmp_path / "web.tar")).digest == entry.digest
    foreign = open_catalog(tmp_path / "foreign", keys=Signer(2).public)
    with pytest.raises(ImageUntrusted, match="not among the trusted keys"):
        foreign.add_from("web", str(tmp_path / "web.tar"))


def test_a_signature_is_checked_once_for_the_same_bytes(
    open_catalog: Callable[..., Catalog],
    signer: Signer,
    file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = file()
    signer.sign_file(path)
    catalog = open_catalog(keys=signer.public)
    entry = catalog.add_from("web", str(path))
    calls: list[str] = []
    real = minisign.check

    def spy(path: Path, what: str, *rest: Any) -> None:
        calls.append(what)
        real(path, what, *rest)

    monkeypatch.setattr(minisign, "check", spy)
    again = open_catalog(keys=signer.public)
    for _ in range(3):
        ready(again, entry)
    assert len(calls) == 1


def test_a_folder_with_signatures(
    open_catalog: Callable[..., Catalog], signer: Signer, file: Callable[..., Path]
) -> None:
    for name, contents in (("kernel", "LINX"), ("initrd", "INIT"), ("disk.raw", "DISK")):
        signer.sign_file(file(f"src/{name}", contents))
    folder = file("src/image.json", '{"family": "linux"}').parent
    catalog = open_catalog(keys=signer.public)
    entry = catalog.add_from("web", str(folder))
    assert entry.flavours[0].config == ImageConfig(
        family="linux", platforms=entry.flavours[0].config.platforms
    )
    assert len(ready(catalog, entry).files) == 3
