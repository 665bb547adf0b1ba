"""`tortiectl policy` against a real API server: with Tortie and ClusterNetworkPolicies served, and without."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from click.testing import CliRunner, Result

from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import install, is_established, wait
from tests.cluster.kubectl import Kubectl
from tests.controller.acting import API, publish
from tests.docs.pages import DOCS, fences
from tortie.api.policy_input import NetworkPolicy, Pod
from tortie.cli.ctl.main import main
from tortie.cli.ctl.policy_objects import put
from tortie.policy.world import Objects, World

SAMPLE = DOCS / "samples" / "policies"
# As far as it matters here; the real one comes from network-policy-api.
SCHEMA = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
CRD: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "clusternetworkpolicies.policy.networking.k8s.io",
        "annotations": {"api-approved.kubernetes.io": "unapproved, a test's"},
    },
    "spec": {
        "group": "policy.networking.k8s.io",
        "names": {"kind": "ClusterNetworkPolicy", "plural": "clusternetworkpolicies", "singular": "clusternetworkpolicy"},
        "scope": "Cluster",
        "versions": [{"name": "v1alpha2", "served": True, "storage": True, "schema": SCHEMA}],
    },
}


@pytest.fixture(scope="module")
def bare() -> Iterator[ControlPlane]:
    """A cluster with the sample's pods, which have addresses by their status, and nothing of Tortie."""
    with ControlPlane() as plane:
        kubectl = Kubectl(plane.kubeconfig)
        kubectl.apply((SAMPLE / "pods.yaml").read_text())
        for number, pod in enumerate(kubectl.get("pods", "-A")["items"], 1):
            ips = json.dumps({"status": {"podIPs": [{"ip": f"10.0.0.{number}"}], "podIP": f"10.0.0.{number}"}})
            meta = pod["metadata"]
            kubectl.run(
                "patch", "pod", meta["name"], "-n", meta["namespace"], "--subresource=status", "--type=merge", "-p", ips
            )
        yield plane


def asked(plane: ControlPlane, *words: str) -> Result:
    result = CliRunner().invoke(main, ["--kubeconfig", str(plane.kubeconfig), "policy", *words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def shut(plane: ControlPlane) -> set[tuple[str, str]]:
    rows = json.loads(asked(plane, "matrix", "--port", "5432", "-o", "json").stdout)
    assert len(rows) == 16
    return {(row["from"], row["to"]) for row in rows if not row["allowed"]}


def sample(name: str) -> str:
    """One of the sample's policies."""
    policies = yaml.safe_load_all((SAMPLE / "policies.yaml").read_text())
    return next(yaml.safe_dump(one) for one in policies if one["metadata"]["name"] == name)


def test_what_a_change_does_is_what_is_said_before(bare: ControlPlane) -> None:
    kubectl = Kubectl(bare.kubeconfig)
    assert shut(bare) == set()
    result = asked(bare, "diff", "-f", str(SAMPLE / "policies.yaml"))
    (said,) = (block for block in fences((DOCS / "policy.md").read_text(), "text"))
    assert (result.stdout, result.exit_code) == (said, 0), "docs/policy.md shows it"

    changes = json.loads(asked(bare, "diff", "-f", str(SAMPLE / "policies.yaml"), "-o", "json").stdout)
    closes = {
        (source, target)
        for change in changes
        if change["change"] == "closes" and "TCP" in change["ports"]
        for source in change["from"]
        for target in change["to"]
    }
    assert closes == {("shop/cart-0", "db/pg-0"), ("0.0.0.0/0", "db/pg-0")}
    kubectl.apply(sample("deny"), sample("from-web"))
    assert shut(bare) == {("shop/cart-0", "db/pg-0"), ("monitoring/prometheus-0", "db/pg-0")}
    kubectl.apply(json.dumps(CRD))
    wait("it is served", lambda: is_established(kubectl.get("crd", CRD["metadata"]["name"])))
    kubectl.apply(sample("monitoring"), sample("cart"))
    assert shut(bare) == {("shop/cart-0", "db/pg-0")}
    nothing = asked(bare, "diff", "-f", str(SAMPLE / "policies.yaml"))
    assert (nothing.stdout, nothing.stderr) == ("", "nothing opens and nothing closes\n")
    assert asked(bare, "lint").stdout == CliRunner().invoke(main, ["policy", "lint", "-f", str(SAMPLE)]).stdout


def test_a_policy_that_is_replaced_opens_what_it_denied(bare: ControlPlane, tmp_path: Path) -> None:
    kubectl = Kubectl(bare.kubeconfig)
    kubectl.apply(sample("deny"), sample("from-web"))
    policies = [yaml.safe_load(sample(name)) for name in ("deny", "from-web")]
    for policy in policies:
        policy["spec"] = {"podSelector": {"matchLabels": {"app": "another"}}}
    (tmp_path / "new.yaml").write_text(yaml.safe_dump_all(policies))
    said = asked(bare, "diff", "-f", str(tmp_path)).stdout.splitlines()
    lifted = "opens, no longer denied by NetworkPolicy db/deny, NetworkPolicy db/from-web"
    assert [line for line in said if lifted in line] == said != []
    assert any(line.startswith("shop/cart-0") and " -> db/pg-0 every port " in line for line in said)


def test_addresses_are_those_that_blocks_publish(bare: ControlPlane) -> None:
    kubectl = Kubectl(bare.kubeconfig)
    install(kubectl)
    meta = {"name": "placed", "namespace": "shop", "labels": {"app": "web"}}
    spec = {"nodeName": "n1", "containers": [{"name": "c", "image": "example.org/c"}]}
    kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    uid = kubectl.get("pod", "placed", "-n", "shop")["metadata"]["uid"]
    owner = {"pool": {"name": "p", "uid": "u"}, "affinity": {"node": "n1", "uid": "u"}, "active": True}
    for name, cidr in (("one", "10.1.0.0/26"), ("other", "fd00::/122")):
        kubectl.apply({"apiVersion": API, "kind": "IPAMBlock", "metadata": {"name": name}, "spec": {"cidr": cidr, **owner}})

    def held(*addresses: str) -> list[dict[str, Any]]:
        row = {"sequence": 1, "namespace": "shop", "pod": "placed", "uid": uid, "since": "2026-01-02T03:04:05Z"}
        return [{**row, "address": one} for one in addresses]

    publish(kubectl, "one", epoch="e", allocations=held("10.1.0.5", "8.8.8.8"), free=62)
    publish(kubectl, "other", epoch="e", allocations=held("fd00::5"), free=63)
    line = ("explain", "--from", "shop/placed", "--to", "192.0.2.1", "--port", "80", "-o", "json")
    explained = json.loads(asked(bare, *line).stdout)
    assert [family["from"] for family in explained["families"]] == ["10.1.0.5"]
    assert explained["notes"] == []
    outside = asked(bare, "explain", "--from", "8.8.8.8", "--to", "shop/placed", "--port", "80").stdout
    assert "8.8.8.8 (no pod and no node)" in outside, "it lies in no block of the node"
    found = asked(bare, "explain", "--from", "fd00::5", "--to", "shop/placed", "--port", "80").stdout
    assert "shop/placed (fd00::5)" in found


def compiled(kubectl: Kubectl) -> list[dict[str, Any]]:
    """Write what the operator would write of what the API server holds; return the RuleSets with their generations."""
    world = World(objects_of(kubectl))
    groups: dict[str, list[dict[str, Any]]] = {}
    names: set[str] = set()
    for (namespace, name), facts in world.facts.items():
        rule_sets = world.compiled.rule_sets_of(next(iter(world.parties((namespace, name)).values())))
        names.update(rule_sets)
        endpoint = {"namespace": namespace, "name": name, "uid": facts.uid}
        groups.setdefault(facts.node, []).append({"endpoints": [endpoint], "ruleSets": rule_sets})
    for name in names:
        spec = msgspec.to_builtins(world.compiled.rule_set(name))
        kubectl.apply({"apiVersion": API, "kind": "RuleSet", "metadata": {"name": name}, "spec": spec})
    for node, listed in groups.items():
        kubectl.apply({"apiVersion": API, "kind": "NodePolicy", "metadata": {"name": node}, "spec": {"groups": listed}})
    found: list[dict[str, Any]] = kubectl.get("rulesets")["items"]
    return found


def objects_of(kubectl: Kubectl) -> Objects:
    objects = Objects()
    for one in kubectl.get("pods", "-A")["items"]:
        put(objects, msgspec.convert(one, Pod))
    for one in kubectl.get("networkpolicies", "-A")["items"]:
        put(objects, msgspec.convert(one, NetworkPolicy))
    return replace(objects, pods={key: pod for key, pod in objects.pods.items() if pod.spec.node_name})


def says(kubectl: Kubectl, node: str, **status: Any) -> None:
    """Say what the node's agent would say."""
    patch = json.dumps({"status": status})
    kubectl.run("patch", "nodepolicy", node, "--subresource=status", "--type=merge", "-p", patch)


def test_how_far_a_policy_is(bare: ControlPlane) -> None:
    kubectl = Kubectl(bare.kubeconfig)
    kubectl.run("create", "namespace", "far")
    for node in ("n1", "n2"):
        spec = {"nodeName": node, "containers": [{"name": "c", "image": "example.org/c"}]}
        kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": node, "namespace": "far"}, "spec": spec})
    policy: dict[str, Any] = {
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "deny", "namespace": "far"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    }  # fmt: skip
    kubectl.apply(policy)

    def asked_for(*options: str) -> tuple[int, dict[str, Any], dict[str, str]]:
        result = asked(bare, "status", "far/deny", "-o", "json", *options)
        (row,) = json.loads(result.stdout)
        missing = {one["node"]: one["why"] for one in row.pop("missing")}
        assert result.exit_code == (3 if missing else 0)
        return row["enforced"], row, missing

    enforced, row, missing = asked_for()
    assert (enforced, row["nodes"], row["since"]) == (0, 2, None)
    assert all("the operator hasn't written RuleSet" in why for why in missing.values())
    (name,) = (one["metadata"]["name"] for one in compiled(kubectl) if one["spec"]["policies"] == ["NetworkPolicy far/deny"])
    assert "its agent doesn't say that it enforces" in asked_for()[2]["n1"]
    says(kubectl, "n1", ruleSets={name: 1}, realizedGeneration=1, since="2026-01-02T03:04:05Z")
    says(kubectl, "n2", waiting=["set-x"])
    assert asked_for() == (
        1, {"policy": "NetworkPolicy far/deny", "nodes": 2, "enforced": 1, "since": "2026-01-02T03:04:05Z"},
        {"n2": "its agent waits for set-x"},
    )  # fmt: skip
    says(kubectl, "n2", waiting=[], errors=[{"ruleSet": name, "message": "no nftables; load nf_tables"}])
    assert asked_for("--wait", "--timeout", "0")[2] == {"n2": "no nftables; load nf_tables"}
    says(kubectl, "n2", errors=[], ruleSets={name: 1}, realizedGeneration=1, since="2026-01-02T03:04:06Z")
    enforced, row, missing = asked_for("--wait")
    assert (enforced, row["since"], missing) == (2, "2026-01-02T03:04:06Z", {})
    assert asked(bare, "status", "far/deny").stdout.splitlines()[1].split() == [
        "NetworkPolicy", "far/deny", "2", "2", "2026-01-02T03:04:06Z",
    ]  # fmt: skip

    policy["spec"]["ingress"] = [{"ports": [{"port": 80}]}]
    kubectl.apply(policy)
    assert "the operator hasn't written RuleSet" in asked_for()[2]["n1"], "the policy is another now"
    compiled(kubectl)
    assert asked_for()[2]["n1"] == f"its agent enforces generation 1 of RuleSet {name}, and 2 is the newest"
    spec = {"nodeName": "n1", "containers": [{"name": "c", "image": "example.org/c"}]}
    kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "late", "namespace": "far"}, "spec": spec})
    assert f"the operator hasn't told the node of far/late and RuleSet {name}" in asked_for()[2]["n1"]


def test_a_policy_that_isn_t_there(bare: ControlPlane) -> None:
    result = asked(bare, "status", "db/none")
    assert "there is no NetworkPolicy db/none; there are " in result.stderr
    assert result.exit_code == 2
