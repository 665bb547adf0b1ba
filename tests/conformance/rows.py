"""How a row is written and read.

A row says who reaches whom, one line each, and the last line that speaks of a packet decides:

    no   * -> x                  from everybody to all pods of the namespace x
    yes  y/a z -> x on TCP 80    but from the pod y/a and all pods of z to port 80

What no line speaks of passes. Whatever lines say, a pod reaches itself, and a node its own pods. Everybody is asked about,
in both families: pods, nodes, and two hosts outside, `far` and `near`. What is behind a service is asked only for
where a line says so: `yes y -> x/a via service`, or `via n1`, which is its port of that node.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml

from tests.conformance.people import NAMES, NODES, OUTSIDE, SERVED, SPACES, home, spelt

Object = dict[str, Any]
FAMILIES = ("v4", "v6")
PROTOCOLS = ("TCP", "UDP", "SCTP", "ICMP")
PORTS = ("TCP 80", "TCP 81", "UDP 80", "UDP 81", "ICMP")
_VIA_PORTS = ("TCP 80", "UDP 80")
_LINE = re.compile(r"(?P<says>yes|no)\s+(?P<sources>.+?) -> (?P<targets>.+?)(?: via (?P<via>\S+))?(?: on (?P<on>.+))?")

# Peers that rows name by a word.
WORDS = {
    "SAME": "{podSelector: {}}",
    "ANY_POD": "{namespaceSelector: {}}",
    "OF_Y": "{namespaceSelector: {matchLabels: {ns: y}}}",
    "OF_Z": "{namespaceSelector: {matchLabels: {ns: z}}}",
    "A_HERE": "{podSelector: {matchLabels: {pod: a}}}",
    "A_ANYWHERE": "{namespaceSelector: {}, podSelector: {matchLabels: {pod: a}}}",
    "A_OF_Y": "{namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchLabels: {pod: a}}}",
    "ALL_PODS": "{namespaces: {}}",
    "NS_X": "{namespaces: {matchLabels: {ns: x}}}",
    "NS_Y": "{namespaces: {matchLabels: {ns: y}}}",
    "NS_Z": "{namespaces: {matchLabels: {ns: z}}}",
    "POD_Y_A": "{pods: {namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchLabels: {pod: a}}}}",
}


class Asked(NamedTuple):
    """One packet that a row is asked about. `via` is empty, `service`, or a node."""

    source: str
    target: str
    on: str  # "TCP 80"
    family: str
    via: str = ""

    def __str__(self) -> str:
        way = f" via {self.via}" if self.via else ""
        return f"{self.source} -> {self.target}{way} on {self.on} {self.family}"


@dataclass(frozen=True)
class _Line:
    passes: bool
    sources: frozenset[str]
    targets: frozenset[str]
    via: str
    on: tuple[str, ...]  # "TCP 80", "TCP", "v4", or a protocol and a family: "TCP 80 v4"

    def speaks_of(self, asked: Asked) -> bool:
        if asked.via != self.via or asked.source not in self.sources or asked.target not in self.targets:
            return False
        facts = {asked.family, *asked.on.split(), *asked.on.split()[:1]}
        return not self.on or any(set(one.split()) <= facts for one in self.on)


@dataclass(frozen=True)
class Row:
    """What a row has.

    Attributes:
        policies: As YAML; `<x/a>` is the pod's IPv4 address, `<x/a 6>` its IPv6 address; so are nodes and hosts.
        says: Lines.
        ports: What is asked beyond `PORTS`.
    """

    policies: str
    says: str
    ports: tuple[str, ...] = ()

    def expected(self) -> dict[Asked, bool]:
        """Return every packet that is asked about, and whether it arrives."""
        return expected(self.says, self.ports)


def expected(says: str, ports: Iterable[str] = ()) -> dict[Asked, bool]:
    """Return every packet that lines ask about, and whether it arrives."""
    lines = [_line(text.strip()) for text in says.strip().splitlines() if text.strip()]
    return {asked: _passes(lines, asked) for asked in _questions(lines, (*PORTS, *ports))}


def _questions(lines: list[_Line], ports: tuple[str, ...]) -> Iterator[Asked]:
    others = (*NODES, *OUTSIDE)
    pairs = [(one, other) for one in NAMES for other in (*NAMES, *others)] + [(one, pod) for one in others for pod in NAMES]
    yield from (Asked(*pair, on, family) for family in FAMILIES for on in ports for pair in pairs)
    for via in ("service", *NODES):
        of_via = [line for line in lines if line.via == via]
        pairs = sorted({(source, target) for line in of_via for source in line.sources for target in line.targets})
        yield from (Asked(*pair, on, family, via) for family in FAMILIES for on in _VIA_PORTS for pair in pairs)


def _passes(lines: list[_Line], asked: Asked) -> bool:
    own = asked.source == asked.target or (asked.target in NAMES and asked.source == home(asked.target))
    if own and not asked.via:
        return True
    return next((line.passes for line in reversed(lines) if line.speaks_of(asked)), True)


def _line(text: str) -> _Line:
    found = _LINE.fullmatch(text)
    assert found, f"{text!r} is no line: write `yes|no SOURCES -> TARGETS [via service|NODE] [on WHAT, ...]`"
    via, on = found["via"] or "", tuple(one.strip() for one in (found["on"] or "").split(",") if one.strip())
    assert via in ("", "service", *NODES), text
    assert all(set(one.split()) & {*FAMILIES, *PROTOCOLS} for one in on), text
    sources, targets = _who(found["sources"]), _who(found["targets"])
    assert not via or targets <= set(SERVED), f"{text!r}: only {SERVED} have a service"
    return _Line(found["says"] == "yes", sources, targets, via, on)


def _who(text: str) -> frozenset[str]:
    groups = {
        "*": (*NAMES, *NODES, *OUTSIDE), "pods": NAMES, "nodes": NODES, "outside": tuple(OUTSIDE),
        **{space: tuple(f"{space}/{pod}" for pod in "abc") for space in SPACES},
        **{one: (one,) for one in (*NAMES, *NODES, *OUTSIDE)},
    }  # fmt: skip
    return frozenset(one for word in text.split() for one in groups[word])


def manifests(policies: str, world: int, name: str, addresses: Mapping[str, tuple[str, str]]) -> list[Object]:
    """Return a row's policies for a world; their names begin with `name`."""
    text = re.sub(r"<(\S+?)( 6)?>", lambda found: addresses[found[1]][1 if found[2] else 0], policies)
    return [_for_world(one, world, f"{name}-{number}") for number, one in enumerate(yaml.safe_load(text) or [])]


def network(spec: str, namespace: str = "x") -> str:
    """A NetworkPolicy."""
    return _spelt(f"- {{kind: NetworkPolicy, metadata: {{namespace: {namespace}}}, spec: {{{spec}}}}}\n")


def cluster_wide(
    rules: str, *, subject: str = "{namespaces: {matchLabels: {ns: x}}}", tier: str = "Admin", priority: int = 10
) -> str:
    """A ClusterNetworkPolicy, about the namespace x where nothing else is said."""
    spec = f"{{tier: {tier}, priority: {priority}, subject: {subject}, {rules}}}"
    return _spelt(f"- {{kind: ClusterNetworkPolicy, metadata: {{}}, spec: {spec}}}\n")


def _spelt(text: str) -> str:
    return re.sub(r"\b[A-Z]+(?:_[A-Z]+)*\b", lambda found: WORDS.get(found[0], found[0]), text)


def _for_world(policy: Object, world: int, name: str) -> Object:
    """Spell a policy for a world: a NetworkPolicy is in its namespace, a ClusterNetworkPolicy about its pods alone."""
    meta = {**policy["metadata"], "name": name}
    if policy["kind"] == "NetworkPolicy":
        meta["namespace"], _ = spelt(f"{meta['namespace']}/", world)
        return {**policy, "apiVersion": "networking.k8s.io/v1", "metadata": meta}
    subject = policy["spec"]["subject"]
    selector = subject["namespaces"] if "namespaces" in subject else subject["pods"].setdefault("namespaceSelector", {})
    selector.setdefault("matchLabels", {})["world"] = f"{world}"
    return {**policy, "apiVersion": "policy.networking.k8s.io/v1alpha2", "metadata": meta}
