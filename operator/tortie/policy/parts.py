"""RuleSets of bounded size: one that is too large is several, which mean the same one after the other."""

import hashlib
from collections.abc import Iterator
from typing import TypeVar

import msgspec

from tortie.api.bounds import MAX_PEERS, MAX_PORTS, MAX_RULE_SET_BYTES, MAX_RULES
from tortie.api.compiled import Rule, RuleSetSpec, size

T = TypeVar("T")
Rules = list[Rule]


def split(spec: RuleSetSpec) -> list[RuleSetSpec]:
    """Return a RuleSet's parts. Policies of namespaces add up, so their rules stay in their part when others come."""
    if all(map(_is_whole, spec.rules)) and _fits(spec):
        return [spec]
    rules = [piece for rule in spec.rules for piece in _pieces(rule)]
    ways = (_by_content, _in_order) if spec.tier == "Namespace" else (_in_order,)
    count = 1
    while True:
        for way in ways:  # the second for rules that were chosen to come into one part
            parts = [msgspec.structs.replace(spec, rules=tuple(dealt)) for dealt in way(rules, count)]
            if all(map(_fits, parts)):
                return parts
        count *= 2


def part_name(name: str, number: int) -> str:
    """Return the name of a part's object."""
    return f"{name}-{number}" if number else name


def _fits(part: RuleSetSpec) -> bool:
    return len(part.rules) <= MAX_RULES and size(part) <= MAX_RULE_SET_BYTES


def _is_whole(rule: Rule) -> bool:
    return len(rule.peers or ()) <= MAX_PEERS and len(rule.ports or ()) <= MAX_PORTS


def _by_content(rules: Rules, count: int) -> list[Rules]:
    if count == 1:
        return [rules]
    parts: list[Rules] = [[] for _ in range(count)]
    for rule in rules:
        content = msgspec.json.encode((rule.direction, rule.action, rule.peers, rule.ports))
        parts[int.from_bytes(hashlib.blake2b(content, digest_size=8).digest()) % count].append(rule)
    return parts


def _in_order(rules: Rules, count: int) -> list[Rules]:
    return [rules[len(rules) * n // count : len(rules) * (n + 1) // count] for n in range(count)]


def _pieces(rule: Rule) -> Iterator[Rule]:
    """Yield rules that mean this one together."""
    if _is_whole(rule):
        yield rule
        return
    for peers in _runs(rule.peers, MAX_PEERS):
        for ports in _runs(rule.ports, MAX_PORTS):
            yield msgspec.structs.replace(rule, peers=peers, ports=ports)


def _runs(listed: tuple[T, ...] | None, most: int) -> list[tuple[T, ...] | None]:
    return [None] if listed is None else [listed[n : n + most] for n in range(0, len(listed), most)]
