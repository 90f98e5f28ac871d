"""Nothing that a guest prints means anything to a page or a terminal."""

import pytest

from web.pages.plain_text import plain, tail


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b]8;;http://evil.test\x1b\\click\x1b]8;;\x1b\\", "click"),
        ("\x1b]never ends\nnext line", "\nnext line"),
        ("\x1bPq#0;\x1b\\after", "after"),
        ("\x1b(Bplain\x1bc", "plain"),
        ("bell\x07 back\x08 null\x00", "bell back null"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("tab\tstays", "tab\tstays"),
        ("abc\u202etxt.exe", "abctxt.exe"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),  # the template escapes
        ("ends in escape\x1b", "ends in escape"),
    ],
)
def test_what_a_terminal_would_obey_is_removed(printed: str, shown: str) -> None:
    assert plain(printed) == shown


def test_only_the_last_lines_are_kept() -> None:
    printed = "".join(f"line {n}\n" for n in range(10))
    assert tail(printed, most=2) == "line 8\nline 9"
