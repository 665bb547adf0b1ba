"""Who may reach whom, all at once: parties are bits, so a rule is held against everybody by a few operations on integers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from tortie.addressing.allocator import Address
from tortie.addressing.ranges import Family
from tortie.api.compiled import Direction, Rule, Tier
from tortie.policy.verdict import Compiled, Party, opens

Bits = int
K = TypeVar("K")
_FAMILIES: tuple[Family, Family] = (4, 6)


class Crowd:
    """Everybody in order, each as whom it talks by each family.

    Attributes:
        families: By each family, its matrix and who has an address of it.
    """

    def __init__(self, compiled: Compiled, everybody: Sequence[Mapping[Family, Party]]) -> None:
        self.families: list[tuple[Matrix, Bits]] = []
        for family in _FAMILIES:
            has = sum(1 << number for number, one in enumerate(everybody) if family in one)
            nobody = Party(Address(family, -1))  # in no set, so that numbers are the same in both families
            self.families.append((Matrix(compiled, [one.get(family, nobody) for one in everybody]), has))

    def rows(self, protocol: str, port: int) -> tuple[list[Bits], list[Bits]]:
        """Return for each whom it may reach by one family at least, and whom by one alone although both have both."""
        (four, has_four), (six, has_six) = ((matrix.rows(protocol, port), has) for matrix, has in self.families)
        both, reach, split = has_four & has_six, list[Bits](), list[Bits]()
        for number, (by_four, by_six) in enumerate(zip(four, six, strict=True)):
            own = 1 << number
            reach.append((by_four & has_four if own & has_four else 0) | (by_six & has_six if own & has_six else 0))
            split.append((by_four ^ by_six) & both if own & both else 0)
        return reach, split


class Matrix:
    """Parties of one family, in order.

    Attributes:
        subjects: Who is alike as far as its own rules go, by the names of the RuleSets.
    """

    def __init__(self, compiled: Compiled, parties: Sequence[Party]) -> None:
        self._compiled, self._parties = compiled, parties
        self._at: dict[Address, Bits] = {}
        self._nodes: dict[Address, Bits] = {}  # who runs on the node of that address
        self._members: dict[str, Bits] = {}  # of address sets
        self.subjects: dict[tuple[str, ...], Bits] = {}
        for number, party in enumerate(parties):
            _add(self._at, party.address, number)
            _add(self.subjects, compiled.rule_sets_of(party), number)
            for one in party.node_addresses:
                _add(self._nodes, one, number)

    @property
    def members(self) -> set[Bits]:
        """Whom each of the address sets that `rows` looked at has."""
        return set(self._members.values())

    def rows(self, protocol: str, port: int) -> list[Bits]:
        """Return for each party those that it may reach. It reaches itself in any case; here it is as others of its kind."""
        out, into = [0] * len(self._parties), [0] * len(self._parties)
        welcome: dict[Bits, Bits] = {}  # whom targets let in, and which targets
        for rule_sets, subjects in self.subjects.items():
            targets = self._passes(rule_sets, "Egress", protocol, port)
            for number in bits(subjects):
                out[number] = targets
            sources = self._passes(rule_sets, "Ingress", protocol, port)
            welcome[sources] = welcome.get(sources, 0) | subjects
        for sources, targets in welcome.items():
            for number in bits(sources):
                into[number] |= targets
        for number, party in enumerate(self._parties):
            out[number] &= into[number] | self._nodes.get(party.address, 0)
        return out

    def _passes(self, names: tuple[str, ...], direction: Direction, protocol: str, port: int) -> Bits:
        """Return with whom a subject of these RuleSets may talk, as its node decides for each: see `Compiled.verdict`."""
        rule_sets = [self._compiled.rule_set(name) for name in names]
        rules: dict[Tier, list[Rule]] = {"Admin": [], "Namespace": [], "Baseline": []}
        for one in rule_sets:
            rules[one.tier] += [rule for rule in one.rules if rule.direction == direction and opens(rule, protocol, port)]
        accepted, open_ = self._first_match(rules["Admin"], (1 << len(self._parties)) - 1)
        if any(direction in one.isolates for one in rule_sets):
            for rule in rules["Namespace"]:
                accepted |= open_ & self._peers(rule)
            return accepted
        further, open_ = self._first_match(rules["Baseline"], open_)
        return accepted | further | open_

    def _first_match(self, rules: list[Rule], undecided: Bits) -> tuple[Bits, Bits]:
        """Return whom the rules of a tier accept, and about whom they leave the decision to the next."""
        accepted = passed = 0
        for rule in rules:
            hit = undecided & self._peers(rule)
            undecided &= ~hit
            if rule.action == "Accept":
                accepted |= hit
            elif rule.action == "Pass":
                passed |= hit
        return accepted, undecided | passed

    def _peers(self, rule: Rule) -> Bits:
        if rule.peers is None:
            return -1
        found = 0
        for name in rule.peers:
            if name not in self._members:
                self._members[name] = 0
                for one in self._compiled.members(name, self._at):
                    self._members[name] |= self._at[one]
            found |= self._members[name]
        return found


def bits(number: Bits) -> Iterator[int]:
    """Yield the positions of the bits that are set."""
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest


def _add(where: dict[K, Bits], key: K, number: int) -> None:
    where[key] = where.get(key, 0) | 1 << number
