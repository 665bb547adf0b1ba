"""`tortiectl policy diff`: changes as people read them, and as programs do."""

from collections.abc import Iterable, Iterator
from typing import Any

from tortie.policy.difference import Change, Somebody
from tortie.policy.policies import PORT_MAX, PROTOCOLS, Ports
from tortie.policy.world import World

_NAMED = 3  # of a side; the others are counted
_EVERY = tuple(Ports(protocol, 1) for protocol in PROTOCOLS)


class Names:
    """What people call some of those who are there: all pods of a namespace are one name."""

    def __init__(self, world: World) -> None:
        self._pods: dict[str, int] = {}  # by namespace
        for (namespace, _), facts in world.facts.items():
            self._pods[namespace] = self._pods.get(namespace, 0) + (not facts.host_network)
        self._nodes = len(world.objects.nodes)

    def of(self, which: Iterable[Somebody]) -> str:
        """Return one side of a change in words."""
        return ", ".join(self._short(list(which)))

    def _short(self, which: list[Somebody]) -> Iterator[str]:
        pods: dict[str, list[str]] = {}
        for one in which:
            if one.pod:
                pods.setdefault(one.pod[0], []).append(one.pod[1])
        whole = [namespace for namespace, names in pods.items() if 1 < len(names) == self._pods[namespace]]
        if sum(map(len, pods.values())) == sum(self._pods.values()) > 1:
            yield "every pod"
        else:
            yield from _few([f"{namespace}/*" for namespace in whole], "namespaces")
            others = [f"{namespace}/{name}" for namespace, names in pods.items() if namespace not in whole for name in names]
            yield from _few(others, "pods")
        nodes = [f"node {one.node}" for one in which if one.node]
        yield from ["every node"] if 1 < len(nodes) == self._nodes else _few(nodes, "nodes")
        yield from (_block(one.addresses) for one in which if one.addresses)


def _few(names: list[str], what: str) -> list[str]:
    return names if len(names) <= _NAMED + 1 else [*names[:_NAMED], f"{len(names) - _NAMED} more {what}"]


def _block(cidr: str) -> str:
    return {"0.0.0.0/0": "other IPv4 addresses", "::/0": "other IPv6 addresses"}.get(cidr, cidr)


def ports(found: Iterable[Ports]) -> str:
    """Return ports in words: those that are left out, where these are fewer."""
    found = list(found)
    if found == list(_EVERY):
        return "every port"
    missing = list(_missing(found))
    if len(missing) < len(found):
        return f"every port but {', '.join(map(_range, missing))}"
    return ", ".join(map(_range, found))


def _missing(found: list[Ports]) -> Iterator[Ports]:
    for protocol in PROTOCOLS:
        following = 1
        for one in (one for one in found if one.protocol == protocol):
            if following < one.first:
                yield Ports(protocol, following, one.first - 1)
            following = one.last + 1
        if following <= PORT_MAX:
            yield Ports(protocol, following)


def _range(one: Ports) -> str:
    if (one.first, one.last) == (1, PORT_MAX):
        return one.protocol
    return f"{one.first}/{one.protocol}" if one.first == one.last else f"{one.first}-{one.last}/{one.protocol}"


def told(change: Change, names: Names) -> str:
    """Return a change as a sentence."""
    does = "opens" if change.opens else "closes"
    by = f"no longer denied by {', '.join(change.policies)}" if change.lifted else f"by {', '.join(change.policies)}"
    return f"{names.of(change.sources)} -> {names.of(change.targets)} {ports(change.ports)} {does}, {by}"


def as_row(change: Change) -> dict[str, Any]:
    """Return a change for programs."""
    return {
        "change": "opens" if change.opens else "closes",
        "from": [_plain(one) for one in change.sources],
        "to": [_plain(one) for one in change.targets],
        "ports": [_range(one) for one in change.ports],
        "policies": list(change.policies),
        "lifted": change.lifted,
    }


def _plain(one: Somebody) -> str:
    return "/".join(one.pod) if one.pod else f"node {one.node}" if one.node else one.addresses
