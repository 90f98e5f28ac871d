"""Whose images are taken: signatures against trusted keys, for whole sets of files.

With trusted keys, every file of an image has to be signed by one of them, when it is added and when
it is used (another OCI tool may have put it there). What is signed are the files; the command line
and the other words of the configuration are not.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from images.catalog import minisign
from images.catalog.entry import Layer
from images.catalog.files import read_small
from images.catalog.minisign import PublicKey, Signature
from images.catalog.names import Digest
from images.catalog.oci import MOST_DOCUMENT
from images.errors import CatalogError, ImageNotFound, ImageUntrusted

PathOf = Callable[[Digest], Path]


class Trust:
    """The trusted keys; without any, everything is taken. Remembers what it has checked."""

    def __init__(self, keys: Sequence[PublicKey]) -> None:
        self.keys = tuple(keys)
        self._checked: set[tuple[Digest, str]] = set()

    def check(self, layers: Sequence[Layer], path_of: PathOf) -> None:
        """Raise `ImageUntrusted` unless each file is signed by a trusted key, if there are any."""
        if self.keys:
            for layer in layers:
                self._check(layer, path_of)

    def _check(self, layer: Layer, path_of: PathOf) -> None:
        signature, what = layer.signature, layer.title or str(layer.role)
        if signature is None:
            raise ImageUntrusted(
                f"{what}: not signed, and only images signed by the trusted keys are taken; "
                "sign it with minisign and add it with --signature"
            )
        done = layer.blob.digest, signature.text
        if done not in self._checked:
            minisign.check(path_of(layer.blob.digest), what, signature, self.keys)
            self._checked.add(done)


class TrustFile:
    """The trusted keys in a file: what counts is what it says now, at each use."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: tuple[bytes | None, Trust] = None, Trust(())

    def now(self) -> Trust:
        """Return the trust in the keys that are there; nothing checked with others counts.

        Without the file, everything is taken. Raises `ImageError` if it cannot be read.
        """
        data = self._read()
        if data != self._last[0]:
            text = "" if data is None else data.decode(errors="replace")
            keys = () if data is None else minisign.keys_of(text, str(self._path))
            self._last = data, Trust(keys)
        return self._last[1]

    def _read(self) -> bytes | None:
        try:
            return read_small(self._path, MOST_DOCUMENT)
        except ImageNotFound as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise CatalogError(f"{error}; whom to trust cannot be known without it") from error


def signed(
    layers: Sequence[Layer],
    signatures: Sequence[Signature],
    keys: Sequence[PublicKey],
    path_of: PathOf,
) -> tuple[Layer, ...]:
    """Return the files with their signatures: each signature must fit one of them.

    Raises `ImageUntrusted` if one fits none, or is by none of the keys.
    """
    found = list(layers)
    for signature in signatures:
        at = _signed_by(found, signature, keys, path_of)
        found[at] = replace(found[at], minisig=signature.text)
    return tuple(found)


def _signed_by(
    layers: Sequence[Layer], signature: Signature, keys: Sequence[PublicKey], path_of: PathOf
) -> int:
    errors: list[str] = []
    for at, layer in enumerate(layers):
        what = layer.title or str(layer.role)
        try:
            minisign.check(path_of(layer.blob.digest), what, signature, keys)
        except ImageUntrusted as error:
            errors.append(str(error))
        else:
            return at
    raise ImageUntrusted("; ".join(dict.fromkeys(errors)))
