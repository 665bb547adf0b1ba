"""annotations.md: the annotations by which pods and namespaces choose addresses and nodes speak BGP, as the code reads them."""

from tests.docs.reference.markdown import GENERATED, code, table
from tortie.addressing.wants import FIXED, POOLS
from tortie.controller.translate import FINALIZER
from tortie.routing.peering import AS_NUMBER, CLUSTER_ID

_MEANINGS = {
    FIXED: (
        '`["10.1.0.7"]` or `["10.1.0.7", "fd00:10:1::7"]`',
        "These very addresses, at most one of each family. Each must lie in a block of the node that the pod runs on. The pod"
        " gets no others.",
    ),
    POOLS[4]: (
        '`["blue-ipv4"]` or `["10.2.0.0/16"]`',
        "The IPv4 address comes from one of these pools, named by name or CIDR. They must be enabled and take the namespace.",
    ),
    POOLS[6]: ('`["blue-ipv6"]`', "The same for the IPv6 address."),
}

_RULES = """
- A value is a JSON list of texts. One that isn't, or names what can't be had, fails the pod's creation; the sentence is in the
  pod's Events: see [Troubleshooting](../troubleshooting.md#annotation-refused).
- Both names of an annotation mean the same. Where both are set, Calico's is read.
- A pod's annotation comes before its namespace's: only where the pod has none is the namespace's read.
- Fixed addresses come before pools: with them, the annotations of pools aren't read.
- They are read once, when the pod's network is made. A later change does nothing to a pod that runs.
- Pools chosen for one family say nothing of the other.

How to use them, step by step: [Pools](../pools.md#choose-by-annotation).

## On a Node

Read where nodes speak [BGP](../bgp.md), and again whenever they change:

"""

_OF_NODES = {
    AS_NUMBER: ("`64513`, `1.10`", "The node's AS number; it comes before those of BGPConfigurations."),
    CLUSTER_ID: ("`244.0.0.1`", "The node is a route reflector, of this cluster of reflectors (RFC 4456): an IPv4 address."),
}

_WRITES = f"""
## What Tortie writes

No annotation and no label, on nobody's object. IPPools carry the finalizer `{FINALIZER}`, so that a pool is there until its
last block is gone. Pods, Nodes and Namespaces are only read, but for one condition: each agent sets `NetworkUnavailable=False`
on its own Node.
"""


def page() -> str:
    """Return the page."""
    rows = [(f"{code(calico)}<br>{code(own)}", *meaning) for (calico, own), meaning in _MEANINGS.items()]
    head = "# Annotations\n\nOn a pod, or on a namespace for all its pods:\n\n"
    columns, nodes = ("Annotation", "Example", "Meaning"), [(code(name), *meaning) for name, meaning in _OF_NODES.items()]
    return GENERATED + head + table(columns, rows) + _RULES + table(columns, nodes) + _WRITES
