"""Who asks to be kept waiting does not keep others out."""

from web.door.forward import Waits

PREFER = {"Prefer": "wait=300", "Accept": "*/*"}


def test_only_so_many_wait_and_the_others_are_answered_at_once() -> None:
    waits = Waits(1)
    with waits.kept(PREFER) as first:
        assert first == PREFER
        with waits.kept(PREFER) as second:
            assert second == {"Accept": "*/*"}
        with waits.kept({}) as other:
            assert other == {}
    with waits.kept(PREFER) as again:
        assert again == PREFER
