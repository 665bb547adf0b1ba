"""`tortiectl policy explain`: whether one may talk to another, and why, as a person wants it told."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, NamedTuple

import click

from tortie.addressing.allocator import address
from tortie.addressing.ranges import Family
from tortie.policy.verdict import Decision, Party, Verdict
from tortie.policy.world import PodKey, World


class Port(NamedTuple):
    """A port of a protocol; as people write it: 80/TCP."""

    number: int
    protocol: str

    def __str__(self) -> str:
        return f"{self.number}/{self.protocol}"


class Side(NamedTuple):
    """One end of what is asked: as it was asked, and for people; as whom it talks, and what should be known about it."""

    asked: str
    name: str
    parties: dict[Family, Party]
    notes: tuple[str, ...] = ()


def side(world: World, text: str) -> Side:
    """Return who NAMESPACE/POD or an address is; raises UsageError."""
    namespace, slash, name = text.partition("/")
    if slash:
        if (namespace, name) not in world.objects.pods:
            raise click.UsageError(f"there is no pod {text}{_instead(world, namespace, name)}")
        return _pod(world, (namespace, name))
    try:
        one = address(text)
    except ValueError as error:
        raise click.UsageError(
            f"{text!r} is neither NAMESPACE/POD nor an IP address{_instead(world, 'default', text)}"
        ) from error
    for key, facts in world.facts.items():
        if not facts.host_network and one in map(address, world.addresses[key]):
            found = _pod(world, key)
            return found._replace(
                asked=text, name=f"{found.name} ({one})", parties={one.family: world.parties(key)[one.family]}
            )
    for node, addresses in world.node_addresses.items():
        if one in map(address, addresses):
            return Side(text, f"{one} (node {node})", {one.family: Party(one)})
    return Side(text, f"{one} (no pod and no node)", {one.family: Party(one)})


def _pod(world: World, key: PodKey) -> Side:
    name, pod = "/".join(key), world.objects.pods[key]
    facts = world.facts.get(key)
    if facts is None:
        return Side(name, name, {}, (f"{name} has ended ({pod.status.phase}): nothing runs there that could talk",))
    notes = []
    if facts.host_network:
        notes.append(f"{name} is in its node's network: no policy holds for it, and to others it is its node's address")
    if key in world.invented:
        notes.append(f"{name} has no address yet: {' and '.join(world.addresses[key])} stand in")
    elif not pod.spec.node_name:
        notes.append(f"{name} is on no node yet")
    return Side(name, name, world.parties(key), tuple(notes))


def _instead(world: World, namespace: str, name: str) -> str:
    """Return which pods may be meant."""
    known = {"/".join(key): key for key in world.objects.pods}
    meant = [text for text, key in known.items() if key[1] == name]
    meant += get_close_matches(f"{namespace}/{name}", known, n=3)
    if meant:
        return f"; is it {' or '.join(dict.fromkeys(meant[:3]))}?"
    return f"; there are {', '.join([*known][:3])}{' and others' if len(known) > 3 else ''}" if known else "; there are no pods"


class Answer(NamedTuple):
    """What is answered: by each family that both have."""

    source: Side
    target: Side
    port: Port
    verdicts: dict[Family, Verdict]

    @property
    def allowed(self) -> bool:
        """Whether a connection can come about, by one family at least."""
        return any(verdict.allowed for verdict in self.verdicts.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """What should be known beside the verdict."""
        lone: tuple[str, ...] = ()
        if self.source.parties and self.target.parties and not self.verdicts:
            lone = ("they have no address family in common",)
        return tuple(dict.fromkeys((*self.source.notes, *self.target.notes, *lone)))


def answer(world: World, source: Side, target: Side, port: Port) -> Answer:
    """Return the verdicts."""
    verdicts = {
        family: world.compiled.verdict(party, target.parties[family], port.protocol, port.number)
        for family, party in sorted(source.parties.items())
        if family in target.parties
    }
    return Answer(source, target, port, verdicts)


def lines(found: Answer) -> Iterable[str]:
    """Yield what is told to people: families that fare alike are told of together."""
    yield f"{_says(found.allowed)}: {found.source.name} to {found.target.name}, {found.port}"
    alike: dict[Verdict, list[Family]] = {}
    for family, verdict in found.verdicts.items():
        alike.setdefault(verdict, []).append(family)
    for verdict, families in alike.items():
        if len(alike) > 1:
            yield f"by {' and '.join(f'IPv{one}' for one in families)}: {_says(verdict.allowed)}"
        yield f"  out of {found.source.name}: {_told(verdict.egress)}"
        yield f"  into {found.target.name}: {_told(verdict.ingress)}"
    yield from (f"Note: {note}" for note in found.notes)


def _says(allowed: bool) -> str:
    return "Allowed" if allowed else "Denied"


def _told(decision: Decision) -> str:
    says = _says(decision.allowed).lower()
    by = f" by {' and '.join(decision.policies)}" if decision.policies else ""
    return f"{says}{by}" if decision.why == "Accept" else f"{says}{by}: {decision.why}"


def as_json(found: Answer) -> dict[str, Any]:
    """Return what is told to programs."""
    return {
        "from": found.source.asked,
        "to": found.target.asked,
        "port": found.port.number,
        "protocol": found.port.protocol,
        "allowed": found.allowed,
        "families": [
            {
                "family": f"IPv{family}",
                "from": str(found.source.parties[family].address),
                "to": str(found.target.parties[family].address),
                "allowed": verdict.allowed,
                "egress": _decision(verdict.egress),
                "ingress": _decision(verdict.ingress),
            }
            for family, verdict in found.verdicts.items()
        ],
        "notes": list(found.notes),
    }


def _decision(one: Decision) -> dict[str, Any]:
    return {"allowed": one.allowed, "why": one.why, "policies": list(one.policies)}
