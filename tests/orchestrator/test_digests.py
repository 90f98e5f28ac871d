"""Each file is hashed once, as long as it does not change."""

import itertools
from pathlib import Path

import pytest

from orchestrator import digests as module
from orchestrator.digests import Digests


def test_a_digest_is_computed_once_per_version_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"some")
    hashed = itertools.count(1)
    monkeypatch.setattr(module, "hash_of", lambda _pieces: str(next(hashed)))
    digests = Digests()
    assert [digests.of(image), digests.of(image)] == ["1", "1"]
    link = image.with_name("link")
    link.symlink_to(image)
    assert digests.of(link) == "1"
    image.write_bytes(b"other")
    assert digests.of(image) == "2"
