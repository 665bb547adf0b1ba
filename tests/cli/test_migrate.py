"""tortiectl migrate from-calico against a real API server with Calico's kinds, and from files without any."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from tests.cli.calico_cluster import HARMLESS, KINDS, NAMESPACED, USUAL, V3, install, stored
from tests.cluster import deploy
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubectl import Kubectl, Refused
from tortie.cli.ctl.main import main

OURS = "ippools,ipreservations,ipamconfigurations,bgpconfigurations,bgppeers,bgpfilters"


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane with Tortie and Calico's kinds; of its own, because they share their plurals with ours."""
    with ControlPlane() as plane:
        kubectl = Kubectl(plane.kubeconfig)
        deploy.install(kubectl)
        install(kubectl)
        yield plane


@pytest.fixture
def calico(plane: ControlPlane) -> Iterator[Kubectl]:
    """The administrator's kubectl; neither Calico's objects nor ours outlive the test."""
    kubectl = Kubectl(plane.kubeconfig)
    yield kubectl
    ours = ",".join(f"{plural}.tortie.dev" for plural in OURS.split(","))
    theirs = ",".join(f"{plural}.crd.projectcalico.org" for plural in (*KINDS, *NAMESPACED))
    kubectl.run("delete", f"{ours},{theirs}", "--all", "-A")
    kubectl.run("delete", "networkpolicies.networking.k8s.io", "--all", "-A")


def migrate(plane: ControlPlane | None, *arguments: str, text: str | None = None) -> Result:
    kubeconfig = str(plane.kubeconfig) if plane else "/nonexistent"
    return CliRunner().invoke(main, ["--kubeconfig", kubeconfig, "migrate", "from-calico", *arguments], input=text)


def lines(result: Result) -> str:
    return "\n".join(line.rstrip() for line in result.stdout.splitlines())


def specs(kubectl: Kubectl) -> dict[str, Any]:
    """Return the specs of our objects by kind and name."""
    ours = ",".join(f"{plural}.tortie.dev" for plural in OURS.split(","))
    return {f"{one['kind']}/{one['metadata']['name']}": one["spec"] for one in kubectl.get(ours)["items"]}


DRY_RUN = """\
Read from crd.projectcalico.org/v1:

KIND               NAME                 CHANGE    DIFFERENT FIELDS
IPReservation      router               create
IPAMConfiguration  default              create
BGPFilter          in                   create
BGPConfiguration   default              later
BGPPeer            tor                  later
IPPool             default-ipv4-ippool  create
IPPool             old                  create

LEVEL    OBJECT                                FIELD                  WHAT
loss     BGPPeer/tor                           spec.keepaliveTime     3s: is not kept; a silent peer counts as there for 90 s here; failureDetectionMode notices its end sooner
loss     FelixConfiguration/default            spec.wireguardEnabled  true: Tortie has no WireGuard: what is encrypted between nodes today, won't be
loss     GlobalNetworkPolicy/default.deny-all                         is not kept: Tortie knows none of Calico's own policies, so what it alone forbids is allowed; write a NetworkPolicy
loss     IPAMBlock                                                    2 addresses in use: a pod keeps its address only until it is made again
note     IPAMConfiguration/default             spec.strictAffinity    false: kept, but nodes never borrow here; an exhausted pool's blocks are split
note     IPPool/default-ipv4-ippool            spec.disabled          true until Calico is gone: both would give out the same addresses
note     IPPool/old                            spec.ipip              is ipipMode: Never now
note     NetworkPolicy.networking.k8s.io                              1 in the cluster: Tortie enforces them, too

Nothing was written. Found: 4 losses. --apply --accept-losses writes 5 objects. Left for later: 2 objects that nodes speak BGP by, because two BIRDs on a node delete each other's routes. Keep them now (tortiectl migrate from-calico -o yaml > tortie.yaml), and when Calico runs on no node any more, before pools are enabled: kubectl apply -f tortie.yaml
"""  # noqa: E501 - word for word
KUBERNETES_POLICY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"podSelector": {}},
}


def test_a_usual_cluster(plane: ControlPlane, calico: Kubectl) -> None:
    calico.apply(*USUAL, KUBERNETES_POLICY)
    shown = migrate(plane)
    assert shown.exit_code == 0
    assert lines(shown) == DRY_RUN.rstrip("\n")
    assert specs(calico) == {}
    refused = migrate(plane, "--apply")
    assert refused.exit_code == 1
    assert "nothing is written. Found: 4 losses. --accept-losses writes the rest without them" in refused.stderr
    assert specs(calico) == {}
    written = migrate(plane, "--apply", "--accept-losses")
    assert written.exit_code == 0, written.output
    assert "Written: 5 objects. Left for later: 2 objects that nodes speak BGP by" in written.stdout
    beside = {"IPReservation/router", "IPAMConfiguration/default", "BGPFilter/in", "IPPool/default-ipv4-ippool", "IPPool/old"}
    assert set(specs(calico)) == beside
    again = migrate(plane, "-o", "json")
    assert {change["change"] for change in json.loads(again.stdout)["changes"]} == {"same", "later"}
    assert "Nothing is to be written: what can be kept is there already. Left for later: 2 objects" in again.stderr


def test_nodes_speak_bgp_when_calico_is_gone(plane: ControlPlane, calico: Kubectl) -> None:
    calico.apply(*USUAL)
    written = migrate(plane, "--apply", "--accept-losses", "--enable-pools")
    assert "Written: 7 objects." in written.stdout
    assert "later" not in written.stdout
    assert {"BGPConfiguration/default", "BGPPeer/tor"} <= set(specs(calico))
    again = json.loads(migrate(plane, "--enable-pools", "-o", "json").stdout)
    assert {change["change"] for change in again["changes"]} == {"same"}


def test_what_is_harmless_needs_no_consent(plane: ControlPlane, calico: Kubectl) -> None:
    calico.apply(*HARMLESS)
    written = migrate(plane, "--apply")
    assert written.exit_code == 0, written.output
    *_, said, command = written.stdout.splitlines()
    assert said == "Written: 2 objects. The pools are disabled. When Calico and the pods with its addresses are gone:"
    assert specs(calico)["IPPool/default-ipv4-ippool"]["disabled"] is True
    pool = calico.get("ippools.tortie.dev", "default-ipv4-ippool")["metadata"]
    assert pool["labels"] == {"team": "net"}
    assert "annotations" not in pool
    calico.run(*(part.strip("'") for part in command.split()[1:]))
    assert specs(calico)["IPPool/default-ipv4-ippool"]["disabled"] is False


def test_pools_may_stay_enabled(plane: ControlPlane, calico: Kubectl) -> None:
    calico.apply(*HARMLESS)
    assert migrate(plane, "--apply", "--enable-pools").stdout.endswith("Written: 2 objects.\n")
    assert specs(calico)["IPPool/default-ipv4-ippool"]["disabled"] is False


def test_manifests_for_kubectl(plane: ControlPlane, calico: Kubectl) -> None:
    calico.apply(*USUAL)
    shown = migrate(plane, "-o", "yaml")
    assert "loss GlobalNetworkPolicy/default.deny-all is not kept" in shown.stderr
    calico.apply(shown.stdout)
    assert len(specs(calico)) == 7
    assert "what can be kept is there already" in migrate(plane).stdout


def test_what_is_there_with_other_values_is_refused_unless_overwritten(plane: ControlPlane, calico: Kubectl) -> None:
    calico.apply(*HARMLESS)
    mine = {"reservedCIDRs": ["10.244.0.0/30"]}
    body = {"apiVersion": "tortie.dev/v1alpha1", "kind": "IPReservation", "metadata": {"name": "router", "finalizers": ["a/b"]}}
    calico.apply({**body, "spec": mine})
    try:
        shown = migrate(plane)
        assert ["IPReservation", "router", "differs", "reservedCIDRs"] in [line.split() for line in shown.stdout.splitlines()]
        assert "--apply --overwrite writes 2 objects." in shown.stdout
        refused = migrate(plane, "--apply")
        assert refused.exit_code == 1
        assert "there with other values: IPReservation/router (reservedCIDRs). --overwrite gives" in refused.stderr
        assert specs(calico) == {"IPReservation/router": mine}
        assert migrate(plane, "--apply", "--overwrite").exit_code == 0
        assert specs(calico)["IPReservation/router"] == {"reservedCIDRs": ["10.244.0.0/28"]}
        assert calico.get("ipreservations.tortie.dev", "router")["metadata"]["finalizers"] == ["a/b"]
    finally:
        patch = ("--type=merge", "-p", '{"metadata":{"finalizers":null}}')
        calico.run("patch", "ipreservations.tortie.dev", "router", *patch)


BROKEN: dict[str, tuple[dict[str, Any], str, str]] = {
    "a range that no pod may have": (
        stored("IPPool", "bad", {"cidr": "127.0.0.0/16", "disabled": True}),
        "spec.cidr",
        "must not overlap the loopback range 127.0.0.0/8 or ::1/128; it is 127.0.0.0/16",
    ),
    "two encapsulations": (
        stored("IPPool", "bad", {"cidr": "10.3.0.0/16", "disabled": True, "ipipMode": "Always", "vxlanMode": "Always"}),
        "spec.ipipMode",
        "must be Never when vxlanMode is not",
    ),
    "a peer that is no address": (stored("BGPPeer", "bad", {"peerIP": "router-1"}), "spec.peerIP", "must be an IP address"),
    "a type": (stored("BGPPeer", "bad", {"ttlSecurity": "one"}), "spec.ttlSecurity", "must be a valid integer; it is one"),
    "one of two rules": (
        stored("IPPool", "bad", {"cidr": "10.4.0.0/16", "blockSize": 12}),
        "spec.blockSize",
        "must be from 20 to 32 in an IPv4 pool",
    ),
}


@pytest.mark.parametrize("row", BROKEN)
def test_what_breaks_a_rule_is_named_and_the_others_go_on(plane: ControlPlane, calico: Kubectl, row: str) -> None:
    bad, field, words = BROKEN[row]
    calico.apply(*HARMLESS, bad)
    shown = migrate(plane)
    assert shown.exit_code == 0
    line, *_ = [line for line in shown.stdout.splitlines() if line.startswith("refused")]
    assert line.split()[1:3] == [f"{bad['kind']}/bad", field]
    assert words in line
    assert line.endswith("correct it in Calico, or leave it out here and write it by hand")
    assert [bad["kind"], "bad", "refused"] in [line.split() for line in shown.stdout.splitlines()]
    assert migrate(plane, "--apply").exit_code == 1
    assert specs(calico) == {}
    assert migrate(plane, "--apply", "--accept-losses").exit_code == 0
    assert set(specs(calico)) == {"IPReservation/router", "IPPool/default-ipv4-ippool"}


def test_a_pool_that_would_get_no_blocks_is_a_loss(plane: ControlPlane, calico: Kubectl) -> None:
    calico.apply(*HARMLESS)
    mine = {
        "apiVersion": "tortie.dev/v1alpha1",
        "kind": "IPPool",
        "metadata": {"name": "mine"},
        "spec": {"cidr": "10.244.0.0/20"},
    }
    calico.apply(mine)
    assert "overlaps Tortie's pool mine (10.244.0.0/20)" in migrate(plane).stdout
    assert migrate(plane, "--apply").exit_code == 1


# What no dry run can foresee: it allows them, and refuses the write itself.
NO_POOLS = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-pools}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [tortie.dev], apiVersions: ["*"], operations: [CREATE], resources: [ippools]}]
  validations: [{expression: request.dryRun, message: no pools today}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: no-pools}
spec: {policyName: no-pools, validationActions: [Deny]}
"""


def test_a_write_that_fails_says_how_far_it_came(plane: ControlPlane, calico: Kubectl) -> None:
    calico.apply(*HARMLESS, NO_POOLS)
    pool = {"apiVersion": "tortie.dev/v1alpha1", "kind": "IPPool", "metadata": {"name": "x"}, "spec": {"cidr": "10.8.0.0/16"}}

    def denied() -> bool:
        try:
            calico.apply(pool)
        except Refused:
            return True
        calico.run("delete", "ippools.tortie.dev", "x")
        return False

    try:
        deploy.wait("the policy is in force", denied)
        failed = migrate(plane, "--apply")
    finally:
        calico.run("delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", "no-pools")
    assert failed.exit_code == 1
    assert "IPPool/default-ipv4-ippool can't be written: " in failed.stderr
    assert "no pools today" in failed.stderr
    assert "1 of 2 objects are written; run this again" in failed.stderr
    assert set(specs(calico)) == {"IPReservation/router"}


def test_without_rights(plane: ControlPlane, calico: Kubectl) -> None:
    calico.apply(*HARMLESS)
    calico.run("create", "serviceaccount", "someone", "-n", "default")
    someone = ["--kubeconfig", str(plane.kubeconfig_for_service_account("default", "someone"))]
    refused = CliRunner().invoke(main, [*someone, "migrate", "from-calico"])
    assert refused.exit_code == 1
    assert 'cannot list resource "bgpconfigurations" in API group "crd.projectcalico.org"' in refused.stderr
    calico.run(
        "create",
        "clusterrole",
        "reads",
        "--verb=list",
        "--resource=nodes,*.crd.projectcalico.org,networkpolicies.networking.k8s.io,*.tortie.dev",
    )
    calico.run("create", "clusterrolebinding", "reads", "--clusterrole=reads", "--serviceaccount=default:someone")
    shown = CliRunner().invoke(main, [*someone, "migrate", "from-calico"])
    assert shown.exit_code == 0, shown.output
    assert "They are not tried with an API server yet: " in shown.stdout
    assert 'cannot create resource "ipreservations" in API group "tortie.dev"' in shown.stdout
    refused = CliRunner().invoke(main, [*someone, "migrate", "from-calico", "--apply"])
    assert refused.exit_code == 1
    assert "grant this right" in refused.stderr
    assert specs(calico) == {}


def test_a_cluster_step_by_step() -> None:
    """No Calico; Calico's kinds without objects; no Tortie; and the API of newer Calicos alone."""
    with ControlPlane() as plane:
        kubectl = Kubectl(plane.kubeconfig)
        assert_refused(migrate(plane), "this cluster has no Calico objects (neither crd.projectcalico.org/v1 nor")
        crds = install(kubectl)
        assert_refused(migrate(plane), "this cluster has no Calico objects (crd.projectcalico.org/v1 is served and empty)")
        kubectl.apply(*HARMLESS)
        install(kubectl, V3)
        kubectl.apply(stored("IPPool", "new", {"cidr": "10.5.0.0/16"}, api=V3, labels={"a": "b"}))
        shown = migrate(plane)
        assert shown.exit_code == 0
        assert "Read from crd.projectcalico.org/v1:" in shown.stdout
        assert "They are not tried with an API server yet: Tortie isn't installed here." in shown.stdout
        assert_refused(migrate(plane, "--apply"), "is Tortie installed there?")
        kubectl.run("delete", "crd", *crds)
        deploy.wait("the old API is gone", lambda: "crd.projectcalico.org" not in kubectl.run("get", "--raw", "/apis"))
        (pool,) = json.loads(migrate(plane, "-o", "json").stdout)["objects"]
        assert pool["metadata"] == {"name": "new", "labels": {"a": "b"}}


def assert_refused(result: Result, words: str) -> None:
    assert result.exit_code == 1, result.output
    assert words in result.stderr


EXPORT = {
    "pools.yaml": """\
apiVersion: projectcalico.org/v3
items:
- apiVersion: projectcalico.org/v3
  kind: IPPool
  metadata:
    creationTimestamp: 2026-01-02T03:04:05Z
    name: default-ipv4-ippool
    resourceVersion: "1234"
    uid: 0f3b9f0a-6f9e-4d9d-8f43-2f1f7a3e7b11
  spec:
    allowedUses: [Workload, Tunnel]
    blockSize: 26
    cidr: 192.168.0.0/16
    ipipMode: Always
    natOutgoing: true
    nodeSelector: all()
    vxlanMode: Never
kind: IPPoolList
metadata:
  resourceVersion: "5678"
""",
    "bgp/all.yml": """\
# by hand
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec:
  asNumber: 64512
  communities: [{name: a, value: 64512:10}]
---
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: tor}
spec: {peerIP: 192.0.2.1, asNumber: 1.10.x}
""",
    "policies.json": json.dumps(
        {"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
         "metadata": {"name": "web", "namespace": "shop"}, "spec": {"order": 1}}]}
    ),
    "readme.txt": "not YAML: [",
}  # fmt: skip


@pytest.fixture
def export(tmp_path: Path) -> Path:
    for name, content in EXPORT.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(content)
    return tmp_path


def test_a_folder_without_a_cluster(export: Path) -> None:
    shown = migrate(None, "-f", str(export), "-o", "yaml")
    assert shown.exit_code == 0, shown.output
    configuration, peer, pool = yaml.safe_load(shown.stdout)["items"]
    assert configuration["spec"]["communities"] == [{"name": "a", "value": "64512:10"}]
    assert peer["spec"] == {"peerIP": "192.0.2.1", "asNumber": "1.10.x"}
    assert pool == {
        "apiVersion": "tortie.dev/v1alpha1",
        "kind": "IPPool",
        "metadata": {"name": "default-ipv4-ippool"},
        "spec": {
            "allowedUses": ["Workload", "Tunnel"], "blockSize": 26, "cidr": "192.168.0.0/16", "ipipMode": "Always",
            "natOutgoing": True, "nodeSelector": "all()", "vxlanMode": "Never", "disabled": True,
        },
    }  # fmt: skip
    assert "loss NetworkPolicy/shop/web is not kept" in shown.stderr
    assert "They are not tried with an API server yet: there is no such kubeconfig" in shown.stderr
    assert migrate(None, "-f", str(export), "--apply", "--accept-losses").exit_code == 1


def test_a_folder_with_a_cluster_is_tried_there(plane: ControlPlane, calico: Kubectl, export: Path) -> None:
    shown = migrate(plane, "-f", str(export))
    assert f"Read from {export}:" in shown.stdout
    assert ["BGPPeer", "tor", "refused"] in [line.split() for line in shown.stdout.splitlines()]
    assert migrate(plane, "-f", str(export), "--apply", "--accept-losses").exit_code == 0
    assert set(specs(calico)) == {"IPPool/default-ipv4-ippool"}


def test_standard_input() -> None:
    shown = migrate(None, "-f", "-", "-o", "json", text=EXPORT["pools.yaml"])
    assert [one["kind"] for one in json.loads(shown.stdout)["objects"]] == ["IPPool"]


UNREADABLE: dict[str, tuple[str, str]] = {
    "no YAML": ("kind: A\n---\nb: [", "a.yaml, document 2 can't be read as YAML or JSON: while parsing"),
    "no object": ("kind: A\n---\n- 1", "a.yaml, document 2 is no Kubernetes object: it has no kind"),
    "items that are none": ("kind: IPPoolList\nitems: 3", "a.yaml, document 1: items must be a list"),
    "an item that is none": ("kind: IPPoolList\nitems: [3]", "a.yaml, document 1: an item is no object"),
    "nothing of Calico's": ("kind: Pod\napiVersion: v1", "holds no Calico objects (apiVersion projectcalico.org/v3"),
    "nothing": ("", "holds no Calico objects"),
}


@pytest.mark.parametrize("row", UNREADABLE)
def test_a_file_that_can_not_be_read_is_named(tmp_path: Path, row: str) -> None:
    content, words = UNREADABLE[row]
    (tmp_path / "a.yaml").write_text(content)
    assert_refused(migrate(None, "-f", str(tmp_path / "a.yaml")), words)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    assert_refused(migrate(None, "-f", str(tmp_path)), "has no file that ends in .yaml, .yml or .json")
    assert_refused(migrate(None, "-f", str(tmp_path / "none.yaml")), "none.yaml can't be read: No such file or directory")
    (tmp_path / "latin.yaml").write_bytes(b"kind: \xe9")
    assert_refused(migrate(None, "-f", str(tmp_path / "latin.yaml")), "latin.yaml, document 1 can't be read as YAML or JSON")


def test_usage() -> None:
    assert migrate(None, "--nonsense").exit_code == 2
