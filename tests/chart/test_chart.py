"""The chart: what its values refuse, what it grants, and what becomes of the CRDs on upgrade and uninstall."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.assets import KUBERNETES
from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import NAMESPACE, ROOT, install
from tests.cluster.kubectl import Kubectl, Refused

CHART = ROOT / "helm" / "tortie"


def rendered(tmp_path: Path, *options: str) -> list[dict[str, Any]]:
    text = Kubectl(tmp_path / "nowhere").helm("template", "tortie", str(CHART), *options, "--kube-version", KUBERNETES)
    return [document for document in yaml.safe_load_all(text) if document]


REFUSED = {
    "replicas below none": ("operator.replicas=-1", "replicas"),
    "replicas in words": ("operator.replicas=two", "replicas"),
    "an unknown level": ("operator.logLevel=LOUD", "logLevel"),
    "a port that isn't": ("operator.healthPort=70000", "healthPort"),
    "a negative delay": ("operator.reclaimDelay=-5", "reclaimDelay"),
    "a lease too short": ("operator.leaseDuration=1", "leaseDuration"),
    "a misspelt key": ("operator.replica=2", "replica"),
    "an unknown key": ("color=red", "color"),
    "no CIDR": ("defaultPools[0]=ten", "defaultPools"),
    "an unknown pull policy": ("image.pullPolicy=Sometimes", "pullPolicy"),
}


@pytest.mark.parametrize("row", REFUSED)
def test_values_that_are_refused_by_name(tmp_path: Path, row: str) -> None:
    value, key = REFUSED[row]
    with pytest.raises(Refused, match=key):
        rendered(tmp_path, "--set", value)


def test_the_deployment_is_hardened_and_runs_before_any_pod_has_an_address(tmp_path: Path) -> None:
    (deployment,) = [d for d in rendered(tmp_path) if d["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert deployment["spec"]["replicas"] == 2
    assert pod["hostNetwork"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {"livenessProbe", "readinessProbe"} <= container.keys()


def test_rights_are_named_one_by_one_and_nobodys_objects_are_written(tmp_path: Path) -> None:
    rules = [rule for d in rendered(tmp_path) if d["kind"] in {"ClusterRole", "Role"} for rule in d["rules"]]
    assert not any("*" in words for rule in rules for words in (rule["apiGroups"], rule["resources"], rule["verbs"]))
    written = {(g, r) for rule in rules for g in rule["apiGroups"] for r in rule["resources"]
               if set(rule["verbs"]) - {"get", "list", "watch"}}  # fmt: skip
    assert {r for g, r in written if g != "tortie.dev"} == {"leases", "events", "nodes/status"}


def test_an_upgrade_upgrades_the_crds_and_an_uninstall_keeps_them(tmp_path: Path) -> None:
    older = tmp_path / "older"
    shutil.copytree(CHART, older)
    crds = older / "templates" / "crds.yaml"
    crds.write_text(crds.read_text().replace("- ipp\n", "- older\n"))
    with ControlPlane() as plane:
        kubectl = Kubectl(plane.kubeconfig)
        where = ("--namespace", NAMESPACE, "--create-namespace", "--set", "operator.replicas=0")
        kubectl.helm("install", "tortie", str(older), *where)
        assert kubectl.get("crd", "ippools.tortie.dev")["spec"]["names"]["shortNames"] == ["older"]
        install(kubectl)
        assert kubectl.get("crd", "ippools.tortie.dev")["spec"]["names"]["shortNames"] == ["ipp"]
        kubectl.apply((ROOT / "docs" / "samples" / "ippool.yaml").read_text())
        kubectl.helm("uninstall", "tortie", "--namespace", NAMESPACE)
        assert len(kubectl.get("ippools.tortie.dev")["items"]) == 2
