"""Compiles a rule to classic BPF, for cls_bpf and packet sockets. Says every rule exactly.

The program is a decision graph: the first question that is still open is asked, the rule is
simplified by each answer, and equal rests are shared. A load behind the end of a packet ends a
classic BPF program with 0, "no"; where that would be wrong (beside "or" and "not"), the program
looks at the length first. See the kernel's Documentation/networking/filter.rst.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from orchestrator.errors import CannotSay
from orchestrator.packet_filter import (
    AND,
    IF_ANY_BIT,
    IF_AT_LEAST,
    IF_EQUAL,
    IF_GREATER,
    JUMP,
    LENGTH,
    LESS_HEADER_LENGTH,
    LOAD_BYTE,
    LOAD_HALF,
    LOAD_HALF_BEHIND,
    LOAD_HEADER_LENGTH,
    LOAD_WORD,
    RETURN,
    WHOLE,
    Instruction,
)
from orchestrator.rules.evaluate import ETHERNET_HEADER, ETHERTYPES, Layer
from orchestrator.rules.lower import VERSIONS, Atom, Quantity, lower
from orchestrator.rules.tree import And, Formula, Not, Or, Rule, all_of, any_of

MOST_INSTRUCTIONS = 4096  # linux/bpf_common.h BPF_MAXINSNS
_NEGATIVE = 1 << 31
_FARTHEST = 255  # a condition's jumps are 8 bits wide


@dataclass(frozen=True, slots=True, order=True)
class _Field:
    """A number in the packet: `size` octets at `offset` from the IP header, or behind it.

    Its bits are those of `mask`. It is there if the packet has `end` octets.
    """

    offset: int
    size: int
    mask: int
    end: int
    behind: bool = False

    @property
    def whole(self) -> bool:
        """Whether its octets have no other bits."""
        return self.mask == (1 << 8 * self.size) - 1

    @property
    def unit(self) -> int:
        """What 1 is, in the octets as they are read."""
        return self.mask & -self.mask

    @property
    def most(self) -> int:
        """The largest number that it can be."""
        return self.mask // self.unit


@dataclass(frozen=True, slots=True)
class _Question:
    """Whether a field is from `low` to `high`."""

    field: _Field
    low: int
    high: int


_FIELDS4 = {
    Quantity.PROTOCOL: _Field(9, 1, 0xFF, 10),
    Quantity.FRAGMENT: _Field(6, 2, 0x3FFF, 8),
    Quantity.OFFSET: _Field(6, 2, 0x1FFF, 8),
    Quantity.DSCP: _Field(1, 1, 0xFC, 2),
    Quantity.SOURCE: _Field(12, 4, 0xFFFFFFFF, 16),
    Quantity.TARGET: _Field(16, 4, 0xFFFFFFFF, 20),
    Quantity.SOURCE_PORT: _Field(0, 2, 0xFFFF, 2, behind=True),
    Quantity.TARGET_PORT: _Field(2, 2, 0xFFFF, 4, behind=True),
}
_FIELDS6 = {
    Quantity.PROTOCOL: _Field(6, 1, 0xFF, 7),
    Quantity.DSCP: _Field(0, 2, 0x0FC0, 2),
    Quantity.SOURCE_PORT: _Field(40, 2, 0xFFFF, 42),
    Quantity.TARGET_PORT: _Field(42, 2, 0xFFFF, 44),
}
_ADDRESSES6 = {Quantity.SOURCE: 8, Quantity.TARGET: 24}

_LOADS = {1: LOAD_BYTE, 2: LOAD_HALF, 4: LOAD_WORD}

_Asked = Formula[_Question]
_YES: _Asked = And(())
_NO: _Asked = Or(())


def to_bpf(
    rule: Rule, layer: Layer = Layer.ETHERNET, versions: tuple[int, ...] = VERSIONS
) -> tuple[Instruction, ...]:
    """Return a program that passes exactly the packets that a rule is true of.

    Raises `CannotSay` if it would be longer than the kernel takes.
    """
    graph = _Graph(ETHERNET_HEADER if layer is Layer.ETHERNET else 0)
    root = graph.refused
    for version in reversed(versions):
        branch = graph.node(_questions(lower(rule, version), version), _Known())
        if branch is not graph.refused:
            asking = _Node()
            asking.ask(IF_EQUAL, _version_value(version, layer), branch, root)
            root = asking
    if root is not graph.refused:
        root.before += _version_load(layer)
    graph.fill()
    return _assembled(root)


# --- questions ------------------------------------------------------------------------------------


def _questions(formula: Formula[Atom], version: int) -> _Asked:
    match formula:
        case And(parts):
            return all_of(*(_questions(part, version) for part in parts))
        case Or(parts):
            return any_of(*(_questions(part, version) for part in parts))
        case Not(part):
            return Not(_questions(part, version))
        case _:
            return _question(formula, version)


def _question(atom: Atom, version: int) -> _Asked:
    if version == 6 and atom.quantity in _ADDRESSES6:
        return _words(_ADDRESSES6[atom.quantity], atom)
    fields = _FIELDS4 if version == 4 else _FIELDS6
    return _Question(fields[atom.quantity], atom.low, atom.high)


def _words(offset: int, atom: Atom) -> _Asked:
    """Return an IPv6 network as the words that it gives; any other one may be anything."""
    low, high = atom.low.to_bytes(16), atom.high.to_bytes(16)
    ends = [(int.from_bytes(low[at : at + 4]), int.from_bytes(high[at : at + 4])) for at in _WORDS]
    asked = [(at, *each) for at, each in zip(_WORDS, ends, strict=True) if each != (0, 0xFFFFFFFF)]
    return all_of(
        *(
            _Question(_Field(offset + at, 4, 0xFFFFFFFF, offset + 16), first, last)
            for at, first, last in asked or [(0, 0, 0xFFFFFFFF)]
        )
    )


_WORDS = (0, 4, 8, 12)


def _simplified(formula: _Asked, answer: Callable[[_Question], bool | None]) -> _Asked:
    """Return what is left of a formula when some questions are answered."""
    match formula:
        case And(parts):
            left = [_simplified(part, answer) for part in parts]
            return _NO if _NO in left else all_of(*left)
        case Or(parts):
            left = [_simplified(part, answer) for part in parts]
            return _YES if _YES in left else any_of(*left)
        case Not(part):
            rest = _simplified(part, answer)
            return _NO if rest == _YES else _YES if rest == _NO else Not(rest)
        case _:
            known = answer(formula)
            return formula if known is None else _YES if known else _NO


def _first(formula: _Asked) -> _Question:
    match formula:
        case And(parts) | Or(parts):
            return _first(parts[0])
        case Not(part):
            return _first(part)
        case _:
            return formula


def _fields(formula: _Asked) -> frozenset[_Field]:
    match formula:
        case And(parts) | Or(parts):
            return frozenset().union(*map(_fields, parts))
        case Not(part):
            return _fields(part)
        case _:
            return frozenset({formula.field})


# --- the graph ------------------------------------------------------------------------------------

_Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known where a path of the program has come to.

    `ranges` are those that a field can still be in, none if the packet does not have it. `proved`
    is how long the packet is at least, from its IP header and from behind it. `loaded` is the place
    whose octets the accumulator has; `header` says whether the index has the header's length.
    """

    ranges: tuple[tuple[_Field, _Ranges], ...] = ()
    proved: int = 0
    proved_behind: int = 0
    loaded: tuple[int, int, bool] | None = None
    header: bool = False

    def answer(self, question: _Question) -> bool | None:
        ranges = dict(self.ranges).get(question.field)
        if ranges is None:
            return None
        inside = [max(low, question.low) <= min(high, question.high) for low, high in ranges]
        whole = [question.low <= low and high <= question.high for low, high in ranges]
        return False if not any(inside) else True if all(whole) else None

    def told(self, field_: _Field, ranges: _Ranges) -> "_Known":
        told = {**dict(self.ranges), field_: ranges}
        return replace(self, ranges=tuple(told.items()))

    def inside(self, question: _Question) -> "_Known":
        cut = (
            (max(low, question.low), min(high, question.high)) for low, high in self._of(question)
        )
        return self.told(question.field, tuple(each for each in cut if each[0] <= each[1]))

    def outside(self, question: _Question) -> "_Known":
        cut = (
            part
            for low, high in self._of(question)
            for part in ((low, min(high, question.low - 1)), (max(low, question.high + 1), high))
        )
        return self.told(question.field, tuple(each for each in cut if each[0] <= each[1]))

    def about(self, fields: frozenset[_Field]) -> "_Known":
        return replace(self, ranges=tuple(sorted(e for e in self.ranges if e[0] in fields)))

    def has(self, field_: _Field) -> bool:
        return field_.end <= (self.proved_behind if field_.behind else self.proved)

    def proving(self, field_: _Field, end: int) -> "_Known":
        if field_.behind:
            return replace(self, proved_behind=max(self.proved_behind, end))
        return replace(self, proved=max(self.proved, end))

    def _of(self, question: _Question) -> _Ranges:
        return dict(self.ranges).get(question.field, ((0, question.field.most),))


@dataclass(slots=True, eq=False)
class _Node:
    """Instructions, and then a jump on a condition (code, value); or the end, without one."""

    before: list[Instruction] = field(default_factory=list)
    condition: tuple[int, int] | None = None
    ways: "tuple[_Node, ...]" = ()  # if it holds, and if not

    def ask(self, code: int, value: int, yes: "_Node", no: "_Node") -> None:
        self.condition = code, value
        self.ways = yes, no


class _Graph:
    """Makes nodes, each only once; one that was asked for is filled in later, by `fill`."""

    def __init__(self, base: int) -> None:
        self._base = base
        self._made: dict[tuple[_Asked, _Known], _Node] = {}
        self._open: list[tuple[_Node, _Asked, _Known]] = []
        self.passed = _Node([(RETURN, 0, 0, WHOLE)])
        self.refused = _Node([(RETURN, 0, 0, 0)])

    def node(self, formula: _Asked, known: _Known) -> _Node:
        """Return where to go on to find out whether a formula is true."""
        formula = _simplified(formula, known.answer)
        if formula in (_YES, _NO):
            return self.passed if formula == _YES else self.refused
        key = formula, known.about(_fields(formula))
        if key not in self._made:
            if len(self._made) > MOST_INSTRUCTIONS:
                raise _too_long()
            self._made[key] = _Node()
            self._open.append((self._made[key], *key))
        return self._made[key]

    def fill(self) -> None:
        """Fill in all nodes; not by recursion, for a path can be thousands of them long."""
        while self._open:
            node, formula, known = self._open.pop()
            question = _first(formula)
            if known.has(question.field) or self._may_end(formula, known, question.field):
                self._compare(node, formula, question, self._load(node, question.field, known))
            else:
                self._look_at_length(node, formula, question.field, known)

    def _may_end(self, formula: _Asked, known: _Known, asked: _Field) -> bool:
        """Say whether a load that ends the program, for want of octets, does what is right."""
        missing = _simplified(formula, known.told(asked, ()).answer)
        return missing == _NO and asked.end == asked.offset + asked.size

    def _look_at_length(self, node: _Node, formula: _Asked, asked: _Field, known: _Known) -> None:
        if asked.behind:
            known = self._load_header(node, known)
        known = replace(known, loaded=None)
        lost = self.node(formula, known.told(asked, ()))
        there = self.node(formula, known.proving(asked, asked.end))
        node.before.append((LENGTH, 0, 0, 0))
        enough = node
        if asked.behind:
            node.before.append((LESS_HEADER_LENGTH, 0, 0, 0))
            enough = _Node()
            node.ask(IF_ANY_BIT, _NEGATIVE, lost, enough)
        enough.ask(IF_AT_LEAST, self._base + asked.end, there, lost)

    def _load(self, node: _Node, asked: _Field, known: _Known) -> _Known:
        place = asked.offset, asked.size, asked.behind
        if known.loaded != place and asked.behind:
            known = self._load_header(node, known)
            node.before.append((LOAD_HALF_BEHIND, 0, 0, self._base + asked.offset))
        elif known.loaded != place:
            node.before.append((_LOADS[asked.size], 0, 0, self._base + asked.offset))
        return replace(known.proving(asked, asked.offset + asked.size), loaded=place)

    def _load_header(self, node: _Node, known: _Known) -> _Known:
        if not known.header:
            node.before.append((LOAD_HEADER_LENGTH, 0, 0, self._base))
        return replace(known, header=True)

    def _compare(self, node: _Node, formula: _Asked, question: _Question, known: _Known) -> None:
        asked, low, high = question.field, question.low, question.high
        if not asked.whole and (low, high) in ((0, 0), (1, asked.most)):
            other = self.node(formula, known.told(asked, ((1, asked.most),)))
            node.ask(
                IF_ANY_BIT, asked.mask, other, self.node(formula, known.told(asked, ((0, 0),)))
            )
            return
        if not asked.whole:
            node.before.append((AND, 0, 0, asked.mask))
            known = replace(known, loaded=None)
        yes = self.node(formula, known.inside(question))
        no = self.node(formula, known.outside(question))
        if low == high:
            node.ask(IF_EQUAL, low * asked.unit, yes, no)
        elif high == asked.most:
            node.ask(IF_AT_LEAST, low * asked.unit, yes, no)
        elif low == 0:
            node.ask(IF_GREATER, high * asked.unit, no, yes)
        else:
            below = _Node()
            below.ask(IF_GREATER, high * asked.unit, no, yes)
            node.ask(IF_AT_LEAST, low * asked.unit, below, no)


# --- versions -------------------------------------------------------------------------------------


def _version_load(layer: Layer) -> tuple[Instruction, ...]:
    if layer is Layer.ETHERNET:
        return ((LOAD_HALF, 0, 0, 12),)
    return ((LOAD_BYTE, 0, 0, 0), (AND, 0, 0, 0xF0))


def _version_value(version: int, layer: Layer) -> int:
    if layer is Layer.IP:
        return version << 4
    return next(kind for kind, number in ETHERTYPES.items() if number == version)


# --- the program ----------------------------------------------------------------------------------


def _assembled(root: _Node) -> tuple[Instruction, ...]:
    """Lay nodes out so that every jump goes forward, built from the end."""
    backwards: list[Instruction] = []
    starts: dict[_Node, int] = {}  # how many instructions there are from there to the end
    for node in _from_the_end(root):
        if node.condition is not None:
            _jump(backwards, node.condition, *(starts[way] for way in node.ways))
        backwards.extend(reversed(node.before))
        starts[node] = len(backwards)
    if len(backwards) > MOST_INSTRUCTIONS:
        raise _too_long()
    return tuple(reversed(backwards))


def _jump(backwards: list[Instruction], condition: tuple[int, int], yes: int, no: int) -> None:
    """Add a jump by a condition; ways that are too far for it go through a jump of their own."""
    for far in dict.fromkeys((yes, no)):
        if len(backwards) + 1 - far > _FARTHEST:  # one more may come between
            backwards.append((JUMP, 0, 0, len(backwards) - far))
            yes, no = (len(backwards) if way == far else way for way in (yes, no))
    here = len(backwards)
    code, value = condition
    backwards.append((code, here - yes, here - no, value))


def _from_the_end(root: _Node) -> list[_Node]:
    """Return all nodes, each after those that it leads to; what "yes" leads to comes last."""
    order: dict[_Node, None] = {}
    left = [(root, False)]
    while left:
        node, led = left.pop()
        if led:
            order.setdefault(node)
        elif node not in order:
            left += [(node, True), *((way, False) for way in node.ways)]
    return list(order)


def _too_long() -> CannotSay:
    return CannotSay(
        f"as classic BPF this rule would have more than {MOST_INSTRUCTIONS} instructions",
        hint="use fewer alternatives",
    )
