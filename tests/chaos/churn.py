"""Pods that come and go: what is there at the beginning, and what is done to it."""

import json
from typing import Any

from tests.chaos.schedule import DEPLOYMENTS, MEMBERS, STATEFUL_SETS, Step
from tests.cluster.demo import pod
from tests.cluster.kubectl import Kubectl, Refused

_PATIENCE = "--request-timeout=3s"  # the next step waits for this one
_GRACE = 4  # seconds; sleep as a first process doesn't hear SIGTERM, so a pod goes on for so long after its deletion


def workloads() -> list[dict[str, Any]]:
    """Return what runs at the beginning."""
    sets = [_workload("StatefulSet", name, MEMBERS) for name in STATEFUL_SETS]
    return [*(_workload("Deployment", name, 1) for name in DEPLOYMENTS), *sets]


def do(kubectl: Kubectl, step: Step) -> str:
    """Do one step; return what came of it, for people."""
    try:
        return _do(kubectl, step)
    except Refused as refused:
        return f"not done: {str(refused).splitlines()[-1]}"


def not_quiet(kubectl: Kubectl) -> list[str]:
    """Return what isn't yet as it should be, for people."""
    pods = {one["metadata"]["name"]: _state(one) for one in kubectl.get("pods", "-A")["items"]}
    unlike = [f"pod {name} is {state}" for name, state in pods.items() if state not in ("Running", "Succeeded")]
    sets = kubectl.get("deployments,statefulsets")["items"]
    return unlike + [
        f"{one['kind']} {one['metadata']['name']} has {ready} pods ready of {one['spec']['replicas']}"
        for one in sets
        if (ready := one["status"].get("readyReplicas", 0)) != one["spec"]["replicas"]
        or one["status"].get("observedGeneration") != one["metadata"]["generation"]
    ]


def _state(pod: dict[str, Any]) -> str:
    if "deletionTimestamp" in pod["metadata"]:
        return "being deleted"
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ()))
    return str(pod["status"]["phase"]) + ("" if ready or pod["status"]["phase"] != "Running" else ", and not ready")


def _do(kubectl: Kubectl, step: Step) -> str:
    if step.action == "scale":
        return kubectl.run("scale", "deployment", step.target, f"--replicas={step.number}", _PATIENCE)
    if step.action == "job":
        return kubectl.run("create", "-f", "-", _PATIENCE, stdin=json.dumps(_job(step.target, step.number)))
    if step.action == "force-delete":
        name = f"pod/{step.target}-{step.number}"
        return kubectl.run("delete", name, "--force", "--grace-period=0", _PATIENCE)
    names = sorted(kubectl.run("get", "pods", "-l", f"app={step.target}", "-o", "name", _PATIENCE).split())
    return kubectl.run("delete", names[step.number % len(names)], "--wait=false", _PATIENCE) if names else "there is none"


def _workload(kind: str, name: str, replicas: int) -> dict[str, Any]:
    spec: dict[str, Any] = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": _template(name)}
    if kind == "StatefulSet":
        spec |= {"serviceName": name, "podManagementPolicy": "Parallel"}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _job(name: str, pods: int) -> dict[str, Any]:
    """Return a Job whose pods end, each after a while of its own, and stay for a while as ended ones do."""
    template = _template(name)
    template["spec"]["restartPolicy"] = "Never"
    template["spec"]["containers"][0]["command"] = ["sh", "-c", "sleep $((1 + $RANDOM % 5))"]
    spec = {"parallelism": pods, "completions": pods, "ttlSecondsAfterFinished": 60, "template": template}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


def _template(name: str) -> dict[str, Any]:
    spec = {**pod("")["spec"], "terminationGracePeriodSeconds": _GRACE}
    del spec["nodeName"]  # the scheduler's to say
    return {"metadata": {"labels": {"app": name}}, "spec": spec}
