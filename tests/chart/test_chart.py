"""The chart: what its values refuse, what it grants, and what becomes of the CRDs on upgrade and uninstall."""

import json
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


# A value that is refused, and what is said of it: which it is, and what is wrong.
REFUSED = {
    "replicas below none": ("operator.replicas=-1", "at '/operator/replicas': minimum: got -1, want 0"),
    "replicas in words": ("operator.replicas=two", "at '/operator/replicas': got string, want integer"),
    "an unknown level": (
        "operator.logLevel=LOUD",
        "at '/operator/logLevel': value must be one of 'DEBUG', 'INFO', 'WARNING', 'ERROR'",
    ),
    "a port that isn't": ("operator.healthPort=70000", "at '/operator/healthPort': maximum: got 70,000, want 65,535"),
    "a negative delay": ("operator.reclaimDelay=-5", "at '/operator/reclaimDelay': minimum: got -5, want 0"),
    "a lease too short": ("operator.leaseDuration=1", "at '/operator/leaseDuration': minimum: got 1, want 3"),
    "a misspelt key": ("operator.replica=2", "at '/operator': additional properties 'replica' not allowed"),
    "an unknown key": ("color=red", "at '': additional properties 'color' not allowed"),
    "an unknown log format": ("logFormat=xml", "at '/logFormat': value must be one of 'text', 'json'"),
    "metrics in words": ("metrics.enabled=maybe", "at '/metrics/enabled': got string, want boolean"),
    "a port of metrics that isn't": ("metrics.agentPort=0", "at '/metrics/agentPort': minimum: got 0, want 1"),
    "a label that is a list": (
        "serviceMonitor.labels.release[0]=a",
        "at '/serviceMonitor/labels/release': got array, want string",
    ),
    "a label of rules that is a number": (
        "prometheusRule.labels.release=1",
        "at '/prometheusRule/labels/release': got number, want string",
    ),
    "a label of the dashboard that is a number": (
        "dashboard.labels.grafana_dashboard=1",
        "at '/dashboard/labels/grafana_dashboard': got number",
    ),
    "rules by another name": ("prometheusRules.enabled=true", "at '': additional properties 'prometheusRules' not allowed"),
    "an unknown pull policy": (
        "image.pullPolicy=Sometimes",
        "at '/image/pullPolicy': value must be one of 'Always', 'IfNotPresent', 'Never'",
    ),
    "a digest cut short": ("image.digest=sha256:12", 'image.digest is "sha256:12": write sha256: and 64 digits'),
    "an environment variable without a name": ("agent.extraEnv[0].value=1", "at '/agent/extraEnv/0': missing property 'name'"),
    "no CIDR": ("defaultPools[0]=ten", 'defaultPools: "ten" is no CIDR; write one such as 10.1.0.0/16 or fd00:10:1::/48'),
    "an address without a prefix length": ("defaultPools[0]=10.1.0.0", 'defaultPools: "10.1.0.0" is no CIDR; write one'),
    "a prefix too long": ("defaultPools[0]=10.1.0.0/99", 'defaultPools: "10.1.0.0/99" is no CIDR; write one such as'),
    "a part too large": ("defaultPools[0]=10.256.0.0/16", 'defaultPools: "10.256.0.0/16" is no CIDR; write one such as'),
    "an IPv6 prefix too long": ("defaultPools[0]=fd00::/129", 'defaultPools: "fd00::/129" is no CIDR; write one such as'),
    "two pools of IPv4": (
        "defaultPools={10.1.0.0/16,fd00::/48,10.2.0.0/16}",
        "defaultPools: 10.1.0.0/16 and 10.2.0.0/16 are both of IPv4; name one of each family at most",
    ),
    "two pools of IPv6": (
        "defaultPools={fd00::/48,fd01::/48}",
        "defaultPools: fd00::/48 and fd01::/48 are both of IPv6; name one of each family at most",
    ),
    "a way of detection that there isn't": (
        "addressDetection.ipv4=second",
        'addressDetection.ipv4 is "second": write kubernetes-internal-ip, first-found, can-reach=ADDRESS, interface=REGEX,',
    ),
    "no way of detection": ("addressDetection.ipv6=null", 'addressDetection.ipv6 is "": write kubernetes-internal-ip,'),
    "an MTU too small": ("mtu=576", "mtu is 576: write 1280 or more, which IPv6 needs, or 0 for that of the smallest"),
    "an MTU too large": ("mtu=65536", "at '/mtu': maximum: got 65,536, want 65,535"),
    "a folder that isn't absolute": ("agent.cniBinDir=opt", 'agent.cniBinDir is "opt": write the whole path of a folder'),
    "no folder": ("agent.cniConfDir=", 'agent.cniConfDir is "": write the whole path of a folder on the nodes, from / on'),
    "agents away in words": (
        "agent.maxUnavailable=some",
        'agent.maxUnavailable is "some": write a number of agents, 1 or more, or a percentage from 1% to 100%',
    ),
    "no agent away": ("agent.maxUnavailable=0", "at '/agent/maxUnavailable': minimum: got 0, want 1"),
    "no percentage of agents": ("agent.maxUnavailable=0%", 'agent.maxUnavailable is "0%": write a number of agents'),
    "more than all agents": ("agent.maxUnavailable=101%", 'agent.maxUnavailable is "101%": write a number of agents'),
    "an interval without a unit": (
        "serviceMonitor.interval=30",
        'serviceMonitor.interval is "30": write a time with its unit, such as 30s or 1m30s',
    ),
}


@pytest.mark.parametrize("row", REFUSED)
def test_values_that_are_refused_with_their_name_and_a_sentence(tmp_path: Path, row: str) -> None:
    value, sentence = REFUSED[row]
    with pytest.raises(Refused) as refused:
        rendered(tmp_path, "--set", value)
    assert sentence in str(refused.value)


def test_no_value_is_refused_by_a_pattern_that_nobody_can_read() -> None:
    assert '"pattern"' not in (CHART / "values.schema.json").read_text()


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


def test_the_agent_has_the_capabilities_and_folders_that_it_names_and_no_others(tmp_path: Path) -> None:
    (agents,) = [d for d in rendered(tmp_path, "--set", "mtu=1400") if d["kind"] == "DaemonSet"]
    pod = agents["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    security = container["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_BIND_SERVICE", "NET_RAW", "SYS_ADMIN"]}
    assert "privileged" not in security
    assert security["readOnlyRootFilesystem"]
    assert {v["hostPath"]["path"] for v in pod["volumes"] if "hostPath" in v} == {
        "/run/netns", "/run/tortie", "/var/lib/tortie", "/opt/cni/bin", "/etc/cni/net.d", "/proc/sys/net",
    }  # fmt: skip
    assert "--mtu=1400" in container["args"]


DIGEST = "sha256:" + "0123456789abcdef" * 4
# Values out of the ordinary, and a piece of what they render to: kind, path, what is there.
RENDERED: dict[str, tuple[str, str, str, Any]] = {
    "the version of the chart": ("", "DaemonSet", "{container}.image", "tortie:0.1.0"),
    "a tag": ("image.tag=main", "DaemonSet", "{container}.image", "tortie:main"),
    "a digest": (f"image.tag=main,image.digest={DIGEST}", "DaemonSet", "{container}.image", f"tortie@{DIGEST}"),
    "the operator's image by digest": (f"image.digest={DIGEST}", "Deployment", "{container}.image", f"tortie@{DIGEST}"),
    "agents away, a number": ("agent.maxUnavailable=1", "DaemonSet", "{update}.maxUnavailable", 1),
    "agents away, a percentage": ("agent.maxUnavailable=100%", "DaemonSet", "{update}.maxUnavailable", "100%"),
    "one replica": ("operator.replicas=1", "Deployment", "spec.replicas", 1),
    "tolerations": ("operator.tolerations[0].key=a", "Deployment", "{pod}.tolerations", [{"key": "a"}]),
    "no tolerations": ("operator.tolerations=", "Deployment", "{pod}.tolerations", []),
    "an agent's tolerations": ("agent.tolerations[0].key=a", "DaemonSet", "{pod}.tolerations", [{"key": "a"}]),
    "resources": ("operator.resources.limits.cpu=2", "Deployment", "{container}.resources.limits.cpu", 2),
    "an agent's resources": ("agent.resources.requests.cpu=1", "DaemonSet", "{container}.resources.requests.cpu", 1),
    "no resources": ("agent.resources=null", "DaemonSet", "{container}.resources", None),
    "an affinity": ("operator.affinity.podAffinity.x=y", "Deployment", "{pod}.affinity.podAffinity", {"x": "y"}),
    "no affinity": ("operator.affinity=null", "Deployment", "{pod}.affinity", None),
    "a node selector": ("agent.nodeSelector.zone=a", "DaemonSet", "{pod}.nodeSelector.zone", "a"),
}  # fmt: skip
PLACES = {
    "pod": "spec.template.spec",
    "container": "spec.template.spec.containers.0",
    "update": "spec.updateStrategy.rollingUpdate",
}


def at(document: Any, path: str) -> Any:
    """Return what is at a path; its parts are keys and places in lists."""
    for part in path.format_map(PLACES).split("."):
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document


@pytest.mark.parametrize("row", RENDERED)
def test_values_are_rendered_as_they_are_given(tmp_path: Path, row: str) -> None:
    values, kind, path, expected = RENDERED[row]
    options = ("--set-json", "operator.tolerations=[]") if values == "operator.tolerations=" else ("--set", values)
    (document,) = [d for d in rendered(tmp_path, *options) if d["kind"] == kind]
    assert at(document, path) == expected


def test_a_large_whole_number_of_a_values_file_is_no_fraction(tmp_path: Path) -> None:
    (deployment,) = [d for d in rendered(tmp_path, "--set-json", "operator.leaseDuration=1000000") if d["kind"] == "Deployment"]
    assert "--lease-duration=1000000" in at(deployment, "{container}.args")


def test_the_operator_prefers_control_plane_nodes_and_is_let_onto_them(tmp_path: Path) -> None:
    (deployment,) = [d for d in rendered(tmp_path) if d["kind"] == "Deployment"]
    (preferred,) = at(deployment, "{pod}.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution")
    asked = {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}
    assert preferred == {"weight": 1, "preference": {"matchExpressions": [asked]}}
    # Their taint, and that of a node whose network isn't there yet.
    assert {"operator": "Exists", "effect": "NoSchedule"} in at(deployment, "{pod}.tolerations")


@pytest.mark.parametrize("kind", ["Deployment", "DaemonSet"])
def test_the_api_server_is_named_to_operator_and_agents(tmp_path: Path, kind: str) -> None:
    named = {"name": "KUBERNETES_SERVICE_HOST", "value": "192.0.2.10"}, {"name": "KUBERNETES_SERVICE_PORT", "value": "6443"}
    where = ("--set", "apiServer.host=192.0.2.10", "--set", "apiServer.port=6443")
    (document,) = [d for d in rendered(tmp_path, *where) if d["kind"] == kind]
    assert [one for one in at(document, "{container}.env") if one in named] == list(named)
    (document,) = [d for d in rendered(tmp_path) if d["kind"] == kind]
    assert not {one["name"] for one in at(document, "{container}.env")} & {one["name"] for one in named}


BUDGETS = {
    "by default": ("", 1), "off": ("podDisruptionBudget.enabled=false", 0), "of one replica": ("operator.replicas=1", 0),
}  # fmt: skip


@pytest.mark.parametrize("row", BUDGETS)
def test_a_disruption_budget_is_there_where_it_lets_a_drain_end(tmp_path: Path, row: str) -> None:
    values, count = BUDGETS[row]
    found = rendered(tmp_path, "--set", values)
    budgets = [d for d in found if d["kind"] == "PodDisruptionBudget"]
    assert len(budgets) == count
    (deployment,) = [d for d in found if d["kind"] == "Deployment"]
    for budget in budgets:
        assert budget["spec"]["selector"] == deployment["spec"]["selector"]
        assert budget["spec"]["maxUnavailable"] < deployment["spec"]["replicas"]


SECRET = {"secretKeyRef": {"name": "proxy", "key": "url"}}
UNUSUAL: dict[str, dict[str, Any]] = {
    "the defaults": {},
    "an agent away": {"agent": {"maxUnavailable": 1}},
    "a percentage of agents": {"agent": {"maxUnavailable": "33%"}},
    "no resources": {"agent": {"resources": None}, "operator": {"resources": None}},
    "no tolerations": {"agent": {"tolerations": []}, "operator": {"tolerations": []}},
    "null tolerations": {"agent": {"tolerations": None}, "operator": {"tolerations": None}},
    "an environment from a secret": {
        part: {"extraEnv": [{"name": "HTTPS_PROXY", "valueFrom": SECRET}]} for part in ("agent", "operator")
    },
    "no node selector": {"agent": {"nodeSelector": None}},
    "no affinity": {"operator": {"affinity": None}},
    "no budget": {"podDisruptionBudget": {"enabled": False}},
    "one replica": {"operator": {"replicas": 1}},
    "another API server": {"apiServer": {"host": "192.0.2.10", "port": 6443}},
    "an image by digest": {"image": {"repository": "registry.example.org:5000/tortie", "digest": DIGEST}},
    "pools": {"defaultPools": ["10.1.0.0/16", "fd00:10:1::/48"]},
    "for development": {"development": True},
}


@pytest.mark.parametrize("row", UNUSUAL)
def test_the_api_server_takes_what_unusual_values_render(cluster: Kubectl, tmp_path: Path, row: str) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(UNUSUAL[row]))
    found = [
        d
        for d in rendered(tmp_path, "--values", str(values), "--namespace", NAMESPACE)
        if "apiextensions" not in d["apiVersion"]
    ]
    said = cluster.run("apply", "--dry-run=server", "-f", "-", stdin="\n---\n".join(map(json.dumps, found)))
    assert said.count("(server dry run)") == len(found)


def test_rights_are_named_one_by_one_and_nobodys_objects_are_written(tmp_path: Path) -> None:
    rules = [rule for d in rendered(tmp_path) if d["kind"] in {"ClusterRole", "Role"} for rule in d["rules"]]
    assert not any("*" in words for rule in rules for words in (rule["apiGroups"], rule["resources"], rule["verbs"]))
    written = {(g, r) for rule in rules for g in rule["apiGroups"] for r in rule["resources"]
               if set(rule["verbs"]) - {"get", "list", "watch"}}  # fmt: skip
    assert {r for g, r in written if g != "tortie.dev"} == {"leases", "events", "nodes/status", "clusternetworkpolicies/status"}


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
