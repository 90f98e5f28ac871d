"""Tar archives without trust: what is read, what is refused, and that nothing else can happen."""

import io
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.catalog import tarball
from images.errors import ImageRefused

LONG = "d/" * 90 + "name"


def _tar(*members: tarfile.TarInfo | str, form: int = tarfile.PAX_FORMAT) -> io.BytesIO:
    """Return an archive of files whose contents are their names, or of other members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member, io.BytesIO(bytes(member.size)))
                continue
            info = tarfile.TarInfo(member)
            info.size = len(member.encode())
            archive.addfile(info, io.BytesIO(member.encode()))
    out.seek(0)
    return out


def _info(name: str = "x", kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def _read(file: io.BytesIO) -> dict[str, bytes]:
    found = tarball.members(file, "t.tar")
    return {name: tarball.Slice(file, member).read(1 << 20) for name, member in found.items()}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize(
    "name", ["a", "./a/b", "blobs/sha256/x", LONG], ids=["a", "dot", "b", "long"]
)
def test_what_tools_write_is_read(form: int, name: str) -> None:
    folder = _info("folder", tarfile.DIRTYPE)
    read = _read(_tar(folder, "first", name, form=form))
    assert read == {"first": b"first", name.removeprefix("./"): name.encode()}


def test_names_beyond_ascii() -> None:
    assert _read(_tar("bücher/" + "ü" * 200)) == {
        "bücher/" + "ü" * 200: ("bücher/" + "ü" * 200).encode()
    }


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (_info(kind=tarfile.SYMTYPE, linkname="/etc/passwd"), "neither a file nor a folder"),
        (_info(kind=tarfile.LNKTYPE, linkname="a"), "neither"),
        (_info(kind=tarfile.CHRTYPE), "neither"),
        (_info(kind=tarfile.BLKTYPE), "neither"),
        (_info(kind=tarfile.FIFOTYPE), "neither"),
        (_info(kind=tarfile.GNUTYPE_SPARSE), "neither"),
        (_info(kind=tarfile.CONTTYPE), "neither"),
        (_info("/etc/passwd"), "no name"),
        (_info("../x"), "no name"),
        (_info("a/../../x"), "no name"),
        (_info("a/.."), "no name"),
        (_info("n" * 2000), "no name"),
        (_info(pax_headers={"path": "../x"}), "no name"),
        (_info(pax_headers={"path": "/x"}), "no name"),
        (_info(pax_headers={"size": str(1 << 60)}), "truncated"),
        (_info(pax_headers={"size": "-1"}), "size"),
        (_info(pax_headers={"size": "1" * 50}), "size"),
        (_info(pax_headers={"GNU.sparse.major": "1"}), "sparse"),
        (_info(pax_headers={"comment": "x" * 100_000}), "extended header"),
    ],
    ids=lambda value: "" if isinstance(value, tarfile.TarInfo) else str(value),
)
def test_what_is_refused(member: tarfile.TarInfo, said: str) -> None:
    with pytest.raises(ImageRefused, match=said):
        _read(_tar("a", member))


def test_a_name_that_comes_twice() -> None:
    with pytest.raises(ImageRefused, match="twice"):
        _read(_tar("a", "./a"))


def test_a_name_for_all_members() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", pax_headers={"path": "x"}) as archive:
        archive.addfile(tarfile.TarInfo("a"))
    with pytest.raises(ImageRefused, match="for all files"):
        _read(out)


def test_more_members_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarball, "MOST_MEMBERS", 3)
    assert len(_read(_tar("a", "b", "c"))) == 3
    with pytest.raises(ImageRefused, match="more than 3"):
        _read(_tar("a", "b", "c", "d"))


def _size(raw: bytes) -> Callable[[bytearray], None]:
    def change(header: bytearray) -> None:
        header[124:136] = raw.ljust(12, b"\0")
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header[:512])

    return change


@pytest.mark.parametrize(
    "raw", [b"-0000000007", b"0000000009", b"0o10", b"1_0", b"\xff" * 12, b"\x80" + b"\xff" * 11]
)  # fmt: skip
def test_sizes_that_lead_astray(raw: bytes) -> None:
    data = bytearray(_tar("a", "b").getvalue())
    _size(raw)(data)
    with pytest.raises(ImageRefused, match=r"size|truncated"):
        _read(io.BytesIO(bytes(data)))


def test_an_archive_that_ends_too_early() -> None:
    data = _tar(_info("a", size=3000)).getvalue()
    for length in (512, 1000, 3500):
        with pytest.raises(ImageRefused, match="truncated"):
            _read(io.BytesIO(data[:length]))


# --- fuzzing ----------------------------------------------------------------------------------

SEEDS = [
    _tar("a", "b/c", LONG, form=form).getvalue()
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw an archive with some bytes changed, its checksums often made right again."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 8))):
        at = draw(st.integers(0, len(data) - 1))
        data[at : at + 1] = draw(st.binary(min_size=1, max_size=4))
    if draw(st.booleans()):
        for at in range(0, len(data) - 511, 512):
            if data[at + 257 : at + 262] == b"ustar":
                data[at + 148 : at + 156] = b" " * 8
                data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


class Counting(io.BytesIO):
    """Counts what is read: no header must make us read more than there is."""

    most = 0

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert 0 <= size <= tarball.MOST_EXTENDED
        return super().read(size)


@given(st.one_of(damaged(), st.binary(max_size=3000)))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        found = tarball.members(Counting(data), "t.tar")
    except ImageRefused:
        return
    for name, member in found.items():
        assert not name.startswith("/")
        assert ".." not in name.split("/")
        assert 0 <= member.offset <= member.offset + member.size <= len(data)
