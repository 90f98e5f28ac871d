"""Edits of a lab's text: what goes is the entry and no byte more, and what stays means the same."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import CannotEdit, LabError, UnknownService
from orchestrator.lab_edit import service_before, without_service
from orchestrator.labfile import parse_lab
from orchestrator.store.base import LabVersion

PATH = Path("/lab.yaml")
TWO = "  two: {image: tiny}\n"

HEAD = """\
# The lab of the third floor.
name: t
zone: edge.test
hosts:
  a:
    uri: memory:///
    capacity: {cpu: 64, memory: 1 GiB}
    network: {name: net-a, subnet: 10.9.0.0/24, gateway: 10.9.0.1, pool: 10.9.0.10-10.9.0.200}
images:
  tiny: {family: linux, kernel: vmlinuz, initrd: initrd}   # of us all
  other:
    family: linux
    kernel: other
    cmdline: >-
      console=ttyS0
      quiet
"""
TAIL = """\

# What follows is for everybody.
defaults:
  resources: {cpu: 0.1, memory: 100 MiB}
  ready: {tcp: 80}
"""

ENTRIES = {
    "block": "  {name}:\n    image: tiny   # the small one\n    ttl: 5 s\n",
    "braces": "  {name}: {{image: tiny, names: [{name}, {name}-too]}}\n",
    "braces on lines": "  {name}: {{image: tiny,\n    names: [{name},\n  {name}-2]}}   # three\n",
    "with comments": "  {name}:   # why\n\n    # and how\n    image: other\n\n    ttl: 5 s\n",
    "quoted": "  '{name}':\n    image: \"tiny\"\n    names:\n    - {name}\n    - '{name}-x'\n",
    "folded": "  {name}:\n    ttl: 5 s\n    image: >-\n      tiny\n",
    "folded over lines": "  {name}:\n    image:\n      tiny\n",
}
BETWEEN = (
    "",
    "\n",
    "  # the next one is better\n",
    "\n\n# a remark at the edge\n\n",
    "    # deep\n",
)
BREAKS = ("\n", "\r\n")


def _lab(*entries: str, head: str = HEAD, tail: str = TAIL) -> str:
    return f"{head}services:   # all of them\n{''.join(entries)}{tail}"


def _versions(*texts: str) -> list[LabVersion]:
    return [LabVersion(n, 1.0, "ann", str(PATH), text) for n, text in enumerate(texts, 1)]


@given(
    kinds=st.lists(st.sampled_from(sorted(ENTRIES)), min_size=2, max_size=5),
    between=st.lists(st.sampled_from(BETWEEN), min_size=6, max_size=6),
    which=st.integers(0, 4),
    line_break=st.sampled_from(BREAKS),
    ending=st.sampled_from(((TAIL, False), ("", False), ("", True))),
)
@settings(max_examples=40, deadline=None)
def test_what_goes_is_the_entry_and_no_byte_more(
    kinds: list[str],
    between: list[str],
    which: int,
    line_break: str,
    ending: tuple[str, bool],
) -> None:
    """With the defaults after the services or before them, and with or without a last newline."""
    tail, bare = ending
    head = HEAD if tail else HEAD + TAIL
    entries = [ENTRIES[kind].format(name=f"s{n}") for n, kind in enumerate(kinds)]
    gone = which % len(entries)

    def written(kept: list[str]) -> str:
        parts = [gap + entry for gap, entry in zip(between, kept, strict=False)]
        text = _lab(*parts, between[len(kept)], head=head, tail=tail)
        return text.replace("\n", line_break)

    whole, without = (
        written(entries),
        written(["" if n == gone else e for n, e in enumerate(entries)]),
    )
    if bare and gone < len(entries) - 1:
        whole, without = whole.rstrip(), without.rstrip()
    edited = without_service(whole, PATH, f"s{gone}", parse_lab)
    assert edited.text == without
    old = parse_lab(whole, PATH)
    assert edited.lab.services == tuple(s for s in old.services if s.name != f"s{gone}")
    assert edited.lab.hosts == old.hosts
    assert parse_lab(edited.text, PATH) == edited.lab


def test_the_last_service_leaves_an_empty_section() -> None:
    edited = without_service(_lab(ENTRIES["block"].format(name="web")), PATH, "web", parse_lab)
    assert "services: {}   # all of them\n\n# What follows" in edited.text
    assert edited.lab.services == ()


@pytest.mark.parametrize(
    ("services", "said"),
    [
        ("services: {web: {image: tiny}, two: {image: tiny}}\n", "an entry per line"),
        ("services:\n  ? web\n  : {image: tiny}\n  two: {image: tiny}\n", "lines of its own"),
        (
            "services:\n  web: {image: tiny}\n"
            "  two: {image: tiny, constraints: {together_with: [web]}}\n",
            "without web the lab would not be valid: .*together_with",
        ),
    ],
)
def test_what_cannot_be_taken_out_is_refused_in_words(services: str, said: str) -> None:
    with pytest.raises(CannotEdit, match=said) as caught:
        without_service(HEAD + services + TAIL, PATH, "web", parse_lab)
    assert caught.value.hint


def test_json_is_refused_since_a_line_would_not_do() -> None:
    text = '{"zone": "edge.test", "services": {}, "hosts": {}}'
    with pytest.raises(UnknownService):
        without_service(text, PATH, "web", parse_lab)


def test_a_text_that_is_wrong_already_is_told_as_ever() -> None:
    with pytest.raises(LabError, match="zone"):
        without_service("name: t\n", PATH, "web", parse_lab)


# --- back to what it was --------------------------------------------------------------------------

OLD = _lab(
    "  web:\n    image: tiny   # good old\n    ttl: 5 s\n",
    "  two: {image: tiny}\n",
)
NEW_IMAGE = HEAD.replace("initrd}", "initrd2}")


def test_a_service_and_its_image_are_as_they_were_and_all_else_is_as_it_is() -> None:
    now = _lab(
        "  # a remark since then\n  web:\n    image: other\n    ttl: 9 s\n",
        "  three: {image: tiny}\n",
        head=NEW_IMAGE,
    )
    edited, version = service_before(_versions("zone: x.test\n", OLD, now), "web", parse_lab)
    assert version.number == 2
    assert edited.text == now.replace(
        "  web:\n    image: other\n    ttl: 9 s\n",
        "  web:\n    image: tiny   # good old\n    ttl: 5 s\n",
    ).replace("initrd2}", "initrd}")
    assert [each.name for each in edited.lab.services] == ["web", "three"]


def test_an_image_that_is_gone_comes_back_with_the_service() -> None:
    gone = HEAD[: HEAD.index("  other:")].rstrip("\n")
    old = _lab("  web: {image: other}\n", "  two: {image: tiny}\n")
    now = _lab("  web: {image: tiny}\n", "  two: {image: tiny}\n", head=f"{gone}\n")
    edited, _ = service_before(_versions(old, now), "web", parse_lab)
    assert edited.text == old
    # The images may also be the last of the file, whose last line has no end.
    services = now[now.index("services") :]
    now = f"{HEAD[: HEAD.index('images:')]}{services}{gone[gone.index('images:') :]}"
    edited, _ = service_before(_versions(old, now), "web", parse_lab)
    assert edited.lab.image("other").kernel == Path("/other")


def test_versions_in_which_it_was_the_same_are_passed_over() -> None:
    other = OLD.replace("two: {image: tiny}", "two: {image: other}")
    first = OLD.replace("ttl: 5 s", "ttl: 7 s")
    texts = ("not: [a, lab", first, OLD, OLD.replace("  web:", "  old:"), other, OLD + "# hm\n")
    edited, version = service_before(_versions(*texts), "web", parse_lab)
    assert version.number == 2
    assert edited.text == first + "# hm\n"


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ((OLD,), "no version of the lab that is kept"),
        ((OLD, OLD + "# more\n"), "no version of the lab that is kept"),
        (
            (_lab("    web:\n        image: tiny\n"), _lab("  web: {image: other}\n")),
            "was indented otherwise",
        ),
        (
            (
                _lab("  web: {image: tiny, constraints: {together_with: [two]}}\n", TWO),
                _lab("  web: {image: tiny}\n"),
            ),
            "with web as in version 1 the lab would not be valid",
        ),
    ],
)
def test_what_cannot_be_put_back_is_refused_in_words(texts: tuple[str, ...], said: str) -> None:
    with pytest.raises(CannotEdit, match=said):
        service_before(_versions(*texts), "web", parse_lab)


def test_a_service_that_the_lab_does_not_have_is_not_put_back() -> None:
    with pytest.raises(UnknownService):
        service_before(_versions(OLD, _lab("  two: {image: tiny}\n")), "web", parse_lab)
