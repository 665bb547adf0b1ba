"""What was so, what changes, and how it is then."""

from collections.abc import Callable
from typing import NamedTuple

from tests.conformance.network_rows import egress, ingress
from tests.conformance.people import spelt
from tests.conformance.rows import cluster_wide, network
from tests.conformance.town import Town


class Change(NamedTuple):
    """A row: policies, what they come to, what is done in a world, and what they come to then."""

    policies: str
    before: str
    do: "Do"
    after: str


Do = Callable[[Town, int], None]


def pod_label(pod: str, label: str) -> Do:
    """Label a pod, or take the label away: `key-`."""

    def do(town: Town, world: int) -> None:
        namespace, name = spelt(pod, world)
        town.kubectl.run("label", "pod", name, "-n", namespace, "--overwrite", label)

    return do


def space_label(space: str, label: str) -> Do:
    """Label a namespace."""

    def do(town: Town, world: int) -> None:
        town.kubectl.run("label", "namespace", f"{space}-{world}", "--overwrite", label)

    return do


def policies(text: str) -> Do:
    """Let these policies be there in place of those that were; one of the same place in the list is changed."""
    return lambda town, world: town.change(world, text)


def made_again(*pods: str) -> Do:
    """Delete pods and make them again; they have other addresses."""

    def do(town: Town, world: int) -> None:
        for pod in pods:
            town.remake(world, pod)

    return do


def in_turn(*all_of_it: Do) -> Do:
    """Do one after the other."""

    def do(town: Town, world: int) -> None:
        for one in all_of_it:
            one(town, world)

    return do


NEW = "{podSelector: {matchLabels: {role: new}}}"
NEW_TEAM = "{namespaceSelector: {matchLabels: {team: new}}}"
DENY_Z = "ingress: [{action: Deny, from: [NS_Z]}]"

LABELS = {
    "a pod gets the label of a peer": Change(
        ingress(f"from: [{NEW}]"), "no * -> x", pod_label("x/b", "role=new"),
        """
        no * -> x
        yes x/b -> x
        """,
    ),
    "a pod loses the label of a peer": Change(
        ingress("from: [A_ANYWHERE]"),
        """
        no * -> x
        yes x/a y/a z/a -> x
        """,
        pod_label("y/a", "pod=other"),
        """
        no * -> x
        yes x/a z/a -> x
        """,
    ),
    "a pod becomes a subject": Change(
        network("podSelector: {matchLabels: {role: new}}"), "", pod_label("x/c", "role=new"), "no * -> x/c"
    ),
    "a pod is no subject any more": Change(
        network("podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress]"), "no x/a -> *", pod_label("x/a", "pod=other"), ""
    ),
    "a namespace gets the label of a peer": Change(
        egress(f"to: [{NEW_TEAM}]"), "no x -> *", space_label("y", "team=new"),
        """
        no x -> *
        yes x -> y
        """,
    ),
    "a namespace loses the label of a peer": Change(
        cluster_wide(DENY_Z), "no z -> x", space_label("z", "ns=other"), ""
    ),
    "a namespace becomes a subject": Change(
        cluster_wide(DENY_Z, subject="{namespaces: {matchLabels: {team: new}}}"), "", space_label("y", "team=new"), "no z -> y"
    ),
    "a pod is denied once it has the label": Change(
        cluster_wide(
            "ingress: [{action: Deny, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {role: new}}}}]}]"
        ),
        "",
        in_turn(pod_label("x/a", "role=new"), pod_label("z/b", "role=new")),
        "no x/a z/b -> x",
    ),
}  # fmt: skip

POLICIES = {
    "a policy comes": Change("", "", policies(network("podSelector: {}")), "no * -> x"),
    "a policy goes": Change(
        network("podSelector: {}, policyTypes: [Ingress, Egress]"), "no * -> x\nno x -> *", policies(""), ""
    ),
    "one of two policies goes": Change(
        ingress("from: [OF_Y]") + ingress("from: [OF_Z]"), "no * -> x\nyes y z -> x", policies(ingress("from: [OF_Y]")),
        "no * -> x\nyes y -> x",
    ),
    "a policy's peer and port change": Change(
        ingress("from: [OF_Y], ports: [{port: 80}]"), "no * -> x\nyes y -> x on TCP 80",
        policies(ingress("from: [OF_Z], ports: [{port: 81}]")), "no * -> x\nyes z -> x on TCP 81",
    ),
    "a policy's subject changes": Change(
        ingress("from: [OF_Y]", subject="{matchLabels: {pod: a}}"), "no * -> x/a\nyes y -> x/a",
        policies(ingress("from: [OF_Y]", subject="{matchLabels: {pod: b}}")), "no * -> x/b\nyes y -> x/b",
    ),
    "a policy's direction changes": Change(
        network("podSelector: {}, policyTypes: [Ingress]"), "no * -> x",
        policies(network("podSelector: {}, policyTypes: [Egress]")), "no x -> *",
    ),
    "an except is added": Change(
        ingress("from: [{ipBlock: {cidr: 0.0.0.0/0}}]"), "no * -> x\nyes * -> x on v4",
        policies(ingress("from: [{ipBlock: {cidr: 0.0.0.0/0, except: [192.0.2.0/24]}}]")),
        "no * -> x\nyes * -> x on v4\nno far -> x",
    ),
    "a ClusterNetworkPolicy's action changes": Change(
        cluster_wide(DENY_Z), "no z -> x", policies(cluster_wide(DENY_Z.replace("Deny", "Accept"))), ""
    ),
    "a ClusterNetworkPolicy's tier changes": Change(
        cluster_wide(DENY_Z) + ingress("from: [OF_Z]"), "no * -> x",
        policies(cluster_wide(DENY_Z, tier="Baseline") + ingress("from: [OF_Z]")), "no * -> x\nyes z -> x",
    ),
    "a ClusterNetworkPolicy's priority changes": Change(
        cluster_wide(DENY_Z, priority=1) + cluster_wide(DENY_Z.replace("Deny", "Accept"), priority=2), "no z -> x",
        policies(cluster_wide(DENY_Z, priority=3) + cluster_wide(DENY_Z.replace("Deny", "Accept"), priority=2)), "",
    ),
}  # fmt: skip

PODS = {
    "a peer is made again": Change(
        ingress("from: [A_OF_Y]"), "no * -> x\nyes y/a -> x", made_again("y/a"), "no * -> x\nyes y/a -> x"
    ),
    "a subject is made again": Change(
        ingress("from: [OF_Y]"), "no * -> x\nyes y -> x", made_again("x/c"), "no * -> x\nyes y -> x"
    ),
    "a denied peer and a subject are made again": Change(
        cluster_wide("ingress: [{action: Deny, from: [POD_Y_A]}]"), "no y/a -> x", made_again("y/a", "x/b"), "no y/a -> x"
    ),
}  # fmt: skip

ROWS = LABELS | POLICIES | PODS
