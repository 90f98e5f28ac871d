"""Lab versions are told apart by line."""

from web.pages.text_diff import Line, diff


def test_equal_texts_have_no_diff() -> None:
    assert diff("a\nb\n", "a\nb\n") == ()


def test_a_changed_line_is_removed_and_added_with_its_numbers() -> None:
    assert diff("a\nb\nc\n", "a\nB\nc\n") == (
        Line("same", 1, 1, "a"),
        Line("removed", 2, None, "b"),
        Line("added", None, 2, "B"),
        Line("same", 3, 3, "c"),
    )


def test_what_is_far_from_a_change_is_skipped() -> None:
    old = [f"line {n}" for n in range(40)]
    new = [*old[:5], "more", *old[5:30], "other", *old[31:]]
    lines = diff("\n".join(old), "\n".join(new))
    assert [line.kind for line in lines].count("skipped") == 1
    assert len(lines) < 20
    assert [line.text for line in lines if line.kind == "added"] == ["more", "other"]
