"""No object passes 1 MB, whatever the input: the bounds of every schema, added up.

etcd refuses more than 1.5 MiB in one request. What a schema allows is counted as JSON in ASCII: names, addresses and
selectors are ASCII; what the API server adds (metadata, managed fields of atomic lists) stays under 4 KB.
"""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.cluster.kubectl import Kubectl
from tortie.api import kinds
from tortie.api.block import BLOCK_ADDRESSES_MAX, IPAMBlock
from tortie.api.crd import custom_resource_definition
from tortie.api.meta import NAME_MAX, Resource
from tortie.api.policy import NodePolicy, RuleSet

MAX_BYTES = 1_000_000
METADATA_BYTES = 4_096
LONGEST = {"integer": "-9223372036854775808", "boolean": "false"}
LENGTHS = {"date-time": len("2026-01-02T03:04:05.123456Z")}

Schema = Mapping[str, Any]


def schema_of(kind: type[Resource]) -> dict[str, Any]:
    properties = custom_resource_definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    return {"type": "object", "properties": {n: s for n, s in properties.items() if n in ("spec", "status")}}


def largest(schema: Schema, path: str = "") -> int:
    """Return the bytes of the largest JSON value that a schema allows; an unbounded one fails, by its path."""
    if "enum" in schema:
        return max(len(json.dumps(value)) for value in schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return int(schema["maxLength"]) + 2
    match schema["type"]:
        case "object":
            fields = schema["properties"].items()
            return 2 + sum(len(name) + 4 + largest(field, f"{path}.{name}") for name, field in fields)
        case "array":
            assert "maxItems" in schema, f"{path} has no maxItems"
            return 2 + int(schema["maxItems"]) * (1 + largest(schema["items"], f"{path}[]"))
        case "string":
            assert "maxLength" in schema or schema.get("format") in LENGTHS, f"{path} has no maxLength"
            return 2 + int(schema.get("maxLength") or LENGTHS[schema["format"]])
        case scalar:
            return len(LONGEST[scalar])


# The schema leaves these room for any one long list; that all of them together stay small is the compiler's work
# (tests/policy), as what the agent publishes of a large block is the agent's.
KEPT_SMALL = (IPAMBlock, RuleSet, NodePolicy)


@pytest.mark.parametrize("kind", [kind for kind in kinds.KINDS if kind not in KEPT_SMALL])
def test_within_1_mb(kind: type[Resource]) -> None:
    assert largest(schema_of(kind)) + METADATA_BYTES <= MAX_BYTES


@pytest.mark.parametrize(("addresses", "names"), [(64, True), (1024, True), (BLOCK_ADDRESSES_MAX, False)])
def test_a_block_is_within_1_mb(addresses: int, names: bool) -> None:
    """Of blocks that are larger, the agent publishes names as far as they fit."""
    schema = schema_of(IPAMBlock)
    allocations = schema["properties"]["status"]["properties"]["allocations"]
    assert allocations["maxItems"] == BLOCK_ADDRESSES_MAX
    allocations["maxItems"] = addresses
    if not names:
        del allocations["items"]["properties"]["namespace"], allocations["items"]["properties"]["pod"]
    assert largest(schema) + METADATA_BYTES <= MAX_BYTES


def test_the_api_server_takes_the_largest_block(cluster: Kubectl) -> None:
    address = "fd00:1111:2222:3333:4444:5555:6666:{:04x}"
    name, uid, counter = "n" * NAME_MAX, "0" * 36, 2**63 - 1
    since = "2026-01-02T03:04:05.123456Z"
    spec = {
        "cidr": "fd00:1111:2222:3333:4444:5555:6666:0000/116",
        "pool": {"name": name, "uid": uid},
        "affinity": {"node": name, "uid": uid, "machineID": "m" * 128},
        "reserved": [f"{address.format(n)}/128" for n in range(0, BLOCK_ADDRESSES_MAX, 2)],
        "releases": [
            {"address": address.format(n), "sequence": counter, "epoch": "e" * 64, "reason": "r" * 128} for n in range(256)
        ],
    }
    allocations = [
        {"address": address.format(n), "sequence": counter, "uid": uid, "since": since} for n in range(BLOCK_ADDRESSES_MAX)
    ]
    body = {"apiVersion": "tortie.dev/v1alpha1", "kind": "IPAMBlock", "metadata": {"name": "b" * NAME_MAX}, "spec": spec}
    cluster.run("create", "-f", "-", stdin=json.dumps(body))
    status = json.dumps({"status": {"epoch": uid, "allocations": allocations, "free": 0}})
    patch = cluster.kubeconfig.parent / "largest.json"
    patch.write_text(status)
    cluster.run("patch", "ipamblock", "b" * NAME_MAX, "--subresource=status", "--type=merge", f"--patch-file={patch}")
    stored = cluster.run("get", "--raw", f"/apis/tortie.dev/v1alpha1/ipamblocks/{'b' * NAME_MAX}")
    assert len(json.loads(stored)["status"]["allocations"]) == BLOCK_ADDRESSES_MAX
    assert 800_000 < len(stored) <= MAX_BYTES
