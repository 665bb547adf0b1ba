"""What concerns policies is taken in object by object: a mistake of ours with one of them ends nothing else."""

from typing import cast

import pytest

from tortie.api import lean, policy_input
from tortie.controller.policies import Known, Policies
from tortie.kube.client import Client
from tortie.kube.events import EventPoster
from tortie.policy import facts
from tortie.policy.compiler import PodFacts


def pod(name: str) -> policy_input.Pod:
    return policy_input.Pod(lean.PodMetadata(name, uid=name, namespace="a"), policy_input.PodSpec(node_name="n1"))


def test_a_mistake_with_one_pod(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def read(seen: policy_input.Pod) -> PodFacts:
        if seen.metadata.name == "odd":
            raise IndexError("odd")
        return real(seen)

    real = facts.pod_facts
    monkeypatch.setattr(facts, "pod_facts", read)
    taking = Policies(cast("Client", None), lambda: True, cast("EventPoster", None), Known({}, {}, {}))
    for name in ("odd", "even"):
        taking.on_pod(None, pod(name))
    assert "a/odd: policies can't take it in" in caplog.text
    taking._compiler.put_namespace("a", {})
    policy = taking._compiler.take().node_policies["n1"]
    assert policy is not None
    assert [one.name for group in policy.groups for one in group.endpoints] == ["even"]
