"""What other implementations got wrong: one named row for each, in one small cluster.

`open` and `shut` list connections as `source target protocol port`. The oracle is asked, too, so it can't be wrong alone.
"""

from typing import NamedTuple

import pytest
import yaml

from tests.policy import oracle
from tests.policy.compiling import Objects, compiled, drop, party, put
from tests.policy.oracle import Cluster, Object
from tortie.addressing.allocator import address
from tortie.policy.compiler import Compiler
from tortie.policy.verdict import Compiled, Party

PEOPLE: Cluster = yaml.safe_load("""
namespaces:
- metadata: {name: a, labels: {kubernetes.io/metadata.name: a, team: red}}
- metadata: {name: b, labels: {kubernetes.io/metadata.name: b, team: blue}}
- metadata: {name: empty, labels: {kubernetes.io/metadata.name: empty, team: red}}
nodes:
- metadata: {name: n1, labels: {zone: east}}
  status: {addresses: [{type: Hostname, address: n1}, {type: InternalIP, address: 192.168.0.1}]}
- metadata: {name: n2, labels: {zone: west}}
  status: {addresses: [{type: Hostname, address: n2}, {type: InternalIP, address: 192.168.0.2}]}
pods:
- metadata: {namespace: a, name: web, uid: a-web, labels: {app: web}}
  spec: {nodeName: n1, containers: [{ports: [{name: http, containerPort: 80}]}]}
  status: {phase: Running, podIPs: [{ip: 10.0.1.1}]}
- metadata: {namespace: a, name: db, uid: a-db, labels: {app: db}}
  spec:
    nodeName: n2
    containers: [{ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}]}]
  status: {phase: Running, podIPs: [{ip: 10.0.2.2}]}
- metadata: {namespace: b, name: web, uid: b-web, labels: {app: web}}
  spec: {nodeName: n2, containers: [{}]}
  status: {phase: Running, podIPs: [{ip: 10.0.2.3}]}
- metadata: {namespace: b, name: ending, uid: b-ending, deletionTimestamp: "2026-01-01T00:00:00Z", labels: {app: ending}}
  spec: {nodeName: n2, containers: [{}]}
  status: {phase: Running, podIPs: [{ip: 10.0.2.4}]}
- metadata: {namespace: b, name: done, uid: b-done, labels: {app: web}}
  spec: {nodeName: n2, containers: [{}]}
  status: {phase: Succeeded, podIPs: [{ip: 10.0.2.5}]}
- metadata: {namespace: a, name: host, uid: a-host, labels: {app: web}}
  spec: {nodeName: n2, hostNetwork: true, containers: [{ports: [{name: http, containerPort: 80}]}]}
  status: {phase: Running, podIPs: [{ip: 192.168.0.2}]}
- metadata: {namespace: a, name: new, uid: a-new, labels: {app: new}}
  spec: {nodeName: n2, containers: [{ports: [{name: http, containerPort: 8080}]}]}
""")


class Trap(NamedTuple):
    policies: str
    open: tuple[str, ...] = ()
    shut: tuple[str, ...] = ()


# Peers that rows name by a word.
WORDS = {
    "WEB_ANYWHERE": "{namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}",
    "WEB": "{podSelector: {matchLabels: {app: web}}}",
    "ANYBODY": "{namespaceSelector: {}}",
    "BLUE": "{namespaceSelector: {matchLabels: {team: blue}}}",
    "BLOCK_2": "{ipBlock: {cidr: 10.0.2.0/24}}",
    "NOT_IN_B": "{key: team, operator: NotIn, values: [blue]}",
    "ALL": "{namespaces: {}}",
}


def network(spec: str, namespace: str = "a", name: str = "policy") -> str:
    """A NetworkPolicy."""
    return _spelt(f"- {{kind: NetworkPolicy, metadata: {{namespace: {namespace}, name: {name}}}, spec: {{{spec}}}}}\n")


def cluster_wide(rules: str, tier: str = "Admin", priority: int = 1, name: str = "policy") -> str:
    """A ClusterNetworkPolicy about every pod."""
    spec = f"{{tier: {tier}, priority: {priority}, subject: {{namespaces: {{}}}}, {rules}}}"
    return _spelt(f"- {{kind: ClusterNetworkPolicy, metadata: {{name: {name}}}, spec: {spec}}}\n")


def _spelt(text: str) -> str:
    for word, peer in WORDS.items():
        text = text.replace(word, peer)
    return text


TRAPS = {
    "a host-network pod is no peer by its labels": Trap(
        network("podSelector: {}, ingress: [{from: [WEB]}]"),
        open=("a/web a/db TCP 80",),
        shut=("n2 a/web TCP 80",),
    ),
    "a host-network pod is no subject": Trap(
        network("podSelector: {}, policyTypes: [Ingress, Egress]"),
        open=("b/web n2 TCP 80", "n2 b/web TCP 80"),
        shut=("b/web a/web TCP 80", "a/web n2 TCP 80"),
    ),
    "a completed pod is no peer": Trap(
        network("podSelector: {}, ingress: [{from: [WEB_ANYWHERE]}]"),
        open=("b/web a/web TCP 80",),
        shut=("10.0.2.5 a/web TCP 80",),
    ),
    "a completed pod is no subject": Trap(
        network("podSelector: {}", namespace="b"),
        open=("a/web 10.0.2.5 TCP 80",),
        shut=("a/web b/web TCP 80",),
    ),
    "a terminating pod is a peer": Trap(
        network("podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: ending}}}]}]"),
        open=("b/ending a/web TCP 80",),
        shut=("b/web a/web TCP 80",),
    ),
    "a terminating pod is a subject": Trap(network("podSelector: {}", namespace="b"), shut=("a/web b/ending TCP 80",)),
    "a pod reaches itsel": Trap(
        network("podSelector: {}, policyTypes: [Ingress, Egress]") + cluster_wide("ingress: [{action: Deny, from: [ALL]}]"),
        open=("a/web a/web TCP 80",),
        shut=("a/web a/db TCP 80",),
    ),
    "its own node reaches a pod, and no other": Trap(
        network("podSelector: {}, policyTypes: [Ingress, Egress]"),
        open=("n1 a/web TCP 80", "n2 a/db TCP 80"),
        shut=("n2 a/web TCP 80", "a/web n1 TCP 80"),
    ),
    "a policy in a namespace without pods does nothing": Trap(
        network("podSelector: {}, policyTypes: [Ingress, Egress]", namespace="empty"), open=("a/web b/web TCP 80",)
    ),
    "a pod without an address is a subject already": Trap(
        network("podSelector: {}, ingress: [{from: [WEB], ports: [{port: http}]}]"),
        open=("a/web a/new TCP 8080",),
        shut=("a/web a/new TCP 80", "b/web a/new TCP 8080"),
    ),
    "a selector that matches nobody denies": Trap(
        network("podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: nobody}}}]}]"),
        shut=("a/web a/db TCP 80", "8.8.8.8 a/db TCP 80"),
    ),
    "an ipBlock covers pods and nodes": Trap(
        network("podSelector: {}, ingress: [{from: [BLOCK_2, {ipBlock: {cidr: 192.168.0.2/32}}]}]"),
        open=("b/web a/web TCP 80", "n2 a/web TCP 80"),
        shut=("a/web a/db TCP 80",),
    ),
    "an except covers pods and nodes": Trap(
        network("podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.2.3/32, 192.168.0.0/24]}}]}]"),
        open=("8.8.8.8 a/web TCP 80", "a/db a/web TCP 80"),
        shut=("b/web a/web TCP 80", "n2 a/web TCP 80"),
    ),
    "what one ipBlock excepts another one may have": Trap(
        network("podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.2.0/24]}}, WEB_ANYWHERE]}]"),
        open=("b/web a/web TCP 80",),
        shut=("a/db a/web TCP 80",),
    ),
    "an empty list of ports is every port": Trap(
        network("podSelector: {}, ingress: [{from: [WEB], ports: []}]"), open=("a/web a/db TCP 1", "a/web a/db UDP 1")
    ),
    "a missing list of ports is every port": Trap(
        network("podSelector: {}, ingress: [{from: [WEB]}]"), open=("a/web a/db TCP 1", "a/web a/db UDP 1")
    ),
    "an empty list of peers is everybody": Trap(
        network("podSelector: {}, ingress: [{from: [], ports: [{port: 80}]}]"),
        open=("8.8.8.8 a/db TCP 80", "n1 a/db TCP 80"),
        shut=("8.8.8.8 a/db TCP 81",),
    ),
    "no rule is nobody, an empty rule everybody": Trap(
        network("podSelector: {}, ingress: []") + network("podSelector: {}, ingress: [{}]", namespace="b"),
        open=("8.8.8.8 b/web TCP 80",),
        shut=("8.8.8.8 a/web TCP 80",),
    ),
    "policyTypes are Ingress, and Egress where there are rules for it": Trap(
        network("podSelector: {}") + network("podSelector: {}, egress: [{ports: [{port: 81}]}]", namespace="b"),
        open=("a/web 8.8.8.8 TCP 80", "b/web 8.8.8.8 TCP 81"),
        shut=("b/web a/web TCP 81", "a/web b/web TCP 80", "b/web 8.8.8.8 TCP 80"),
    ),
    "an empty list of policyTypes is a missing one": Trap(
        network("podSelector: {}, policyTypes: []"), open=("a/web 8.8.8.8 TCP 80",), shut=("8.8.8.8 a/web TCP 80",)
    ),
    "a missing namespaceSelector is the own namespace, an empty one all": Trap(
        network("podSelector: {matchLabels: {app: db}}, ingress: [{from: [WEB]}]")
        + network("podSelector: {matchLabels: {app: web}}, ingress: [{from: [WEB_ANYWHERE]}]", name="other"),
        open=("a/web a/db TCP 80", "b/web a/web TCP 80"),
        shut=("b/web a/db TCP 80", "a/db a/web TCP 80"),
    ),
    "a named port that no pod has matches nothing": Trap(
        network("podSelector: {}, ingress: [{ports: [{port: nobodys}]}], egress: [{ports: [{port: nobodys}]}]"),
        shut=("b/web a/web TCP 80", "a/web b/web TCP 80"),
    ),
    "a named port is resolved on the pod that is asked": Trap(
        network("podSelector: {}, ingress: [{ports: [{port: http}]}], egress: [{to: [ANYBODY], ports: [{port: http}]}]"),
        open=("a/web a/db TCP 8080", "a/db a/web TCP 80", "b/web a/web TCP 80"),
        shut=("a/web a/db TCP 80", "a/db a/web TCP 8080", "b/web a/db TCP 80", "a/web b/web TCP 80"),
    ),
    "an egress named port without a peer is of any pod that names it": Trap(
        network("podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]"),
        open=("a/web a/db TCP 8080", "a/db a/web TCP 80"),
        shut=("a/web a/db TCP 80", "a/web 8.8.8.8 TCP 80", "a/web b/web TCP 80", "a/web n2 TCP 80"),
    ),
    "an egress named port with an ipBlock is of the pods in it": Trap(
        network("podSelector: {}, policyTypes: [Egress], egress: [{to: [BLOCK_2], ports: [{port: http}]}]"),
        open=("a/web a/db TCP 8080",),
        shut=("a/db a/web TCP 80", "a/web b/web TCP 8080"),
    ),
    "a named port has the protocol that the pod says": Trap(
        network("podSelector: {}, ingress: [{ports: [{port: dns}]}]")
        + network("podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: http, protocol: UDP}]}]", name="udp"),
        shut=("b/web a/db TCP 53", "b/web a/db UDP 53", "b/web a/web UDP 80", "b/web a/web TCP 80"),
    ),
    "a cluster's named port is of any protocol": Trap(
        cluster_wide("ingress: [{action: Deny, from: [ALL], protocols: [{destinationNamedPort: dns}]}]"),
        open=("b/web a/db TCP 53", "b/web a/web UDP 53"),
        shut=("b/web a/db UDP 53",),
    ),
    "a rule for SCTP or UDP opens no TCP": Trap(
        network("podSelector: {}, ingress: [{ports: [{protocol: SCTP}, {protocol: UDP, port: 80}]}]"),
        open=("b/web a/web SCTP 1", "b/web a/web UDP 80"),
        shut=("b/web a/web TCP 80", "b/web a/web UDP 81"),
    ),
    "a missing protocol is TCP": Trap(
        network("podSelector: {}, ingress: [{ports: [{port: 80}]}]"), open=("b/web a/web TCP 80",), shut=("b/web a/web UDP 80",)
    ),
    "NotIn takes who lacks the key, In does not": Trap(
        network("podSelector: {}, ingress: [{from: [{namespaceSelector: {matchExpressions: [NOT_IN_B]}}]}]")
        + network("podSelector: {matchExpressions: [{key: color, operator: NotIn, values: [red]}]}", namespace="b"),
        open=("a/db a/web TCP 80",),
        shut=("b/web a/web TCP 80", "a/web b/web TCP 80"),
    ),
    "an endPort is one of the ports": Trap(
        network("podSelector: {}, ingress: [{ports: [{port: 80, endPort: 82}]}]"),
        open=("b/web a/web TCP 80", "b/web a/web TCP 82"),
        shut=("b/web a/web TCP 79", "b/web a/web TCP 83"),
    ),
    "peers of one policy and ports of another never combine": Trap(
        network("podSelector: {}, ingress: [{from: [WEB], ports: [{port: 80}]}]")
        + network("podSelector: {}, ingress: [{from: [BLUE], ports: [{port: 81}]}]", name="other"),
        open=("a/web a/db TCP 80", "b/web a/db TCP 81"),
        shut=("a/web a/db TCP 81", "b/web a/db TCP 80"),
    ),
    "an unknown peer: Accept matches nothing": Trap(
        cluster_wide("ingress: [{action: Accept, from: [{}, ALL]}]") + network("podSelector: {}"),
        shut=("b/web a/web TCP 80",),
    ),
    "an unknown peer: Deny denies": Trap(
        cluster_wide("egress: [{action: Deny, to: [{domainNames: [example.org]}], protocols: [{udp: {}}]}]"),
        shut=("a/web b/web TCP 80", "a/web 8.8.8.8 UDP 53"),
    ),
    "an unknown peer: Pass denies": Trap(
        cluster_wide("ingress: [{action: Pass, from: [{services: {}}, ALL]}]"), shut=("a/web b/web TCP 80",)
    ),
    "an unknown protocol: Accept matches nothing": Trap(
        cluster_wide("ingress: [{action: Accept, from: [ALL], protocols: [{tcp: {destinationPort: {set: web}}}]}]")
        + network("podSelector: {}"),
        shut=("b/web a/web TCP 80",),
    ),
    "no networks are not all nodes": Trap(
        cluster_wide(
            "egress: [{action: Accept, to: [{nodes: {}}], protocols: [{tcp: {destinationPort: {number: 22}}}]},"
            " {action: Deny, to: [{networks: []}]}]"
        ),
        open=("a/web n2 TCP 80", "a/web n2 TCP 22"),
    ),
    "Pass leaves the tier": Trap(
        cluster_wide("ingress: [{action: Pass, from: [{namespaces: {matchLabels: {team: red}}}]}, {action: Deny, from: [ALL]}]")
        + cluster_wide("ingress: [{action: Deny, from: [ALL]}]", priority=2, name="second")
        + network("podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 80}]}]"),
        open=("a/web a/db TCP 80", "a/web b/web TCP 81"),
        shut=("b/web a/db TCP 80", "a/web a/db TCP 81"),
    ),
    "a Baseline rule holds for whom no NetworkPolicy isolates": Trap(
        cluster_wide("ingress: [{action: Deny, from: [ALL]}]", tier="Baseline") + network("podSelector: {}, ingress: [{}]"),
        open=("b/web a/web TCP 80", "8.8.8.8 b/web TCP 80"),
        shut=("a/web b/web TCP 80",),
    ),
}  # fmt: skip


def who(name: str) -> oracle.Party:
    """NAMESPACE/POD, a node, or an address."""
    if "/" in name:
        return oracle.Party(pod=name, address=next(iter(oracle.addresses_of(oracle.find_pod(PEOPLE, name))), ""))
    found = [one for one in PEOPLE["nodes"] if one["metadata"]["name"] == name]
    return oracle.Party(node=name, address=oracle.addresses_of(found[0])[0]) if found else oracle.Party(address=name)


@pytest.mark.parametrize("row", TRAPS)
def test_trap(row: str) -> None:
    trap = TRAPS[row]
    policies = yaml.safe_load(trap.policies)
    cluster = dict(PEOPLE)
    for kind in ("NetworkPolicy", "ClusterNetworkPolicy"):
        cluster[f"{kind.lower()[:-1]}ies"] = [one for one in policies if one["kind"] == kind]
    objects = compiled(cluster)
    for expected, questions in ((True, trap.open), (False, trap.shut)):
        for question in questions:
            first, second, protocol, port = question.split()
            source, target = who(first), who(second)
            assert oracle.allowed(cluster, source, target, protocol, int(port)) == expected, question
            found = objects.verdict(party(cluster, source), party(cluster, target), protocol, int(port))
            assert found.allowed == expected, (question, found)


# Those that are about what changes.

TARGET = Party(address("10.0.1.1"), ("a", "web"))


class Told:
    """A compiler that is told of one thing after another, and what its objects say of who reaches a/web."""

    def __init__(self, spec: str) -> None:
        self.compiler, self.objects = Compiler(), Objects()
        for kind in ("namespaces", "nodes", "pods"):
            for one in PEOPLE[kind]:
                self.put(kind, one)
        for one in yaml.safe_load(network(spec)):
            self.put("networkpolicies", one)

    def put(self, kind: str, one: Object) -> None:
        put(self.compiler, kind, one)

    def claim(self, node: str, **claims: str) -> None:
        """Publish a block of this node: uids by the last number of the address 10.0.2.N, as `_N`."""
        published = {f"10.0.2.{last[1:]}": uid for last, uid in claims.items()}
        self.put("blocks", {"name": f"block-{node}", "node": node, "claims": published})

    def reach(self, *sources: str) -> list[bool]:
        self.objects.write(self.compiler.take())
        objects = Compiled(self.objects.rule_sets, self.objects.address_sets.values(), self.objects.node_policies.values())
        return [objects.verdict(Party(address(one)), TARGET, "TCP", 80).allowed for one in sources]


def renamed(pod: str, **metadata: object) -> Object:
    found = oracle.find_pod(PEOPLE, pod)
    return {**found, "metadata": {**found["metadata"], **metadata}}


FROM_WEB = "podSelector: {}, ingress: [{from: [WEB_ANYWHERE]}]"
FROM_RED = "podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}}]}]"


@pytest.mark.parametrize("pod_first", [True, False])
def test_a_pod_that_is_made_again_under_its_name_has_its_new_address_alone(pod_first: bool) -> None:
    told = Told(FROM_WEB)
    told.claim("n2", _3="b-web")
    assert told.reach("10.0.2.3", "10.0.2.9") == [True, False]
    for pod_now in (True, False) if pod_first else (False, True):
        if pod_now:
            told.put("pods", renamed("b/web", uid="another"))
        else:
            told.claim("n2", _9="another")
        assert told.reach("10.0.2.3") == [False]
    assert told.reach("10.0.2.3", "10.0.2.9") == [False, True]


def test_an_address_passes_from_one_pod_to_another_between_two_events() -> None:
    told = Told(FROM_WEB)
    told.claim("n2", _3="b-web")
    told.put("pods", {**renamed("b/web", name="second", uid="second")})
    told.put("blocks", {"name": "other", "node": "n2", "claims": {"10.0.2.3": "second"}})
    assert told.reach("10.0.2.3") == [True]
    drop(told.compiler, "pods", renamed("b/web"))
    told.claim("n2")
    assert told.reach("10.0.2.3") == [True]
    told.put("pods", renamed("b/web", name="second", uid="second", labels={"app": "db"}))
    assert told.reach("10.0.2.3") == [False]


def test_a_namespace_is_relabelled() -> None:
    told = Told(FROM_RED)
    told.claim("n2", _3="b-web")
    assert told.reach("10.0.2.3") == [False]
    told.put("namespaces", {"metadata": {"name": "b", "labels": {"team": "red"}}})
    assert told.reach("10.0.2.3") == [True]
    told.put("namespaces", {"metadata": {"name": "b", "labels": {}}})
    assert told.reach("10.0.2.3") == [False]


def test_a_pod_is_no_endpoint_before_its_namespace_is_known() -> None:
    """Else policies that select namespaces would not hold for it yet, and its node would let it start."""
    told = Told(FROM_RED)

    def endpoints() -> set[str]:
        told.objects.write(told.compiler.take())
        listed = (one for node in told.objects.node_policies.values() for group in node.groups for one in group.endpoints)
        return {one.name for one in listed if one.namespace == "new"}

    told.put("pods", renamed("b/web", namespace="new", uid="new-web"))
    assert endpoints() == set()
    told.put("namespaces", {"metadata": {"name": "new", "labels": {}}})
    assert endpoints() == {"web"}
    drop(told.compiler, "namespaces", {"metadata": {"name": "new"}})
    assert endpoints() == set()


LIES = {
    "a pod of another node": ("n1", "b-web"),
    "a host-network pod": ("n2", "a-host"),
    "a pod that has ended": ("n2", "b-done"),
    "nobody's uid": ("n2", "nobody"),
}


@pytest.mark.parametrize("row", LIES)
def test_a_published_address_that_does_not_fit_is_not_believed(row: str) -> None:
    node, uid = LIES[row]
    told = Told(FROM_WEB)
    told.claim(node, _77=uid)
    assert told.reach("10.0.2.77") == [False]
