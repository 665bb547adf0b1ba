"""What policies need to know of a pod, read from what the API server holds."""

import msgspec
import pytest

from tests.policy.oracle import Object
from tortie.api.policy_input import Pod
from tortie.policy.compiler import Compiler, PodFacts
from tortie.policy.facts import pod_facts

PLAIN = PodFacts("a", "p", "u", "n1", ())
ROWS: dict[str, tuple[Object, Object, PodFacts]] = {
    "labels, in order": ({"labels": {"b": "2", "a": "1"}}, {}, PLAIN._replace(labels=(("a", "1"), ("b", "2")))),
    "a static pod": ({"annotations": {"kubernetes.io/config.hash": "h"}}, {}, PLAIN._replace(uid="h")),
    "a pod that says it is another one": (
        {"annotations": {"kubernetes.io/config.hash": "0d51ce2d-d2c4-4b1c-9e6f-d0f8a0c2d4f7"}}, {}, PLAIN),
    "on the host's network": ({}, {"hostNetwork": True}, PLAIN._replace(host_network=True)),
    "ports without a name are no named ports": ({}, {"containers": [{"ports": [{"containerPort": 80}]}]}, PLAIN),
    "a port's protocol is TCP where it says none": (
        {},
        {
            "containers": [
                {"ports": [{"name": "http", "containerPort": 80}]},
                {"ports": [{"name": "d", "containerPort": 53, "protocol": "UDP"}]},
            ]
        },
        PLAIN._replace(ports=(("d", "UDP", 53), ("http", "TCP", 80))),
    ),
    "sidecars have ports, other init containers are over": (
        {},
        {
            "initContainers": [
                {"restartPolicy": "Always", "ports": [{"name": "mesh", "containerPort": 15001}]},
                {"ports": [{"name": "once", "containerPort": 1}]},
            ]
        },
        PLAIN._replace(ports=(("mesh", "TCP", 15001),)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_pod_facts(row: str) -> None:
    metadata, spec, expected = ROWS[row]
    seen = {"metadata": {"namespace": "a", "name": "p", "uid": "u", **metadata}, "spec": {"nodeName": "n1", **spec}}
    assert pod_facts(msgspec.convert(seen, Pod)) == expected


@pytest.mark.parametrize(
    ("phase", "ended"), [("Pending", False), ("Running", False), ("Succeeded", True), ("Failed", True), ("Unknown", False)]
)
def test_a_pod_has_ended(phase: str, ended: bool) -> None:
    seen = {"metadata": {"name": "p"}, "status": {"phase": phase}}
    assert pod_facts(msgspec.convert(seen, Pod)).ended == ended


def test_a_node_knows_a_static_pod_as_its_runtime_does() -> None:
    compiler = Compiler()
    compiler.put_namespace(PLAIN.namespace, {})
    compiler.put_pod(PLAIN._replace(uid="h"))
    policy = compiler.take().node_policies["n1"]
    assert policy is not None
    assert [one.uid for one in policy.groups[0].endpoints] == ["h"]
