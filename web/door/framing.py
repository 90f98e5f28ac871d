"""Where a request's headers and body begin and end: read in one way only, and only so much.

Stricter than HTTP makes us be (RFC 9112): what one reader takes for the end of a request and
another one for its middle is refused, since between a proxy and us that would be a way to send
requests in somebody else's name.
"""

import re
from typing import Any

LARGEST_HEADERS = 32 << 10  # bytes, with the request line
MOST_HEADERS = 100
LARGEST_BODY = 4 << 20  # bytes
LONGEST_SIZE = 64  # bytes of the line that begins a chunk
HEXADECIMAL = frozenset(b"0123456789abcdefABCDEF")
NAME_CHARACTERS = frozenset(b"!#$%&'*+-.^`|~0123456789abcdefghijklmnopqrstuvwxyz")
CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f]")  # all but the tab
ONLY_ONCE = frozenset({b"Host", b"Content-Length", b"Transfer-Encoding", b"Authorization"})
JOINED = {  # of headers that may come several times, what stands between their values
    b"Accept": b", ",
    b"Cache-Control": b", ",
    b"Connection": b", ",
    b"Cookie": b"; ",
    b"If-Match": b", ",
    b"If-None-Match": b", ",
    b"Prefer": b", ",
    b"X-Forwarded-For": b", ",
}

Headers = dict[bytes, bytes]


class TooLarge(Exception):  # noqa: N818 - reads as a sentence where it is raised
    """A body is larger than we take."""


def read_headers(rfile: Any, into: Headers) -> Headers:
    """Read header lines; ValueError says what is wrong with one.

    No folded lines, no space before the colon, no underscore (which WSGI would not tell from a
    hyphen), and none of the headers that frame a message, or say who sends it, twice.
    """
    for _ in range(MOST_HEADERS + 1):
        line = rfile.readline()
        if line == b"\r\n":
            return into
        if not line.endswith(b"\r\n"):
            raise ValueError("a header line has no end")
        name, colon, value = line.partition(b":")
        if not colon or not name or not NAME_CHARACTERS.issuperset(name.lower()):
            raise ValueError("a header has no name that we take")
        key, value = name.title(), value.strip(b" \t\r\n")
        if CONTROL.search(value):
            raise ValueError("a header has a control character")
        if key in into and key in ONLY_ONCE:
            raise ValueError(f"{key.decode()} came twice")
        into[key] = into[key] + JOINED[key] + value if key in into and key in JOINED else value
    raise ValueError(f"more than {MOST_HEADERS} headers")


def fault(headers: Headers, protocol: str) -> str:
    """Return why nobody can be sure where a request ends; nothing if it is clear."""
    length, coding = headers.get(b"Content-Length"), headers.get(b"Transfer-Encoding")
    if length is not None and coding is not None:
        return "both Content-Length and Transfer-Encoding"
    if length is not None and not length.isdigit():
        return "Content-Length is no number"
    if coding is not None and (coding.lower() != b"chunked" or protocol != "HTTP/1.1"):
        return "Transfer-Encoding may only be chunked, and only in HTTP/1.1"
    if protocol == "HTTP/1.1" and not headers.get(b"Host"):
        return "no Host header"
    return ""


def read_body(rfile: Any, headers: Headers) -> bytes:
    """Return a request's body. Raises `TooLarge`, or ValueError if it is not as was said."""
    if b"Transfer-Encoding" in headers:
        return _read_chunks(rfile)
    length = int(headers.get(b"Content-Length", b"0"))
    if length > LARGEST_BODY:
        raise TooLarge(f"bodies have up to {LARGEST_BODY} bytes")
    body: bytes = rfile.read(length) if length else b""
    if len(body) != length:
        raise ValueError("the body is shorter than its Content-Length")
    return body


def _read_chunks(rfile: Any) -> bytes:
    chunks: list[bytes] = []
    room = LARGEST_BODY
    while size := _chunk_size(rfile.readline(LONGEST_SIZE)):
        room -= size
        if room < 0:
            raise TooLarge(f"bodies have up to {LARGEST_BODY} bytes")
        chunk = rfile.read(size)
        if len(chunk) != size or rfile.read(2) != b"\r\n":
            raise ValueError("a chunk is not as long as it says")
        chunks.append(chunk)
    return b"".join(chunks)


def _chunk_size(line: bytes) -> int:
    size = line.removesuffix(b"\r\n").partition(b";")[0]
    if not line.endswith(b"\r\n") or not size or not HEXADECIMAL.issuperset(size):
        raise ValueError("a chunk does not say how long it is")
    return int(size, 16)
