"""What every answer of the door says to browsers: run nothing but our own files, tell nobody."""

from werkzeug.datastructures import Headers

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
ALWAYS = (
    ("Content-Security-Policy", CSP),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "same-origin"),  # with no-referrer, forms would come from origin "null"
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
)
HSTS = ("Strict-Transport-Security", "max-age=31536000")  # browsers ignore it from bad certificates
PRIVATE = "no-store"

# What is said of one connection, and not to the next one (RFC 9110, 7.6.1).
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# Of a request, only what the API reads goes on: so nobody outside can say who they are.
PASSED_ON = (
    "Accept",
    "Content-Type",
    "If-Match",
    "If-None-Match",
    "Prefer",
    "X-Lab-Path",
)
MADE_HERE = frozenset({"content-length", "date", "server", "set-cookie"})


def protect(headers: Headers, *, secure: bool) -> None:
    """Add what every answer says."""
    for name, value in ALWAYS:
        headers[name] = value
    if secure:
        headers[HSTS[0]] = HSTS[1]
    headers.setdefault("Cache-Control", PRIVATE)


def going_back(headers: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    """Return the headers of the daemon's answer that go on to the caller."""
    named = {
        word.strip().lower()
        for name, value in headers
        if name.lower() == "connection"
        for word in value.split(",")
    }
    dropped = HOP_BY_HOP | MADE_HERE | named
    return [(name, value) for name, value in headers if name.lower() not in dropped]
