"""Three pods on two nodes, and the outside: whom packets reach by which rules."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.agent.packets import Net, Place, Probe, net
from tests.policy.compiling import Objects
from tortie.api.compiled import AddressSetSpec, Endpoint, EndpointGroup, NodePolicySpec, RuleSetSpec

A, B, C = ("10.0.1.1", "fd00::1:1"), ("10.0.1.2", "fd00::1:2"), ("10.0.2.1", "fd00::2:1")
OUTSIDE = ("8.8.8.8", "2001:db8::8")


class Three:
    """Pods a and b on the first node, c on the second, as the compiled objects say; everybody open at first."""

    def __init__(self, net: Net) -> None:
        self.net, self._number = net, 0
        self.enforce({})
        self.hosts = {}
        self.places: dict[str, Place] = {}
        for name, node, addresses in (("a", 0, A), ("b", 0, B), ("c", 1, C)):
            namespace = net.free.pop()
            self.hosts[name] = net.nodes[node].attach(namespace, name, addresses)
            self.places |= dict.fromkeys(addresses, net.places[namespace])
        for number, one in enumerate(net.nodes):
            self.places |= dict.fromkeys((f"192.168.10{number}.2", f"fd0f:{number}::2"), net.places[one.namespace])
        self.places |= dict.fromkeys(OUTSIDE, net.outside)

    def enforce(
        self, rule_sets: dict[str, RuleSetSpec], lists: dict[str, tuple[str, ...]] | None = None, **sets: tuple[str, ...]
    ) -> None:
        """Let these RuleSets hold, for each pod those of its list; sets by name."""
        objects = Objects()
        self._number += 1
        objects.rule_sets = rule_sets
        objects.address_sets = {f"{name}-0": AddressSetSpec(name, 0, addresses, 1) for name, addresses in sets.items()}
        for node, names in (("n1", "ab"), ("n2", "c")):
            groups = [EndpointGroup((Endpoint("ns", name, name),), (lists or {}).get(name, ())) for name in names]
            objects.node_policies[node] = NodePolicySpec(tuple(groups))
        for one in self.net.nodes:
            one.enforce(objects, self._number)

    def passes(self, source: str, target: str, protocol: str = "TCP", port: int = 80, *, really: str = "") -> bool:
        """Whether a packet arrives; `really` is who sends it."""
        probe = Probe(source, target, protocol, port)
        return self.net.exchange([(self.places[really or source], probe)])[probe] == [self.places[target]]


@contextmanager
def three() -> Iterator[Three]:
    """Give them, everybody open."""
    with net(3) as made:
        made.lead(0, ("10.0.1.0/24", "fd00::1:0/112"))
        made.lead(1, ("10.0.2.0/24", "fd00::2:0/112"))
        with made.outside.has(OUTSIDE):
            yield Three(made)
