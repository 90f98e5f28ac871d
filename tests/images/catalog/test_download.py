"""Downloads: only with a digest, resumed where they stopped, and never believed."""

import hashlib
import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from images.catalog import Adding, Catalog
from images.catalog import download as download_module
from images.catalog.download import downloaded
from images.catalog.names import Digest
from images.errors import DownloadFailed, ImageDamaged, ImageError, ImageRefused
from tests.images.catalog.ready import ready

CONTENTS = b"KERN" + bytes(range(256)) * 2000
DIGEST = f"sha256:{hashlib.sha256(CONTENTS).hexdigest()}"
OTHER = b"KERN another file"


class Server(http.server.ThreadingHTTPServer):
    """Serves one file, with whatever trouble a test asks for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.contents = CONTENTS
        self.ranges = True
        self.cuts: list[int] = []  # after how many bytes the next answers end
        self.hang = threading.Event()
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range", "")
        server.asked.append((self.path, wanted))
        if self.path.startswith("/to/"):
            self._head(302, {"Location": self.path.removeprefix("/to/")})
        elif self.path == "/loop":
            self._head(302, {"Location": "/loop"})
        elif self.path.startswith("/status/"):
            self._head(int(self.path[8:]), {"Content-Length": "0"})
        elif self.path == "/plain":
            self._head(200, {})
            self.wfile.write(server.contents)
        elif self.path == "/hang":
            self._head(200, {"Content-Length": "1000"})
            server.hang.wait(30)
        elif self.path == "/elsewhere":
            self._head(206, {"Content-Range": "bytes 1-5/9", "Content-Length": "5"})
            self.wfile.write(b"abcde")
        else:
            self._file(int(wanted[6:-1]) if wanted and server.ranges else 0, wanted)

    def _file(self, start: int, wanted: str) -> None:
        total = len(self.server.contents)
        if start >= total and wanted:
            self._head(416, {"Content-Length": "0"})
            return
        data = self.server.contents[start:]
        said = {"Content-Length": str(len(data))}
        if wanted and self.server.ranges:
            said["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        self._head(206 if "Content-Range" in said else 200, said)
        cut = self.server.cuts.pop(0) if self.server.cuts else len(data)
        self.wfile.write(data[:cut])

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.hang.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_module, "RETRY_S", 0.001)


def _add(catalog: Catalog, url: str, **options: object) -> bytes:
    entry = catalog.add_from("web", url, digests=[DIGEST], how=Adding(**options))  # type: ignore[arg-type]
    return ready(catalog, entry).main_file.read_bytes()


def test_a_url_becomes_an_image(catalog: Catalog, server: Server, root: Path) -> None:
    told: list[tuple[str, int, int]] = []
    url = f"{server.url}/some/web.bin?token=secret"
    assert _add(catalog, url, progress=lambda *args: told.append(args)) == CONTENTS
    assert told[-1][1:] == (len(CONTENTS), len(CONTENTS))
    (flavour,) = catalog.find("web").flavours
    assert flavour.layers[0].title == "web.bin"
    assert list((root / "downloads").iterdir()) == []
    assert not any(b"secret" in path.read_bytes() for path in root.rglob("*") if path.is_file())


def test_without_a_digest_nothing_is_fetched(catalog: Catalog, server: Server) -> None:
    with pytest.raises(ImageRefused, match="--digest") as refused:
        catalog.add_from("web", f"{server.url.replace('//', '//me:pw@')}/x?token=secret")
    assert server.asked == []
    assert "pw" not in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("digest", ["", "0" * 64, "sha256:" + "g" * 64, "md5:" + "0" * 32])
def test_wrong_digests(catalog: Catalog, server: Server, digest: str) -> None:
    with pytest.raises(ImageRefused, match="64 hexadecimal"):
        catalog.add_from("web", server.url, digests=[digest])


def test_another_file_is_refused_with_both_digests(
    catalog: Catalog, server: Server, root: Path
) -> None:
    server.contents = OTHER
    with pytest.raises(ImageDamaged) as refused:
        _add(catalog, f"{server.url}/web")
    assert (refused.value.expected, refused.value.found) == (
        DIGEST,
        f"sha256:{hashlib.sha256(OTHER).hexdigest()}",
    )
    assert catalog.list() == ()
    assert not any((root / "downloads").iterdir())


def test_a_broken_download_goes_on_where_it_stopped(catalog: Catalog, server: Server) -> None:
    server.cuts = [1000, 0, 70_000]
    assert _add(catalog, f"{server.url}/web") == CONTENTS
    assert [wanted for _, wanted in server.asked] == [
        "",
        "bytes=1000-",
        "bytes=1000-",
        "bytes=71000-",
    ]


def test_also_when_it_is_asked_for_again_later(
    catalog: Catalog, server: Server, root: Path
) -> None:
    server.cuts = [5000, *[0] * 10]
    with pytest.raises(DownloadFailed, match=r"5000 bytes are here.*goes on from there"):
        _add(catalog, f"{server.url}/web")
    assert catalog.list() == ()
    server.cuts, server.asked = [], []
    assert _add(catalog, f"{server.url}/web") == CONTENTS
    assert server.asked == [("/web", "bytes=5000-")]


def test_a_server_without_ranges_starts_anew(catalog: Catalog, server: Server) -> None:
    server.ranges, server.cuts = False, [1000]
    assert _add(catalog, f"{server.url}/web") == CONTENTS


@pytest.mark.parametrize(
    "before",
    [b"something else", CONTENTS + b"and more", CONTENTS],
    ids=["other", "longer", "whole"],
)
def test_what_is_here_already_is_not_believed(
    catalog: Catalog, server: Server, root: Path, before: bytes
) -> None:
    (root / "downloads").mkdir(parents=True)
    (root / "downloads" / f"{DIGEST[7:]}.part").write_bytes(before)
    assert _add(catalog, f"{server.url}/web") == CONTENTS
    assert len(server.asked) == (0 if before == CONTENTS else 2)


def test_a_file_without_a_length(catalog: Catalog, server: Server) -> None:
    assert _add(catalog, f"{server.url}/plain") == CONTENTS


def test_redirects_are_followed_to_http_only(catalog: Catalog, server: Server, root: Path) -> None:
    assert _add(catalog, f"{server.url}/to/{server.url}/web") == CONTENTS
    for target in ("file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "gopher://127.0.0.1/"):
        with pytest.raises(DownloadFailed):
            _add(catalog, f"{server.url}/to/{target}")
    with pytest.raises(DownloadFailed, match="infinite loop") as refused:
        _add(catalog, f"{server.url}/loop")
    assert "\n" not in str(refused.value)
    with pytest.raises(ImageError):
        _add(catalog, "file:///etc/passwd")


@pytest.mark.parametrize(
    ("path", "requests"), [("status/404", 1), ("status/500", 4), ("elsewhere", 4)]
)
def test_errors_of_the_server(
    catalog: Catalog, server: Server, root: Path, path: str, requests: int
) -> None:
    (root / "downloads").mkdir(parents=True)
    (root / "downloads" / f"{DIGEST[7:]}.part").write_bytes(CONTENTS[:10])
    with pytest.raises(DownloadFailed, match=server.url):
        _add(catalog, f"{server.url}/{path}")
    assert len(server.asked) == requests


def test_nobody_there(catalog: Catalog) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(DownloadFailed, match="refused"):
            _add(catalog, f"http://127.0.0.1:{taken.getsockname()[1]}/x")
    for url in ("http://", "http://[", "http://127.0.0.1:x/", "http://127.0.0.1:1/a b"):
        with pytest.raises(DownloadFailed):
            _add(catalog, url)


def test_a_server_that_hangs(server: Server, tmp_path: Path) -> None:
    with (
        pytest.raises(DownloadFailed, match="timed out"),
        downloaded(f"{server.url}/hang", Digest(DIGEST), tmp_path, timeout_s=0.1),
    ):
        pytest.fail("it came from nowhere")


@pytest.mark.parametrize("path", ["web", "plain"])
def test_no_more_than_the_limit(catalog: Catalog, server: Server, root: Path, path: str) -> None:
    with pytest.raises(ImageRefused, match="more than 1000 bytes"):
        _add(catalog, f"{server.url}/{path}", most=1000)
    assert [each.stat().st_size for each in (root / "downloads").iterdir()] == [0]


def test_one_who_is_done_leaves_the_file_of_the_next(server: Server, tmp_path: Path) -> None:
    with ExitStack() as first, ExitStack() as second:
        taken = first.enter_context(downloaded(f"{server.url}/web", Digest(DIGEST), tmp_path))
        taken.rename(tmp_path / "adopted")
        path = second.enter_context(downloaded(f"{server.url}/web", Digest(DIGEST), tmp_path))
        first.close()
        assert path.read_bytes() == CONTENTS


def test_two_who_want_the_same(open_catalog: Callable[..., Catalog], server: Server) -> None:
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: results.append(_add(open_catalog(), f"{server.url}/web")))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [CONTENTS] * 3
