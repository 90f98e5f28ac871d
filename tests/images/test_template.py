"""The template language, as a table of what it makes and of what it refuses."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.errors import ImageRefused
from images.families.template import WORDS, parse

VALUES = {"ip": "10.0.0.2", "gw": "10.0.0.1", "mask": "255.255.255.0", "name": "web-0"}

FILLED = [
    ("", ""),
    ("plain text", "plain text"),
    ("a={ip} b={gw}", "a=10.0.0.2 b=10.0.0.1"),
    ("{ip}{ip}", "10.0.0.210.0.0.2"),
    ('{{"ip":"{ip}"}}', '{"ip":"10.0.0.2"}'),
    ("{{{ip}}}", "{10.0.0.2}"),
    ("x[[{ip}]]", "x[10.0.0.2]"),
    ("{ip}[:{gw}]", "10.0.0.2:10.0.0.1"),
    ("{ip}[ --v6={ip6}] end", "10.0.0.2 end"),
    ("[{gw} {ip6}]", ""),
    ('{{[,"gw":"{gw}"]}}', '{,"gw":"10.0.0.1"}'),
    ("[{{{ip}}}]", "{10.0.0.2}"),
    ("[[a]] {ip}", "[a] 10.0.0.2"),
    ("-- {args}", "-- "),
    ("--[ {args}]", "--"),
]


@pytest.mark.parametrize(("template", "line"), FILLED)
def test_what_it_makes(template: str, line: str) -> None:
    assert parse(template).fill(VALUES) == line


REFUSED = [
    ("{ipv4}", r"unknown word \{ipv4\}; there are \{ip\} \{prefix\}"),
    ("{}", "unknown word"),
    ("{ip", r"a lone \{ at character 1; write \{\{"),
    ("a}", r"a lone \} at character 2; write \}\}"),
    ("a]", "a lone ] at character 2; write ]]"),
    ("[{ip}", "never closed"),
    ("[a [{ip}]]", "square bracket inside square brackets at character 4"),
    ("env.vars=[ A=B ]", r"optional part without a word in it.* write \[\["),
]


@pytest.mark.parametrize(("template", "why"), REFUSED)
def test_what_it_refuses(template: str, why: str) -> None:
    with pytest.raises(ImageRefused, match=why):
        parse(template)


def test_a_word_without_a_value_is_named() -> None:
    with pytest.raises(ImageRefused, match=r"no IPv6 address for \{ip6\}.*square brackets"):
        parse("--ipv6={ip6}").fill(VALUES)


def test_it_tells_its_words() -> None:
    assert parse("{ip}[ {config}] {{mac}}").words == {"ip", "config"}


@given(st.text("{}[] aip", max_size=20))
def test_every_text_is_a_template_or_refused(text: str) -> None:
    with contextlib.suppress(ImageRefused):
        parse(text).fill(dict.fromkeys(WORDS, "x"))


@given(st.text(max_size=30))
def test_doubling_says_any_text(text: str) -> None:
    doubled = text
    for character in "{}[]":
        doubled = doubled.replace(character, character * 2)
    assert parse(doubled).fill({}) == text


@given(st.text(max_size=30))
def test_values_are_not_read_as_templates(value: str) -> None:
    assert parse("<{args}>").fill({"args": value}) == f"<{value}>"
