"""Reads a rule as people write it: in our spelling, in that of RACS, or in both.

Ours is close to pcap-filter(7): ``ip version 4 and tcp and (dst port 80 or dst port 8080)``. The
other, of Nokia's RACS, compares fields as C does: ``<4==ip_version && proto==TCP && (80==dst_port
|| 8080==dst_port)>``; of its fields only these three are known from public documents, and the
others are named alike. Every error says in which column, and what was expected there.
docs/redirect.md has the grammar.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import NoReturn

from orchestrator.errors import RuleError
from orchestrator.rules.tree import (
    ANY,
    MOST_DSCP,
    MOST_PORT,
    MOST_PROTOCOL,
    PROTOCOL_NAMES,
    WITH_PORTS,
    Address,
    Dscp,
    Fragment,
    Not,
    Port,
    Protocol,
    Rule,
    Side,
    Version,
    all_of,
    any_of,
)

MOST_CHARACTERS, MOST_TESTS, MOST_DEPTH = 4096, 128, 32

_TOKEN = re.compile(r"\s*(?:(?P<word>[\w.:/-]+)|(?P<mark>&&|\|\||[=!<>]=|[!<>()]))")
_AND, _OR, _NOT = ("and", "&&"), ("or", "||"), ("not", "!")
_COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_WHAT = "a test, such as 'tcp', 'dst port 80' or 'dst_port == 80'"
_AFTER_SIDE = ("port", "portrange", "host", "net")

_Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    column: int  # from 1

    @property
    def lower(self) -> str:
        return self.text.lower()


def parse(text: str) -> Rule:
    """Return the rule that a text spells; raises `RuleError`."""
    if len(text) > MOST_CHARACTERS:
        raise RuleError(f"a rule has at most {MOST_CHARACTERS} characters; this has {len(text)}")
    return _Parser(_tokens(text)).whole()


def _tokens(text: str) -> list[_Token]:
    inside = text.strip()
    start, end = 0, len(text.rstrip())
    if inside.startswith("<") and inside.endswith(">") and len(inside) > 1:
        start, end = text.index("<") + 1, end - 1
    tokens = []
    while text[start:end].strip():
        found = _TOKEN.match(text, start, end)
        if found is None:
            blanks = len(text[start:end]) - len(text[start:end].lstrip())
            column = start + blanks + 1
            raise RuleError(f"column {column}: {text[column - 1]!r} means nothing in a rule")
        tokens.append(
            _Token(found.group(found.lastgroup or 0), found.start(found.lastgroup or 0) + 1)
        )
        start = found.end()
    return [*tokens, _Token("", end + 1)]


class _Parser:
    """Recursive descent: one method for each rule of the grammar."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        self._tests = 0

    def whole(self) -> Rule:
        rule = self._either()
        if self._next.text:
            self._refuse("'and', 'or' or the end")
        return rule

    # --- joints -----------------------------------------------------------------------------

    def _either(self) -> Rule:
        parts = [self._both()]
        while self._skip(*_OR):
            parts.append(self._both())
        return any_of(*parts)

    def _both(self) -> Rule:
        parts = [self._one()]
        while self._skip(*_AND):
            parts.append(self._one())
        return all_of(*parts)

    def _one(self) -> Rule:
        if self._skip(*_NOT):
            with self._deeper():
                return Not(self._one())
        if self._skip("("):
            with self._deeper():
                rule = self._either()
            if not self._skip(")"):
                self._refuse("')', 'and' or 'or'")
            return rule
        return self._test()

    @contextmanager
    def _deeper(self) -> Iterator[None]:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise RuleError(f"column {self._next.column}: nested more than {MOST_DEPTH} deep")
        yield
        self._depth -= 1

    # --- tests ------------------------------------------------------------------------------

    def _test(self) -> Rule:
        self._tests += 1
        if self._tests > MOST_TESTS:
            raise RuleError(f"column {self._next.column}: more than {MOST_TESTS} tests")
        if self._next.text in ("", *_COMPARISONS, ")"):
            self._refuse(_WHAT)
        if self._tokens[self._at + 1].text in _COMPARISONS:
            return self._comparison()
        if self._next.lower in PROTOCOL_NAMES:
            return self._protocol()
        simple: dict[str, Callable[[], Rule]] = {
            "any": lambda: ANY,
            "fragment": Fragment,
            "ip": self._version,
            "ip6": lambda: Version(6),
            "proto": lambda: Protocol(self._protocol_number(self._take())),
            "dscp": lambda: Dscp(self._number(self._take(), MOST_DSCP)),
        }
        if self._next.lower in simple:
            return simple[self._take().lower]()
        return self._place()

    def _version(self) -> Rule:
        if not self._skip("version"):
            return Version(4)
        return Version(self._version_number(self._take()))

    def _protocol(self) -> Rule:
        """Read ``tcp``, or ``tcp dst port 80``."""
        number = PROTOCOL_NAMES[self._take().lower]
        follows = ("src", "dst", "port", "portrange")
        if number in WITH_PORTS and self._next.lower in follows:
            return all_of(Protocol(number), self._place())
        return Protocol(number)

    def _place(self) -> Rule:
        """Read an address or a port, of one side or of either."""
        sides = tuple(Side)
        sided = self._next.lower in sides
        if sided:
            sides = (Side(self._take().lower),)
        kind = self._take().lower if self._next.lower in _AFTER_SIDE else ""
        token = self._next
        if kind in ("port", "portrange"):
            first, last = self._ports(self._take())
            return any_of(*(Port(side, first, last) for side in sides))
        if not (kind or sided) and not re.match(r"[0-9a-fA-F]*[.:]", token.text):
            self._refuse(_WHAT)
        network = self._network(self._take(), "'port', 'host', 'net' or an address")
        return any_of(*(Address(side, network) for side in sides))

    # --- comparisons ------------------------------------------------------------------------

    def _comparison(self) -> Rule:
        left, sign, right = self._take(), self._take().text, self._take()
        if left.lower not in _COMPARED:
            left, right, sign = right, left, _MIRRORED.get(sign, sign)
        if left.lower not in _COMPARED:
            misspelt = left if right.text[:1].isdecimal() else right
            self._fail(misspelt, f"one of {', '.join(_COMPARED)} on one side")
        test = _COMPARED[left.lower](self, sign, right)
        return Not(test) if sign == "!=" else test

    def _compare_version(self, sign: str, value: _Token) -> Rule:
        self._same(sign, value)
        return Version(self._version_number(value))

    def _compare_protocol(self, sign: str, value: _Token) -> Rule:
        self._same(sign, value)
        return Protocol(self._protocol_number(value))

    def _compare_dscp(self, sign: str, value: _Token) -> Rule:
        self._same(sign, value)
        return Dscp(self._number(value, MOST_DSCP))

    def _compare_source(self, sign: str, value: _Token) -> Rule:
        self._same(sign, value)
        return Address(Side.SRC, self._network(value))

    def _compare_target(self, sign: str, value: _Token) -> Rule:
        self._same(sign, value)
        return Address(Side.DST, self._network(value))

    def _compare_source_port(self, sign: str, value: _Token) -> Rule:
        return self._compare_port(Side.SRC, sign, value)

    def _compare_target_port(self, sign: str, value: _Token) -> Rule:
        return self._compare_port(Side.DST, sign, value)

    def _compare_port(self, side: Side, sign: str, value: _Token) -> Rule:
        number = self._number(value, MOST_PORT)
        first, last = {
            "<": (0, number - 1),
            "<=": (0, number),
            ">": (number + 1, MOST_PORT),
            ">=": (number, MOST_PORT),
        }.get(sign, (number, number))
        if first > last:
            self._fail(value, "a port that some port can be so compared with")
        return Port(side, first, last)

    def _same(self, sign: str, value: _Token) -> None:
        if sign not in ("==", "!="):
            self._fail(value, "'==' or '!=' before it; only ports are greater or smaller")

    # --- values -----------------------------------------------------------------------------

    def _number(self, token: _Token, most: int) -> int:
        if not re.fullmatch(r"[0-9]{1,5}", token.text) or int(token.text) > most:
            self._fail(token, f"a number from 0 to {most}")
        return int(token.text)

    def _version_number(self, token: _Token) -> int:
        if token.text not in ("4", "6"):
            self._fail(token, "4 or 6")
        return int(token.text)

    def _protocol_number(self, token: _Token) -> int:
        number = PROTOCOL_NAMES.get(token.lower)
        if number is None and not token.text.isdecimal():
            self._fail(token, f"{', '.join(PROTOCOL_NAMES)} or a number from 0 to {MOST_PROTOCOL}")
        return self._number(token, MOST_PROTOCOL) if number is None else number

    def _ports(self, token: _Token) -> tuple[int, int]:
        first, dash, last = token.text.partition("-")
        if not re.fullmatch(r"[0-9]{1,5}(-[0-9]{1,5})?", token.text):
            self._fail(token, f"a port or a range such as 8000-8080, from 0 to {MOST_PORT}")
        ends = int(first), int(last if dash else first)
        if not ends[0] <= ends[1] <= MOST_PORT:
            self._fail(token, f"a range from 0 to {MOST_PORT}, the smaller port first")
        return ends

    def _network(self, token: _Token, what: str = "an address or a network") -> _Network:
        try:
            return ip_network(token.text)
        except ValueError as error:
            self._fail(token, what, f" ({error})" if re.search(r"[.:]", token.text) else "")

    # --- tokens -----------------------------------------------------------------------------

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._next
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def _skip(self, *words: str) -> bool:
        if self._next.lower not in words:
            return False
        self._take()
        return True

    def _refuse(self, expected: str) -> NoReturn:
        self._fail(self._next, expected)

    @staticmethod
    def _fail(token: _Token, expected: str, why: str = "") -> NoReturn:
        found = repr(token.text) if token.text else "the end"
        raise RuleError(f"column {token.column}: expected {expected}, found {found}{why}")


_COMPARED: dict[str, Callable[[_Parser, str, _Token], Rule]] = {
    "ip_version": _Parser._compare_version,
    "proto": _Parser._compare_protocol,
    "src_ip": _Parser._compare_source,
    "dst_ip": _Parser._compare_target,
    "src_port": _Parser._compare_source_port,
    "dst_port": _Parser._compare_target_port,
    "dscp": _Parser._compare_dscp,
}
