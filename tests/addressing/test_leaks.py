"""When an allocation is leaked: a row for each thing that can be said of its pod."""

from dataclasses import dataclass

import pytest

from tortie.addressing.leaks import Claim, PodState, why_leaked

CLAIM = Claim("a", "default", "web", "u1")


@dataclass(frozen=True)
class Row:
    claim: Claim
    pod: PodState | None
    why: str = ""


ROWS = {
    "its pod runs": Row(CLAIM, PodState("u1", "a")),
    "its pod isn't scheduled yet, as far as is known": Row(CLAIM, PodState("u1")),
    "its pod is on its way out": Row(CLAIM, PodState("u1", "a", terminating=True)),
    "its pod is gone": Row(CLAIM, None, "its pod is gone"),
    "made again under its name": Row(CLAIM, PodState("u2", "a"), "another pod has its pod's name now"),
    "made again under its name, elsewhere": Row(CLAIM, PodState("u2", "b"), "another pod has its pod's name now"),
    "it runs elsewhere": Row(CLAIM, PodState("u1", "b"), "its pod runs on node b"),
    "it has ended": Row(CLAIM, PodState("u1", "a", ended=True), "its pod has ended"),
    "in the host's network": Row(CLAIM, PodState("u1", "a", host_network=True), "its pod uses the host's network"),
    "a static pod, by its hash": Row(Claim("a", "kube-system", "etcd", "hash"), PodState("mirror", "a", static="hash")),
    "a static pod, by its mirror": Row(Claim("a", "kube-system", "etcd", "mirror"), PodState("mirror", "a", static="hash")),
    "a static pod of another manifest": Row(
        Claim("a", "kube-system", "etcd", "old"), PodState("mirror", "a", static="hash"), "another pod has its pod's name now"
    ),
    "without uid, its pod runs": Row(Claim("a", "default", "web"), PodState("u1", "a")),
    "without uid, its pod is gone": Row(Claim("a", "default", "web"), None, "its pod is gone"),
    "nobody knows whose": Row(Claim("a"), None),
    "nobody knows whose, by uid alone": Row(Claim("a", uid="u1"), None),
}


@pytest.mark.parametrize("name", ROWS)
def test_why_leaked(name: str) -> None:
    row = ROWS[name]
    assert why_leaked(row.claim, row.pod) == row.why
