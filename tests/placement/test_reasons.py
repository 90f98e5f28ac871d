"""Why hosts are out, as one clause."""

from placement.candidates import summary


def test_hosts_that_share_a_reason_are_named_together() -> None:
    assert summary({"a": "is full", "b": "is lost", "c": "is full"}) == (
        "a, c: is full; b: is lost"
    )


def test_many_hosts_and_many_reasons_are_counted() -> None:
    alike = dict.fromkeys("abcdefg", "is full")
    assert summary(alike) == "a, b, c, d, e, and 2 more: is full"
    unlike = {host: f"lacks {host}" for host in "abcdefg"}
    assert summary(unlike).endswith("e: lacks e; and 2 more")
    assert summary({}) == "there are no other hosts"
