"""Connections that are open while something changes: which of them are cut, and which go on.

Pods of y have opened them to pods of x, on their node and on the other, by TCP and UDP, to ports 80 and 81, and to port 80
through a service too. A line speaks of connections: `no y -> x on TCP 81` says that what y has opened to port 81 of x carries
nothing any more, in either direction. All others go on, and lose nothing of what either end says meanwhile.
"""

from itertools import product
from typing import NamedTuple

from tests.conformance.change_rows import Do, pod_label, policies
from tests.conformance.network_rows import DENY_IN, DENY_OUT
from tests.conformance.rows import FAMILIES, Asked, cluster_wide, network


class Open(NamedTuple):
    """A row: policies, which allow every connection, what is done while they are open, and which end by it."""

    policies: str
    do: Do
    after: str
    protocols: tuple[str, ...] = ("TCP", "UDP")


# Of one node, and of two, either way.
_PAIRS = (("y/b", "x/a"), ("y/a", "x/b"), ("y/a", "x/a"), ("y/b", "x/b"))
CONNECTIONS = [
    Asked(*pair, on, family, via)
    for pair, family, (on, via) in product(
        _PAIRS,
        FAMILIES,
        [("TCP 80", ""), ("TCP 81", ""), ("UDP 80", ""), ("UDP 81", ""), ("TCP 80", "service"), ("UDP 80", "service")],
    )
]

PORT_80, PORT_81 = (f"ports: [{{port: {port}}}, {{port: {port}, protocol: UDP}}]" for port in (80, 81))
TO_X = "to: [{namespaceSelector: {matchLabels: {ns: x}}}]"
A_OR_B = "{namespaceSelector: {}, podSelector: {matchExpressions: [{key: pod, operator: In, values: [a, b]}]}}"


def server(rule: str) -> str:
    """Isolate x but for this rule of ingress; in both directions, because by UDP either end may begin anew."""
    return network(f"podSelector: {{}}, policyTypes: [Ingress, Egress], ingress: [{rule}]")


def client(rule: str) -> str:
    """Isolate y but for this rule of egress."""
    return network(f"podSelector: {{}}, policyTypes: [Ingress, Egress], egress: [{rule}]", "y")


# What is to go on is allowed by the object that isolates, or by one that was there before: two would come one by one.
POLICIES = {
    "nobody may begin anything with the server": Open("", policies(network(DENY_IN)), "no y -> x", ("TCP",)),
    "the client may begin nothing": Open("", policies(network(DENY_OUT, "y")), "no y -> x", ("TCP",)),
    "the server is isolated but for a port": Open(
        "", policies(server(f"{{from: [OF_Y], {PORT_80}}}")), "no y -> x on TCP 81, UDP 81"
    ),
    "the client is isolated but for a port": Open(
        "", policies(client(f"{{{TO_X}, {PORT_80}}}")), "no y -> x on TCP 81, UDP 81"
    ),
    "the server is isolated but for one client": Open("", policies(server("{from: [A_OF_Y]}")), "no y/b -> x"),
    "the server is isolated but for IPv4": Open(
        "", policies(server("{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}")), "no y -> x on v6"
    ),
    "a ClusterNetworkPolicy denies all but a port": Open(
        "",
        policies(
            cluster_wide(
                "ingress: [{action: Accept, from: [NS_Y], protocols: [{tcp: {destinationPort: {number: 80}}},"
                " {udp: {destinationPort: {number: 80}}}]}, {action: Deny, from: [NS_Y]}],"
                " egress: [{action: Deny, to: [NS_Y]}]"
            )
        ),
        "no y -> x on TCP 81, UDP 81",
    ),
    "one of two policies goes": Open(
        server(f"{{from: [OF_Y], {PORT_80}}}") + server(f"{{from: [OF_Y], {PORT_81}}}"),
        policies(server(f"{{from: [OF_Y], {PORT_80}}}")),
        "no y -> x on TCP 81, UDP 81",
    ),
    "both ends are isolated, and allow it": Open("", policies(server("{from: [OF_Y]}") + client(f"{{{TO_X}}}")), ""),
    "the server is isolated, and Admin accepts it": Open(
        cluster_wide("ingress: [{action: Accept, from: [NS_Y]}]"),
        policies(cluster_wide("ingress: [{action: Accept, from: [NS_Y]}]") + server("")),
        "",
    ),
}

LABELS = {
    "a client loses the label of a peer": Open(server(f"{{from: [{A_OR_B}]}}"), pod_label("y/b", "pod=other"), "no y/b -> x"),
    "a server becomes a subject": Open(
        network("podSelector: {matchLabels: {role: new}}, policyTypes: [Ingress, Egress]"),
        pod_label("x/a", "role=new"),
        "no y -> x/a",
    ),
}

ROWS = POLICIES | LABELS
