"""Writes a rule in its one canonical spelling, which `parse` reads back as the same rule."""

from orchestrator.rules.tree import (
    PROTOCOL_NAMES,
    Address,
    And,
    Dscp,
    Fragment,
    Not,
    Or,
    Port,
    Protocol,
    Rule,
    Test,
    Version,
)

_NAMES = {number: name for name, number in PROTOCOL_NAMES.items()}


def text(rule: Rule) -> str:
    """Return a rule as ``ip version 4 and tcp and (dst port 80 or dst port 8080)``."""
    match rule:
        case And(()):
            return "any"
        case Or(()):
            return "not any"
        case And(parts):
            return " and ".join(_inner(part) for part in parts)
        case Or(parts):
            return " or ".join(_inner(part) for part in parts)
        case Not(part):
            return f"not {_inner(part)}"
        case _:
            return _test(rule)


def _inner(rule: Rule) -> str:
    return f"({text(rule)})" if isinstance(rule, And | Or) and rule.parts else text(rule)


def _test(test: Test) -> str:
    match test:
        case Version(number):
            spelt = f"ip version {number}"
        case Protocol(number):
            spelt = _NAMES.get(number) or f"proto {number}"
        case Address(side, network) if network.prefixlen == network.max_prefixlen:
            spelt = f"{side} host {network.network_address}"
        case Address(side, network):
            spelt = f"{side} net {network}"
        case Port(side, first, last):
            spelt = f"{side} port {first}" + (f"-{last}" if last != first else "")
        case Dscp(number):
            spelt = f"dscp {number}"
        case Fragment():
            spelt = "fragment"
    return spelt
