"""Through services: what is asked for is an address of a service or a node, and what counts is the pod behind it.

A node that leads to a pod of another node does so in its own name, as kube-proxy has it: there the client is that node.
The pods `x/a` and `x/b`, of the nodes n1 and n2, have services.
"""

from tests.conformance.network_rows import egress, ingress
from tests.conformance.rows import Row, network

ROWS = {
    "without policies": Row(
        "",
        """
        yes pods nodes -> x/a x/b via service
        yes * -> x/a x/b via n1
        yes * -> x/a x/b via n2
        """,
    ),
    "x is isolated; a pod reaches itself through its service, and its node reaches it": Row(
        network("podSelector: {}, policyTypes: [Ingress, Egress]"),
        """
        no  * -> x
        no  x -> *
        no  pods nodes -> x/a x/b via service
        yes x/a n1 -> x/a via service
        yes x/b n2 -> x/b via service
        no  pods outside -> x/a via n1
        no  * -> x/a via n2
        no  * -> x/b via n1
        no  pods outside -> x/b via n2
        yes x/a n1 -> x/a via n1
        yes x/b n2 -> x/b via n2
        """,
    ),
    "in from pods of a namespace": Row(
        ingress("from: [OF_Y]"),
        """
        no  * -> x
        yes y -> x
        no  x/c z n2 -> x/a via service
        yes y x/a n1 -> x/a via service
        no  z outside -> x/a via n1
        yes y n1 -> x/a via n1
        no  * -> x/a via n2
        """,
    ),
    "in to the pod's port, which isn't the service's": Row(
        ingress("ports: [{port: 80}]"),
        """
        no  * -> x
        yes * -> x on TCP 80
        no  pods nodes -> x/a x/b via service
        yes pods nodes -> x/a x/b via service on TCP
        yes x/a n1 -> x/a via service
        yes x/b n2 -> x/b via service
        """,
    ),
    "in to the service's port, which isn't the pod's": Row(
        ingress("ports: [{port: 8080}]"),
        """
        no  * -> x
        no  y z -> x/a x/b via service
        """,
    ),
    "in to the pod's port by its name": Row(
        ingress("from: [OF_Y], ports: [{port: web}]"),
        """
        no  * -> x
        yes y -> x/a on TCP 80
        yes y -> x/b on TCP 81
        yes y -> x/a via service on TCP
        no  y -> x/a via service on UDP
        no  y z -> x/b via service
        """,
    ),
    "in from a host, through a port of the pod's node": Row(
        ingress("from: [{ipBlock: {cidr: 192.0.2.1/32}}, {ipBlock: {cidr: '2001:db8:1::1/128'}}]"),
        """
        no  * -> x
        yes far -> x
        yes far -> x/a via n1
        no  near -> x/a via n1
        no  outside -> x/a via n2
        """,
    ),
    "in from a node, which stands for who comes through it": Row(
        ingress("from: [{ipBlock: {cidr: <n2>/32}}, {ipBlock: {cidr: '<n2 6>/128'}}]"),
        """
        no  * -> x
        yes n2 -> x
        no  outside -> x/a via n1
        yes outside -> x/a via n2
        """,
    ),
    "out to the pods behind a service": Row(
        egress("to: [{namespaceSelector: {matchLabels: {ns: x}}, podSelector: {matchLabels: {pod: a}}}]", "y"),
        """
        no  y -> *
        yes y -> x/a
        yes y -> x/a via service
        no  y -> x/b via service
        """,
    ),
    "out to the pod's port, which isn't the service's": Row(
        egress("ports: [{port: 80}]", "y"),
        """
        no  y -> *
        yes y -> * on TCP 80
        yes y -> x/a x/b via service on TCP
        no  y -> x/a x/b via service on UDP
        """,
    ),
    "out to nobody": Row(
        network("podSelector: {}, policyTypes: [Egress]", "y"),
        """
        no  y -> *
        no  y -> x/a x/b via service
        no  y -> x/a x/b via n1
        no  y -> x/a x/b via n2
        yes x z -> x/a via service
        """,
    ),
}
