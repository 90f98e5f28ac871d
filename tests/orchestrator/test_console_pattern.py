"""Console patterns: what they find, what is none, and that no text makes them slow."""

import time

import pytest

from orchestrator.console_pattern import NotAPattern, check, found


@pytest.mark.parametrize(
    ("pattern", "console", "is_found"),
    [
        ("halted", b"a\nhalted\n", True),
        ("^halted$", b"a\r\nhalted\r\nb", True),
        ("^halted$", b"not halted", False),
        (r"ready in \d+ ms", b"\xff\xfe ready in 12 ms", True),
        ("grüß", "grüß dich".encode(), True),
    ],
)
def test_what_is_found(pattern: str, console: bytes, *, is_found: bool) -> None:
    assert found(pattern, console) is is_found


@pytest.mark.parametrize("pattern", ["(a", "(?=a)", r"(a)\1", "a{1001}", "[z-a]"])
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(NotAPattern, match="is not a regular expression of RE2: ") as caught:
        check(pattern)
    assert "(?m)" not in str(caught.value)


def test_no_text_makes_a_pattern_slow() -> None:
    """Twice the text takes about twice the time, where backtracking takes a power of it."""

    def seconds(length: int) -> float:
        console = b"a" * length + b"b"
        began = time.perf_counter()
        assert not found("(a+)+$", console)
        return time.perf_counter() - began

    seconds(10)
    assert min(seconds(60_000) for _ in range(5)) < 100 * min(seconds(6_000) for _ in range(5)) + 1
