"""Which rights a chart gives to its service accounts, and which of them they use: by the API server's audit log."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.cluster.components import COMMAND_LINES, Site
from tests.cluster.deploy import NAMESPACE

_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "userGroups": [f"system:serviceaccounts:{NAMESPACE}"]}],
}


class Right(NamedTuple):
    """One verb on one kind; namespace and name are "" where all are meant."""

    account: str
    verb: str
    resource: str  # with its group after a dot and its subresource after a slash
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.account}: {self.verb} {self.resource}{self.name and f' {self.name}'}{where}"

    def covers(self, asked: "Right") -> bool:
        """Whether this right allows what was asked."""
        return self[:3] == asked[:3] and self.namespace in ("", asked.namespace) and self.name in ("", asked.name)


def with_audit(folder: Path) -> Callable[[Site], list[str]]:
    """Return the API server's command line with a log, in a folder, of what service accounts of our namespace ask."""
    policy, plain = folder / "policy.json", COMMAND_LINES["kube-apiserver"]
    policy.write_text(json.dumps(_POLICY))
    more = [f"--audit-policy-file={policy}", f"--audit-log-path={folder / 'audit.log'}"]
    return lambda site: [*plain(site), *more]


def asked(folder: Path) -> set[Right]:
    """Return what was asked; requests of no object, such as discovery, are everybody's and left out."""
    whole, _, _ = (folder / "audit.log").read_text().rpartition("\n")  # the last line may be half written
    seen = map(json.loads, whole.splitlines())
    return {_request(one) for one in seen if "objectRef" in one}


def _request(event: dict[str, Any]) -> Right:
    about = event["objectRef"]
    account = event["user"]["username"].rpartition(":")[2]
    resource = _resource(about.get("apiGroup", ""), about["resource"], about.get("subresource", ""))
    return Right(account, event["verb"], resource, about.get("namespace", ""), about.get("name", ""))


def _resource(group: str, plural: str, subresource: str = "") -> str:
    return plural + (f".{group}" if group else "") + (f"/{subresource}" if subresource else "")


def granted(documents: Iterable[dict[str, Any]]) -> Iterator[Right]:
    """Yield the rights that the bindings among the chart's documents give, one by one."""
    found = list(documents)
    roles = {_place(d): d["rules"] for d in found if d["kind"] in ("Role", "ClusterRole")}
    for binding in found:
        if binding["kind"] in ("RoleBinding", "ClusterRoleBinding"):
            namespace = binding["metadata"].get("namespace", "")
            rules = roles[binding["roleRef"]["kind"], namespace, binding["roleRef"]["name"]]
            for subject in binding["subjects"]:
                for rule in rules:
                    yield from _rights(subject["name"], namespace, rule)


def _place(document: dict[str, Any]) -> tuple[str, str, str]:
    return document["kind"], document["metadata"].get("namespace", ""), document["metadata"]["name"]


def _rights(account: str, namespace: str, rule: dict[str, Any]) -> Iterator[Right]:
    for group in rule["apiGroups"]:
        for whole in rule["resources"]:
            plural, _, subresource = whole.partition("/")
            for verb in rule["verbs"]:
                for name in rule.get("resourceNames", [""]):
                    yield Right(account, verb, _resource(group, plural, subresource), namespace, name)
