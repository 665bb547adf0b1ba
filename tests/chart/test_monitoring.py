"""Dashboard and alerts against what real processes serve, and what the chart makes of them."""

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import promql_parser as promql
import pytest
import yaml

from tests.agent.acting import AgentNode, Failed
from tests.agent.namespaces import namespaces, needs_root, run
from tests.chart import promql as query
from tests.chart.test_chart import CHART, rendered
from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import NAMESPACE, ROOT, wait
from tests.cluster.kubectl import Kubectl, Refused
from tests.cluster.ports import HeldPort
from tests.controller.acting import Operators, active, node, pool
from tests.scraped import Scraped, read

ON = ("metrics", "serviceMonitor", "prometheusRule", "dashboard")
ALL = tuple(part for value in ON for part in ("--set", f"{value}.enabled=true"))
# What Prometheus and the Prometheus operator put on every series; and series of Prometheus' own.
TARGET = {"job", "instance", "namespace", "pod", "service", "container", "endpoint"}
OWN = {"up": set[str]()}
TROUBLESHOOTING = ROOT / "docs" / "troubleshooting.md"


class Asked(NamedTuple):
    """A query, where it stands, and the labels that the text beside it names."""

    where: str
    expression: str
    named: frozenset[str]


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((CHART / "alerts" / "tortie.yaml").read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def dashboard() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((CHART / "dashboards" / "tortie.json").read_text())
    return read


def asked() -> Iterator[Asked]:
    """Yield every query of the chart."""
    for rule in alerts():
        text = " ".join(rule["annotations"].values())
        yield Asked(rule["alert"], rule["expr"], frozenset(re.findall(r"\$labels\.(\w+)", text)))
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield Asked(panel["title"], target["expr"], frozenset(re.findall(r"{{(\w+)}}", target["legendFormat"])))
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            match = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
            assert match
            yield Asked(f"${variable['name']}", match[1], frozenset({match[2]}))


def problems(one: Asked, scraped: Scraped, targets: dict[str, set[str]]) -> list[str]:
    """Return what a query names and nobody serves; `targets` are the labels that scraping adds, by part."""
    served = scraped.labels() | OWN

    def labels(name: str) -> set[str]:
        part = "agent" if name.startswith("tortie_agent_") or name in (OWN | {"tortie_build_info": 0}) else "operator"
        return served.get(name, set()) | targets[part]

    parsed, unknown = query.parse(one.expression), list[str]()
    unknown += [label for label in one.named - query.result(parsed, labels, unknown) if label not in unknown]
    for selector in query.selectors(parsed):
        name = query.name(selector)
        if name not in served:
            unknown.append(name)
        for label, (op, value) in query.matched(selector).items():
            if label not in labels(name):
                unknown.append(f"{name}{{{label}}}")
            values = {s.labels[label] for s in scraped.samples if s.name == name and label in s.labels}
            if op == promql.MatchOp.Equal and values and value not in values:
                unknown.append(f'{name}{{{label}="{value}"}}')
    return [f"{one.where}: {name}" for name in unknown]


@pytest.mark.parametrize("one", list(asked()), ids=lambda one: one.where)
def test_every_query_can_be_read(one: Asked) -> None:
    query.parse(one.expression)


def test_nonsense_cannot() -> None:
    with pytest.raises(ValueError, match="unexpected"):
        query.parse("sum by (pool) (rate(tortie_operator_writes_total))[5m")


@pytest.fixture
def scraped(control_plane: ControlPlane, cluster: Kubectl, operators: Operators, tmp_path: Path) -> Scraped:
    """An operator and an agent that have done all that is counted, scraped where the chart has them scraped."""
    port = HeldPort()
    port.release()
    operators("--metrics-address", f"127.0.0.1:{port.number}")
    cluster.apply(pool(cidr="10.1.0.0/26"), pool("six", cidr="fd00::/64"), node("a"))
    wait("a block of each family", lambda: len(active(cluster, "a")) == 2)
    cluster.apply(node("starving"))
    wait("its IPv6 block", lambda: len(active(cluster, "starving")) == 1)
    with namespaces(2) as (path, *pods), closing(AgentNode("a", control_plane, tmp_path, path, pods)) as agent:
        agent.options = ("--metrics-address", "[::1]:9095")
        agent.start()
        agent.add(0)
        agent.cni("DEL", 0)
        with pytest.raises(Failed):
            agent.cni("CHECK", 0)
        url = "http://[::1]:9095/metrics"
        wait("the agent serves", lambda: bool(run(["sh", "-c", f"busybox wget -q -O - {url} || true"], path)))
        texts = read(f"127.0.0.1:{port.number}"), run(["busybox", "wget", "-q", "-O", "-", url], path)
        with pytest.raises(OSError, match="404"):
            read(f"127.0.0.1:{port.number}", "/healthz")
    return Scraped(*texts)


@pytest.fixture
def targets(tmp_path: Path) -> dict[str, set[str]]:
    """The labels that scraping by the chart's ServiceMonitors adds, by part."""
    found = {}
    for monitor in (d for d in rendered(tmp_path, *ALL) if d["kind"] == "ServiceMonitor"):
        (endpoint,) = monitor["spec"]["endpoints"]
        added = {one["targetLabel"] for one in endpoint.get("relabelings", ())}
        found[monitor["metadata"]["name"].removeprefix("tortie-")] = TARGET | added
    return found


@needs_root
def test_dashboard_and_alerts_name_what_is_served(scraped: Scraped, targets: dict[str, set[str]]) -> None:
    assert [problem for one in asked() for problem in problems(one, scraped, targets)] == []


BROKEN = {
    "a metric": ("tortie_operator_noodles", "", ["w: tortie_operator_noodles"]),
    "a label of a choice": ('tortie_operator_blocks{kind="active"}', "", ["w: tortie_operator_blocks{kind}"]),
    "a value": ('tortie_operator_blocks{state="asleep"}', "", ['w: tortie_operator_blocks{state="asleep"}']),
    "a label of a sum": ("sum by (kind) (tortie_operator_blocks)", "", ["w: kind"]),
    "a label of a text": ("tortie_operator_blocks", "pool", ["w: pool"]),
    "a label that was summed away": ("sum by (state) (tortie_operator_blocks)", "pod", ["w: pod"]),
    "a node of the operator": ("tortie_operator_leading", "node", ["w: node"]),
    "nothing": ("sum without (pod) (tortie_operator_blocks) > 0", "state", []),
}


@pytest.mark.parametrize("row", BROKEN)
def test_what_is_not_served_is_seen(row: str) -> None:
    expression, named, found = BROKEN[row]
    scraped = Scraped(
        '# TYPE tortie_operator_blocks gauge\ntortie_operator_blocks{state="active"} 1\ntortie_operator_leading 1\n'
    )
    one = Asked("w", expression, frozenset(named.split()))
    assert problems(one, scraped, {"operator": TARGET, "agent": TARGET | {"node"}}) == found


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_alerts_tell_a_person_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["alert"].startswith("Tortie")
    assert rule["labels"]["severity"] in ("critical", "warning")
    summary, description = rule["annotations"]["summary"], rule["annotations"]["description"]
    assert summary.endswith(".")
    assert len(summary) < 100
    assert description.count(". ") >= 1
    assert re.fullmatch(r"docs/troubleshooting\.md#[a-z-]+", rule["annotations"]["runbook_url"])
    if query.result(query.parse(rule["expr"]), lambda _name: {"x"}, []):  # it is about something: it says what
        assert re.search(r"{{ \$(labels|value)", summary)


@pytest.mark.skipif(not TROUBLESHOOTING.exists(), reason="docs/troubleshooting.md isn't written yet")
@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_the_runbook_of_an_alert_is_there(rule: dict[str, Any]) -> None:
    text = TROUBLESHOOTING.read_text()
    headings = (re.sub(r"[^a-z0-9 -]", "", line.lower()).strip() for line in text.splitlines() if line.startswith("#"))
    anchors = {heading.replace(" ", "-") for heading in headings} | set(re.findall(r"{ *#([a-z-]+)", text))
    assert rule["annotations"]["runbook_url"].rpartition("#")[2] in anchors


def test_the_dashboards_panels_lie_beside_each_other() -> None:
    places = set[tuple[int, int]]()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & places, panel["title"]
        assert max(x for x, _ in cells) < 24
        places |= cells
    assert [p["title"] for p in dashboard()["panels"] if p["type"] == "row"] == ["Addresses", "CNI", "Operator", "Nodes"]
    idents = [panel["id"] for panel in dashboard()["panels"]]
    assert len(idents) == len(set(idents))


def test_unless_asked_nothing_of_it_is_there(tmp_path: Path) -> None:
    plain = rendered(tmp_path)
    assert not {d["kind"] for d in plain} & {"Service", "ServiceMonitor", "PrometheusRule", "ConfigMap"}
    assert "metrics" not in json.dumps([d for d in plain if d["kind"] in ("Deployment", "DaemonSet")])


@pytest.mark.parametrize(("part", "kind"), [("operator", "Deployment"), ("agent", "DaemonSet")])
def test_a_service_monitor_finds_the_port_that_the_pods_serve(tmp_path: Path, part: str, kind: str) -> None:
    labels = ("--set", "serviceMonitor.labels.release=prometheus", "--set", "serviceMonitor.interval=1m30s")
    found = {(d["kind"], d["metadata"]["name"]): d for d in rendered(tmp_path, *ALL, *labels, "--namespace", "tortie-system")}
    name = f"tortie-{part}"
    monitor, service = found["ServiceMonitor", name], found["Service", name]
    assert monitor["metadata"]["labels"] == {"release": "prometheus"}
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["interval"] == "1m30s"
    assert monitor["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": [service["metadata"]["namespace"]]}
    (port,) = service["spec"]["ports"]
    assert (port["name"], service["spec"]["clusterIP"]) == (endpoint["port"], "None")
    template = found[kind, name]["spec"]["template"]
    assert template["metadata"]["labels"].items() >= service["spec"]["selector"].items()
    (container,) = template["spec"]["containers"]
    assert {"name": port["targetPort"], "containerPort": port["port"]} in container["ports"]
    assert f"--metrics-address=[$(HOST_IP)]:{port['port']}" in container["args"]
    host = {"name": "HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}
    assert host in container["env"]


def test_without_agents_none_is_scraped(tmp_path: Path) -> None:
    found = rendered(tmp_path, *ALL, "--set", "agent.enabled=false")
    assert [d["metadata"]["name"] for d in found if d["kind"] == "ServiceMonitor"] == ["tortie-operator"]


def test_rules_and_dashboard_arrive_as_they_are_written(tmp_path: Path) -> None:
    labels = ("--set", "prometheusRule.labels.release=prometheus", "--set", "dashboard.labels.team=network")
    found = {d["kind"]: d for d in rendered(tmp_path, *ALL, *labels)}
    assert found["PrometheusRule"]["spec"]["groups"][0]["rules"] == alerts()
    assert found["PrometheusRule"]["metadata"]["labels"] == {"release": "prometheus"}
    assert json.loads(found["ConfigMap"]["data"]["tortie.json"]) == dashboard()
    assert found["ConfigMap"]["metadata"]["labels"] == {"grafana_dashboard": "1", "team": "network"}


def test_the_api_server_takes_what_is_rendered(cluster: Kubectl, tmp_path: Path) -> None:
    """All but the kinds of the Prometheus operator, which aren't installed here."""
    found = [d for d in rendered(tmp_path, *ALL, "--namespace", NAMESPACE) if "monitoring.coreos.com" not in d["apiVersion"]]
    ours = [d for d in found if d["kind"] in ("Service", "ConfigMap", "Deployment", "DaemonSet")]
    text = "\n---\n".join(json.dumps(d) for d in ours)
    said = cluster.run("apply", "--dry-run=server", "-f", "-", stdin=text)
    assert said.count("(server dry run)") == len(ours) == 5


TOGETHER = {
    "a ServiceMonitor of nothing": ("serviceMonitor.enabled=true", "serviceMonitor.enabled needs metrics.enabled: without"),
    "rules about nothing": ("prometheusRule.enabled=true", "prometheusRule.enabled needs metrics.enabled: without"),
    "one port of probes for two": ("agent.healthPort=9440", "operator.healthPort and agent.healthPort must be two different"),
    "one port for two": ("metrics.enabled=true,metrics.agentPort=9441", "must be four different ports, not .9441 9441"),
    "a port of the probes": ("metrics.enabled=true,metrics.operatorPort=9091", "must be four different ports"),
}


@pytest.mark.parametrize("row", TOGETHER)
def test_values_that_don_t_go_together_are_refused_in_a_sentence(tmp_path: Path, row: str) -> None:
    values, sentence = TOGETHER[row]
    with pytest.raises(Refused, match=sentence):
        rendered(tmp_path, "--set", values)
