"""One object that can't be used, or one node that doesn't answer, never holds up the others."""

import json

from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import wait
from tests.cluster.kubectl import Kubectl
from tests.controller.acting import API, Operators, active, blocks, node, pool, publish


def block_of(cluster: Kubectl, name: str) -> str:
    (block,) = blocks(cluster, node=name)
    return str(block["metadata"]["name"])


def leak(cluster: Kubectl, name: str) -> str:
    """Have a node publish an address of a pod that there isn't; return the address."""
    (block,) = blocks(cluster, node=name)
    one = block["spec"]["cidr"].partition("/")[0]
    held = {"address": one, "sequence": 1, "namespace": "default", "pod": f"gone-{name}", "uid": "none"}
    publish(cluster, block["metadata"]["name"], epoch=name, sequence=1, free=63, allocations=[held])
    return str(one)


def asked(cluster: Kubectl, name: str) -> list[str]:
    return [release["address"] for block in blocks(cluster, node=name) for release in block["spec"].get("releases", ())]


def test_objects_that_can_t_be_used_and_a_node_that_frees_nothing(
    cluster: Kubectl, operators: Operators, control_plane: ControlPlane
) -> None:
    process = operators("--leak-grace", "0.5")
    spec = {"cidr": "10.1.0.0/99", "pool": {"name": "pool", "uid": "u"}, "affinity": {"node": "a", "uid": "u"}}
    cluster.apply({"apiVersion": API, "kind": "IPAMBlock", "metadata": {"name": "broken"}, "spec": spec})
    cluster.apply(pool(), node("b"), node("c"))
    wait("blocks", lambda: len(active(cluster, "b")) == len(active(cluster, "c")) == 1)
    silent, other = leak(cluster, "b"), leak(cluster, "c")
    wait("both are asked", lambda: (asked(cluster, "b"), asked(cluster, "c")) == ([silent], [other]))
    publish(cluster, block_of(cluster, "c"), sequence=2, allocations=[], free=64)
    wait("the one that freed is asked no more", lambda: asked(cluster, "c") == [])
    assert asked(cluster, "b") == [silent]
    publish(cluster, block_of(cluster, "c"), allocations=[{"address": "nonsense", "sequence": 3}])
    cluster.apply(node("d"))
    wait("a block of a node that came after", lambda: len(active(cluster, "d")) == 1)
    later = leak(cluster, "d")
    wait("its leak is found", lambda: asked(cluster, "d") == [later])
    assert process.poll() is None
    log = control_plane.log("operator").read_text()
    assert "IPAMBlock broken: spec: not a CIDR: '10.1.0.0/99'; it is left out" in log
    assert "Traceback" not in log


def test_of_an_exhausted_pool_others_give_when_the_richest_node_is_silent(cluster: Kubectl, operators: Operators) -> None:
    operators()
    cluster.apply(pool(cidr="10.1.0.0/28", blockSize=30), *(node(name) for name in "abc"))
    wait("each has a block", lambda: all(len(active(cluster, name)) == 1 for name in "abc"))
    publish(cluster, block_of(cluster, "b"), free=0)
    wait("one has the last, too", lambda: len(active(cluster, "b")) == 2)
    for block in blocks(cluster):
        name = block["spec"]["affinity"]["node"]
        used, first = {"a": 4, "b": 0, "c": 3}[name], block["spec"]["cidr"].removesuffix("/30").rpartition(".")
        held = [{"address": f"{first[0]}.{int(first[2]) + number}", "sequence": number + 1} for number in range(used)]
        publish(cluster, block["metadata"]["name"], epoch=name, sequence=used, free=4 - used, allocations=held)
    short = json.dumps({"status": {"short": ["pool"]}})
    cluster.run("patch", "nodenetwork", "a", "--subresource=status", "--type=merge", "-p", short)
    wait("the richest is asked", lambda: any("cede" in block["spec"] for block in blocks(cluster, node="b")))
    wait("so is another", lambda: "cede" in blocks(cluster, node="c")[0]["spec"])
    (gives,) = blocks(cluster, node="c")
    publish(cluster, gives["metadata"]["name"], ceded=gives["spec"]["cede"], free=0)
    wait("the node that waits has it", lambda: gives["spec"]["cede"] in active(cluster, "a"))
