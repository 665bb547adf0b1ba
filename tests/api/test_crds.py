"""The generated files are current, and the API server refuses what it should, in a sentence that names field and rule."""

from pathlib import Path
from typing import Any

import pytest

from tests.cluster.kubectl import Kubectl, Refused
from tortie.api import compiled, kinds, lean
from tortie.api.block import IPAMBlock, NodeNetwork
from tortie.api.crd import custom_resource_definition
from tortie.api.policy import AddressSet, NodePolicy, RuleSet

ROOT = Path(__file__).parents[2]


def pool(name: str = "pool", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "tortie.dev/v1alpha1", "kind": "IPPool", "metadata": {"name": name}, "spec": spec}


def test_generated_files_are_current() -> None:
    on_disk = {f.name: f.read_text() for f in (ROOT / "crds").glob("*.yaml")}
    assert on_disk == kinds.files(), "run `make generate`"
    assert (ROOT / "helm/tortie/templates/crds.yaml").read_text() == kinds.template(), "run `make generate`"


def test_every_field_has_a_description() -> None:
    def missing(schema: dict[str, Any], path: str) -> list[str]:
        found = [] if schema.get("description") else [path]
        for name, child in schema.get("properties", {}).items():
            found += missing(child, f"{path}.{name}")
        for child in [schema["items"]] if "properties" in schema.get("items", {}) else []:
            found += [f for f in missing(child, f"{path}[]") if f != f"{path}[]"]
        return found

    for kind in kinds.KINDS:
        schema = custom_resource_definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        undescribed = [f for f in missing(schema, kind.__name__) if not f.endswith(".metadata")]
        assert undescribed == []


LEAN = [
    (lean.Block, IPAMBlock),
    (lean.Network, NodeNetwork),
    (compiled.NodePolicy, NodePolicy),
    (compiled.RuleSet, RuleSet),
    (compiled.AddressSet, AddressSet),
]


@pytest.mark.parametrize(("struct", "model"), LEAN)
def test_lean_structs_are_views_of_the_models(struct: type[lean.Lean], model: Any) -> None:
    schema = custom_resource_definition(model)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

    def check(lean_type: Any, node: dict[str, Any]) -> None:
        for name, encoded in zip(lean_type.__struct_fields__, lean_type.__struct_encode_fields__, strict=True):
            assert encoded in node["properties"], f"{lean_type.__name__}.{name} is not in the model"
            child = lean_type.__annotations__[name]
            if isinstance(child, type) and issubclass(child, lean.Lean) and not issubclass(child, lean.Metadata):
                check(child, node["properties"][encoded])

    check(struct, schema)


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "not a CIDR": ({"cidr": "ten"}, "spec.cidr", "must be a CIDR"),
    "an address without a prefix": ({"cidr": "10.1.0.0"}, "spec.cidr", "must be a CIDR"),
    "host bits": ({"cidr": "10.1.0.7/16"}, "spec.cidr", "host bits"),
    "IPv6 host bits": ({"cidr": "fd00::7/64"}, "spec.cidr", "host bits"),
    "smaller than the default block": ({"cidr": "10.1.0.0/27"}, "spec.cidr", "smaller than a block"),
    "smaller than its block": ({"cidr": "10.1.0.0/24", "blockSize": 22}, "spec.cidr", "smaller than a block"),
    "IPv6 smaller than the default block": ({"cidr": "fd00::/123"}, "spec.cidr", "smaller than a block"),
    "block too large": ({"cidr": "10.0.0.0/8", "blockSize": 19}, "spec.blockSize", "from 20 to 32"),
    "block too small": ({"cidr": "10.0.0.0/8", "blockSize": 33}, "spec.blockSize", "from 20 to 32"),
    "IPv6 block size in IPv4": ({"cidr": "10.0.0.0/8", "blockSize": 122}, "spec.blockSize", "from 20 to 32"),
    "IPv6 block too large": ({"cidr": "fd00::/48", "blockSize": 115}, "spec.blockSize", "from 116 to 128"),
    "IPv4 block size in IPv6": ({"cidr": "fd00::/20", "blockSize": 26}, "spec.blockSize", "from 116 to 128"),
    "IPIP and VXLAN": (
        {"cidr": "10.0.0.0/8", "ipipMode": "Always", "vxlanMode": "CrossSubnet"},
        "spec.ipipMode",
        "Never",
    ),
    "IPIP on IPv6": ({"cidr": "fd00::/48", "ipipMode": "Always"}, "spec.ipipMode", "IPv4 only"),
    "loopback": ({"cidr": "127.0.0.0/8"}, "spec.cidr", "loopback"),
    "within loopback": ({"cidr": "127.1.0.0/16"}, "spec.cidr", "loopback"),
    "holds loopback": ({"cidr": "0.0.0.0/0"}, "spec.cidr", "loopback"),
    "IPv6 holds loopback": ({"cidr": "::/64"}, "spec.cidr", "loopback"),
    "link-local": ({"cidr": "169.254.1.0/24"}, "spec.cidr", "link-local"),
    "IPv6 link-local": ({"cidr": "fe80::/64"}, "spec.cidr", "link-local"),
    "multicast": ({"cidr": "224.0.0.0/8"}, "spec.cidr", "multicast"),
    "IPv6 multicast": ({"cidr": "ff02::/64"}, "spec.cidr", "multicast"),
    "half a selector": ({"cidr": "10.0.0.0/8", "nodeSelector": "rack =="}, "spec.nodeSelector", "selector"),
    "an open bracket": ({"cidr": "10.0.0.0/8", "nodeSelector": "(has(a)"}, "spec.nodeSelector", "selector"),
    "an open quote": ({"cidr": "10.0.0.0/8", "nodeSelector": "a == 'b"}, "spec.nodeSelector", "selector"),
    "a foreign operator": (
        {"cidr": "10.0.0.0/8", "namespaceSelector": "a = 'b'"},
        "spec.namespaceSelector",
        "selector",
    ),
    "Tunnel of a namespace": (
        {"cidr": "10.0.0.0/8", "namespaceSelector": "has(a)", "allowedUses": ["Tunnel"]},
        "spec.allowedUses",
        "namespaceSelector",
    ),
    "an unknown mode": ({"cidr": "10.0.0.0/8", "vxlanMode": "Sometimes"}, "spec.vxlanMode", "supported values"),
    "an unknown use": ({"cidr": "10.0.0.0/8", "allowedUses": ["Fun"]}, "spec.allowedUses", "supported values"),
    "an unknown assignment": (
        {"cidr": "10.0.0.0/8", "assignmentMode": "Auto"},
        "spec.assignmentMode",
        "supported values",
    ),
    "an unknown field": ({"cidr": "10.0.0.0/8", "color": "red"}, "spec.color", "unknown field"),
}


SHOWN = {
    "not a CIDR": "ten",
    "host bits": "10.1.0.7/16",
    "smaller than its block": "10.1.0.0/24",
    "loopback": "127.0.0.0/8",
    "half a selector": "rack ==",
}


@pytest.mark.parametrize("row", REFUSED)
def test_refused(cluster: Kubectl, row: str) -> None:
    spec, field, words = REFUSED[row]
    with pytest.raises(Refused) as refusal:
        cluster.apply(pool(**spec))
    assert field in str(refusal.value)
    assert words in str(refusal.value)
    if row in SHOWN:
        assert f"; it is {SHOWN[row]}" in str(refusal.value)


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "cidr": ({"cidr": "10.2.0.0/16"}, "spec.cidr"),
    "blockSize": ({"cidr": "10.1.0.0/16", "blockSize": 27}, "spec.blockSize"),
}


@pytest.mark.parametrize("row", CHANGES)
def test_can_not_be_changed(cluster: Kubectl, row: str) -> None:
    spec, field = CHANGES[row]
    cluster.apply(pool(cidr="10.1.0.0/16"))
    with pytest.raises(Refused, match="can't be changed") as refusal:
        cluster.apply(pool(**spec))
    assert field in str(refusal.value)


def test_naming_the_default_block_size_changes_nothing(cluster: Kubectl) -> None:
    cluster.apply(pool(cidr="10.1.0.0/16"))
    cluster.apply(pool(cidr="10.1.0.0/16", blockSize=26))


ACCEPTED: dict[str, dict[str, Any]] = {
    "Calico's default pool": {
        "cidr": "192.168.0.0/16", "ipipMode": "Always", "vxlanMode": "Never", "natOutgoing": True, "blockSize": 26,
        "nodeSelector": "all()", "allowedUses": ["Workload", "Tunnel"], "disableBGPExport": False, "disabled": False,
        "assignmentMode": "Automatic",
    },
    "one block of one address": {"cidr": "10.0.0.1/32", "blockSize": 32},
    "IPv6 of the default size": {"cidr": "fd00:10::/64"},
    "a long selector": {"cidr": "10.0.0.0/8", "nodeSelector": "(a in {'x', \"y\"} && !has(b/c.d)) || !(z starts with 'q')"},
}  # fmt: skip


@pytest.mark.parametrize("row", ACCEPTED)
def test_accepted(cluster: Kubectl, row: str) -> None:
    cluster.apply(pool(**ACCEPTED[row]))


def test_the_configuration_has_one_name(cluster: Kubectl) -> None:
    body = {"apiVersion": "tortie.dev/v1alpha1", "kind": "IPAMConfiguration", "spec": {"maxBlocksPerHost": 4}}
    cluster.apply({**body, "metadata": {"name": "default"}})
    with pytest.raises(Refused, match="must be named default"):
        cluster.apply({**body, "metadata": {"name": "other"}})
