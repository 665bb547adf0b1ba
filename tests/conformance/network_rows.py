"""NetworkPolicy, feature by feature."""

from tests.conformance.rows import Row, network

DENY_IN, DENY_OUT, DENY = (
    "podSelector: {}",
    "podSelector: {}, policyTypes: [Egress]",
    "podSelector: {}, policyTypes: [Ingress, Egress]",
)


def ingress(rule: str, namespace: str = "x", subject: str = "{}") -> str:
    """A NetworkPolicy of one rule of ingress."""
    return network(f"podSelector: {subject}, ingress: [{{{rule}}}]", namespace)


def egress(rule: str, namespace: str = "x", subject: str = "{}") -> str:
    """A NetworkPolicy of one rule of egress."""
    return network(f"podSelector: {subject}, policyTypes: [Egress], egress: [{{{rule}}}]", namespace)


DIRECTIONS = {
    "without policies everybody reaches everybody": Row("", ""),
    "default deny of ingress; x gets answers": Row(network(DENY_IN), "no * -> x"),
    "default deny of egress; x still answers": Row(network(DENY_OUT), "no x -> *"),
    "default deny of both": Row(
        network(DENY),
        """
        no * -> x
        no x -> *
        """,
    ),
    "an empty rule of ingress is everybody": Row(network(DENY_IN) + ingress(""), ""),
    "an empty rule of egress is everybody": Row(network(DENY_OUT) + egress(""), ""),
    "policyTypes without Ingress leave ingress alone": Row(
        network("podSelector: {}, policyTypes: [Egress], ingress: [{from: [OF_Y]}]"), "no x -> *"
    ),
    "rules of egress make it a policy of egress too": Row(
        network("podSelector: {}, egress: [{to: [OF_Y]}]"),
        """
        no * -> x
        no x -> *
        yes x -> y
        """,
    ),
    "one pod is isolated, by its label": Row(network("podSelector: {matchLabels: {pod: a}}"), "no * -> x/a"),
    "pods are isolated by an expression": Row(
        network("podSelector: {matchExpressions: [{key: pod, operator: NotIn, values: [a]}]}"), "no * -> x/b x/c"
    ),
    "a selector of no pod isolates nobody": Row(network("podSelector: {matchLabels: {pod: nobody}}"), ""),
    "both ends must agree": Row(
        ingress("from: [OF_Y]") + egress("to: [OF_Z]", "y"),
        """
        no * -> x
        no y -> *
        yes y -> z
        """,
    ),
    "policies of a namespace add up": Row(
        ingress("from: [OF_Y], ports: [{port: 80}]") + ingress("from: [OF_Z], ports: [{port: 81}]"),
        """
        no * -> x
        yes y -> x on TCP 80
        yes z -> x on TCP 81
        """,
    ),
    "policies for some pods and for all add up": Row(
        network(DENY_IN) + ingress("from: [SAME]", subject="{matchLabels: {pod: b}}"),
        """
        no * -> x
        yes x -> x/b
        """,
    ),
}

PEERS = {
    "pods of the namespace": Row(
        ingress("from: [SAME]"),
        """
        no * -> x
        yes x -> x
        """,
    ),
    "pods of the namespace by a label": Row(
        ingress("from: [A_HERE]"),
        """
        no * -> x
        yes x/a -> x
        """,
    ),
    "all pods, and nobody who is none": Row(ingress("from: [ANY_POD]"), "no nodes outside -> x"),
    "all pods of a namespace by its label": Row(
        ingress("from: [OF_Y]"),
        """
        no * -> x
        yes y -> x
        """,
    ),
    "namespaces by the name that every one is labelled with": Row(
        ingress(
            "from: [{namespaceSelector: {matchExpressions:"
            " [{key: kubernetes.io/metadata.name, operator: In, values: [z-1, z-2, z-3, z-4, z-5, z-6]}]}}]"
        ),
        """
        no * -> x
        yes z -> x
        """,
    ),
    "namespaces by NotIn, pods by Exists": Row(
        ingress(
            "from: [{namespaceSelector: {matchExpressions: [{key: ns, operator: NotIn, values: [x, z]}]},"
            " podSelector: {matchExpressions: [{key: pod, operator: Exists}]}}]"
        ),
        """
        no * -> x
        yes y -> x
        """,
    ),
    "pods by In, and by a label that they lack": Row(
        ingress(
            "from: [{podSelector: {matchExpressions:"
            " [{key: pod, operator: In, values: [b, c]}, {key: new, operator: DoesNotExist}]}}]"
        ),
        """
        no * -> x
        yes x/b x/c -> x
        """,
    ),
    "pods of all namespaces by a label": Row(
        ingress("from: [A_ANYWHERE]"),
        """
        no * -> x
        yes x/a y/a z/a -> x
        """,
    ),
    "namespace and pod in one peer are both": Row(
        ingress("from: [A_OF_Y]"),
        """
        no * -> x
        yes y/a -> x
        """,
    ),
    "namespace and pod in two peers are either": Row(
        ingress("from: [OF_Y, A_HERE]"),
        """
        no * -> x
        yes y x/a -> x
        """,
    ),
    "out to pods of the namespace": Row(
        egress("to: [SAME]"),
        """
        no x -> *
        yes x -> x
        """,
    ),
    "out to one pod of another namespace, from one pod": Row(
        egress("to: [A_OF_Y]", subject="{matchLabels: {pod: b}}"),
        """
        no x/b -> *
        yes x/b -> y/a
        """,
    ),
    "out to all pods, and to nobody who is none": Row(egress("to: [ANY_POD]"), "no x -> nodes outside"),
    "a peer that is nobody": Row(ingress("from: [{podSelector: {matchLabels: {pod: nobody}}}]"), "no * -> x"),
}  # fmt: skip

BLOCKS = {
    "a pod by its IPv4 address": Row(
        ingress("from: [{ipBlock: {cidr: <y/a>/32}}]"),
        """
        no * -> x
        yes y/a -> x on v4
        """,
    ),
    "a pod by its IPv6 address": Row(
        ingress("from: [{ipBlock: {cidr: '<y/b 6>/128'}}]"),
        """
        no * -> x
        yes y/b -> x on v6
        """,
    ),
    "hosts outside, by both families": Row(
        ingress("from: [{ipBlock: {cidr: 192.0.2.0/24}}, {ipBlock: {cidr: '2001:db8:1::/48'}}]"),
        """
        no * -> x
        yes far -> x
        """,
    ),
    "everybody but a pod, a node and a host": Row(
        ingress("from: [{ipBlock: {cidr: 0.0.0.0/0, except: [<y/a>/32, <n2>/32, 192.0.2.0/24]}}]"),
        """
        no * -> x
        yes * -> x on v4
        no y/a n2 far -> x
        """,
    ),
    "everybody of IPv6 but a pod and a host": Row(
        ingress("from: [{ipBlock: {cidr: '::/0', except: ['<z/a 6>/128', '<z/b 6>/128', '2001:db8:2::/48']}}]"),
        """
        no * -> x
        yes * -> x on v6
        no z/a z/b near -> x
        """,
    ),
    "what one block excepts another peer may have": Row(
        ingress("from: [{ipBlock: {cidr: 0.0.0.0/0, except: [<y/a>/32, <y/b>/32]}}, A_OF_Y]"),
        """
        no * -> x
        yes * -> x on v4
        no y/b -> x
        yes y/a -> x
        """,
    ),
    "out to a host": Row(
        egress("to: [{ipBlock: {cidr: 198.51.100.0/24}}]"),
        """
        no x -> *
        yes x -> near on v4
        """,
    ),
    "out to everybody but a pod and a node": Row(
        egress(
            "to: [{ipBlock: {cidr: 0.0.0.0/0, except: [<y/c>/32, <n1>/32]}},"
            " {ipBlock: {cidr: '::/0', except: ['<y/c 6>/128', '<n1 6>/128']}}]"
        ),
        "no x -> y/c n1",
    ),
    "out to a node, and to a port of another": Row(
        egress("to: [{ipBlock: {cidr: <n1>/32}}]") + egress("to: [{ipBlock: {cidr: '<n2 6>/128'}}], ports: [{port: 80}]"),
        """
        no x -> *
        yes x -> n1 on v4
        yes x -> n2 on TCP 80 v6
        """,
    ),
}

PORTS = {
    "a port by its number is of TCP": Row(
        ingress("ports: [{port: 80}]"),
        """
        no * -> x
        yes * -> x on TCP 80
        """,
    ),
    "a port of UDP": Row(
        ingress("ports: [{port: 81, protocol: UDP}]"),
        """
        no * -> x
        yes * -> x on UDP 81
        """,
    ),
    "ports of both protocols": Row(
        ingress("ports: [{port: 80}, {port: 81, protocol: UDP}]"),
        """
        no * -> x
        yes * -> x on TCP 80, UDP 81
        """,
    ),
    "all ports of a protocol": Row(
        ingress("ports: [{protocol: UDP}]"),
        """
        no * -> x
        yes * -> x on UDP
        """,
    ),
    "ports of SCTP": Row(
        ingress("ports: [{port: 80, protocol: SCTP}]"),
        """
        no * -> x
        yes * -> x on SCTP 80
        """,
        ports=("SCTP 80", "SCTP 81"),
    ),
    "a rule without ports is of every protocol": Row(
        ingress("from: [OF_Y]"),
        """
        no * -> x
        yes y -> x
        """,
        ports=("SCTP 80", "TCP 1", "UDP 65535"),
    ),
    "a range": Row(
        ingress("ports: [{port: 80, endPort: 82}]"),
        """
        no * -> x
        yes * -> x on TCP
        no * -> x on TCP 79, TCP 83
        """,
        ports=("TCP 79", "TCP 82", "TCP 83"),
    ),
    "a range of UDP, out": Row(
        egress("to: [OF_Y], ports: [{port: 81, endPort: 1000, protocol: UDP}]"),
        """
        no x -> *
        yes x -> y on UDP
        no x -> y on UDP 80, UDP 1001
        """,
        ports=("UDP 1000", "UDP 1001"),
    ),
    "a named port is what each pod calls so": Row(
        ingress("ports: [{port: web}]"),
        """
        no * -> x
        yes * -> x/a on TCP 80
        yes * -> x/b on TCP 81
        """,
    ),
    "a named port of UDP, for one peer": Row(
        ingress("from: [OF_Z], ports: [{port: dns, protocol: UDP}]"),
        """
        no * -> x
        yes z -> x/a on UDP 80
        yes z -> x/b on UDP 81
        """,
    ),
    "a name that the pod has for another protocol": Row(ingress("ports: [{port: dns}]"), "no * -> x"),
    "a named port, out to pods": Row(
        egress("to: [OF_Y], ports: [{port: web}]"),
        """
        no x -> *
        yes x -> y/a on TCP 80
        yes x -> y/b on TCP 81
        """,
    ),
    "a port, out to a namespace and to a host": Row(
        egress("to: [OF_Y], ports: [{port: 80}]") + egress("to: [{ipBlock: {cidr: 192.0.2.1/32}}], ports: [{port: 81}]"),
        """
        no x -> *
        yes x -> y on TCP 80
        yes x -> far on TCP 81 v4
        """,
    ),
    "peers and ports of one rule are both, rules are either": Row(
        network("podSelector: {}, ingress: [{from: [OF_Y], ports: [{port: 80}]}, {from: [A_ANYWHERE]}, {ports: [{port: 81}]}]"),
        """
        no * -> x
        yes y -> x on TCP 80
        yes x/a y/a z/a -> x
        yes * -> x on TCP 81
        """,
    ),
    "empty lists of peers and ports are all of them": Row(ingress("from: [], ports: []"), ""),
}  # fmt: skip

ROWS = DIRECTIONS | PEERS | BLOCKS | PORTS
