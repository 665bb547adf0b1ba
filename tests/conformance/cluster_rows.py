"""ClusterNetworkPolicy, feature by feature, and beside NetworkPolicies."""

from tests.conformance.rows import Row, cluster_wide, network

OPEN_TO_Z = network("podSelector: {}, ingress: [{from: [OF_Z]}]")
DENY_PODS = "ingress: [{action: Deny, from: [ALL_PODS]}]"

TIERS = {
    "Admin denies pods of a namespace": Row(cluster_wide("ingress: [{action: Deny, from: [NS_Y]}]"), "no y -> x"),
    "Admin denies what a NetworkPolicy allows": Row(
        cluster_wide("ingress: [{action: Deny, from: [POD_Y_A]}]") + network("podSelector: {}, ingress: [{from: [OF_Y]}]"),
        """
        no * -> x
        yes y/b y/c -> x
        """,
    ),
    "Admin accepts what a NetworkPolicy denies": Row(
        cluster_wide("ingress: [{action: Accept, from: [NS_Y]}]") + network("podSelector: {}"),
        """
        no * -> x
        yes y -> x
        """,
    ),
    "Admin accepts what Baseline denies": Row(
        cluster_wide("ingress: [{action: Accept, from: [NS_Y]}]") + cluster_wide(DENY_PODS, tier="Baseline"),
        """
        no pods -> x
        yes y -> x
        """,
    ),
    "Admin passes to NetworkPolicies": Row(
        cluster_wide("ingress: [{action: Pass, from: [NS_Z]}, {action: Deny, from: [ALL_PODS]}]")
        + network("podSelector: {}, ingress: [{from: [OF_Z], ports: [{port: 80}]}]"),
        """
        no * -> x
        yes z -> x on TCP 80
        """,
    ),
    "Admin passes to Baseline where no NetworkPolicy is": Row(
        cluster_wide("ingress: [{action: Pass, from: [NS_Z]}, {action: Deny, from: [NS_Y]}]")
        + cluster_wide("ingress: [{action: Deny, from: [NS_Z], protocols: [{udp: {}}]}]", tier="Baseline"),
        """
        no y -> x
        no z -> x on UDP
        """,
    ),
    "what passes skips the tier's later policies": Row(
        cluster_wide("ingress: [{action: Pass, from: [NS_Z]}]", priority=1) + cluster_wide(DENY_PODS, priority=2),
        """
        no pods -> x
        yes z -> x
        """,
    ),
    "Baseline denies where no NetworkPolicy is": Row(cluster_wide(DENY_PODS, tier="Baseline"), "no pods -> x"),
    "Baseline is silent where a NetworkPolicy isolates": Row(
        cluster_wide(DENY_PODS, tier="Baseline") + OPEN_TO_Z,
        """
        no * -> x
        yes z -> x
        """,
    ),
    "Baseline holds for the direction that no NetworkPolicy isolates": Row(
        cluster_wide(f"{DENY_PODS}, egress: [{{action: Deny, to: [NS_Y]}}]", tier="Baseline") + OPEN_TO_Z,
        """
        no * -> x
        yes z -> x
        no x -> y
        """,
    ),
    "Baseline accepts before it denies": Row(
        cluster_wide("ingress: [{action: Accept, from: [POD_Y_A]}, {action: Deny, from: [ALL_PODS]}]", tier="Baseline"),
        """
        no pods -> x
        yes y/a -> x
        """,
    ),
    "Baseline passes": Row(
        cluster_wide("ingress: [{action: Pass, from: [NS_Y]}, {action: Deny, from: [ALL_PODS]}]", tier="Baseline"),
        """
        no pods -> x
        yes y -> x
        """,
    ),
}

ORDER = {
    "the lower priority decides": Row(
        cluster_wide("ingress: [{action: Accept, from: [NS_Y]}]", priority=5) + cluster_wide(DENY_PODS, priority=6),
        """
        no pods -> x
        yes y -> x
        """,
    ),
    "the lower priority decides, whichever came first": Row(
        cluster_wide("ingress: [{action: Accept, from: [NS_Y]}]", priority=1000) + cluster_wide(DENY_PODS, priority=0),
        "no pods -> x",
    ),
    "the first rule decides": Row(
        cluster_wide("ingress: [{action: Deny, from: [POD_Y_A]}, {action: Accept, from: [NS_Y]}, {action: Deny, from: [NS_Y]}]")
        + network("podSelector: {}"),
        """
        no * -> x
        yes y/b y/c -> x
        """,
    ),
    "a Baseline priority is none of Admin's": Row(
        cluster_wide("ingress: [{action: Accept, from: [NS_Y]}]", priority=900)
        + cluster_wide(DENY_PODS, tier="Baseline", priority=0),
        """
        no pods -> x
        yes y -> x
        """,
    ),
}

SUBJECTS = {
    "about all namespaces": Row(
        cluster_wide("ingress: [{action: Deny, from: [NS_Z]}]", subject="{namespaces: {}}"), "no z -> pods"
    ),
    "about pods of some namespaces": Row(
        cluster_wide(
            DENY_PODS,
            subject="{pods: {namespaceSelector: {matchExpressions: [{key: ns, operator: In, values: [x, y]}]},"
            " podSelector: {matchLabels: {pod: b}}}}",
        ),
        "no pods -> x/b y/b",
    ),
    "about pods of all namespaces, out": Row(
        cluster_wide(
            "egress: [{action: Deny, to: [NS_Y]}]", subject="{pods: {podSelector: {matchLabels: {pod: c}}}}"
        ),
        "no x/c y/c z/c -> y",
    ),
}  # fmt: skip

PEERS = {
    "out to pods by labels": Row(cluster_wide("egress: [{action: Deny, to: [POD_Y_A]}]"), "no x -> y/a"),
    "out to all pods": Row(cluster_wide("egress: [{action: Deny, to: [ALL_PODS]}]"), "no x -> pods"),
    "out to all nodes": Row(cluster_wide("egress: [{action: Deny, to: [{nodes: {}}]}]"), "no x -> nodes"),
    "out to nodes by a label": Row(
        cluster_wide("egress: [{action: Deny, to: [{nodes: {matchLabels: {zone: east}}}]}]"), "no x -> n1"
    ),
    "out to a port of nodes, and no other": Row(
        cluster_wide(
            "egress: [{action: Accept, to: [{nodes: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]},"
            " {action: Deny, to: [{nodes: {}}]}]"
        ),
        """
        no x -> nodes
        yes x -> nodes on TCP 80
        """,
    ),
    "out to networks of both families": Row(
        cluster_wide("egress: [{action: Deny, to: [{networks: [192.0.2.0/24, '2001:db8:2::/48']}]}]"),
        """
        no x -> far on v4
        no x -> near on v6
        """,
    ),
    "networks are pods and nodes too": Row(
        cluster_wide(
            "egress: [{action: Accept, to: [NS_Z]}, {action: Deny, to: [{networks: [0.0.0.0/0, '::/0']}]}]"
        ),
        """
        no x -> *
        yes x -> z
        """,
    ),
    "out of two sides": Row(
        cluster_wide("egress: [{action: Deny, to: [NS_Y]}]") + cluster_wide(
            "ingress: [{action: Deny, from: [NS_X]}]", subject="{namespaces: {matchLabels: {ns: z}}}"
        ),
        "no x -> y z",
    ),
    "several peers are either": Row(
        cluster_wide("ingress: [{action: Deny, from: [POD_Y_A, NS_Z]}]"), "no y/a z -> x"
    ),
}  # fmt: skip


def _denies(protocols: str) -> str:
    return cluster_wide(f"ingress: [{{action: Deny, from: [ALL_PODS], protocols: [{protocols}]}}]")


PROTOCOLS = {
    "no protocols are all": Row(cluster_wide(DENY_PODS), "no pods -> x", ports=("SCTP 80",)),
    "a port of TCP": Row(_denies("{tcp: {destinationPort: {number: 80}}}"), "no pods -> x on TCP 80"),
    "all of UDP": Row(_denies("{udp: {}}"), "no pods -> x on UDP"),
    "a range of UDP": Row(
        _denies("{udp: {destinationPort: {range: {start: 81, end: 90}}}}"),
        "no pods -> x on UDP 81, UDP 90",
        ports=("UDP 90", "UDP 91"),
    ),
    "a port of SCTP": Row(
        _denies("{sctp: {destinationPort: {number: 81}}}"), "no pods -> x on SCTP 81", ports=("SCTP 80", "SCTP 81")
    ),
    "several protocols are either": Row(
        _denies("{tcp: {destinationPort: {number: 81}}}, {udp: {destinationPort: {number: 80}}}"),
        "no pods -> x on TCP 81, UDP 80",
    ),
    "a named port is what each pod calls so": Row(
        _denies("{destinationNamedPort: web}, {destinationNamedPort: telephone}"),
        """
        no pods -> x/a on TCP 80, SCTP 80
        no pods -> x/b on TCP 81
        """,
        ports=("SCTP 80",),
    ),
    "a named port, out": Row(
        cluster_wide("egress: [{action: Deny, to: [ALL_PODS], protocols: [{destinationNamedPort: dns}]}]"),
        """
        no x -> x/a y/a z/a on UDP 80
        no x -> x/b y/b z/b on UDP 81
        """,
    ),
}

ROWS = TIERS | ORDER | SUBJECTS | PEERS | PROTOCOLS
