"""When an allocation is leaked: what is said of its pod, judged. Pure. A doubt counts as in use.

Who wants to free an address judged leaked asks the agent that holds it, the only one that can look whether an interface
uses it (`tortie.agent.service`).
"""

from typing import NamedTuple

from tortie.addressing.allocator import Address, address
from tortie.api import lean


class Claim(NamedTuple):
    """Whom an allocation says that it is for; a field that isn't known is empty."""

    node: str
    namespace: str = ""
    pod: str = ""
    uid: str = ""


class PodState(NamedTuple):
    """A pod, as far as its address matters.

    Attributes:
        static: The annotation kubernetes.io/config.hash: by it the runtime knows a static pod, whose mirror has another uid.
        ended: Whether its phase is Succeeded or Failed: it never runs again.
        terminating: Whether it is being deleted: its network may be gone already, or still be there.
    """

    uid: str
    node: str = ""
    static: str = ""
    ended: bool = False
    terminating: bool = False
    host_network: bool = False
    addresses: tuple[Address, ...] = ()


def why_leaked(claim: Claim, pod: PodState | None) -> str:
    """Return why the pod of an allocation can't use it, for people; "" where it can, or nobody knows.

    `pod` is what a live read finds under the claim's name; None: nothing.
    """
    if not claim.pod:
        return ""
    if pod is None:
        return "its pod is gone"
    if claim.uid and claim.uid not in (pod.uid, pod.static):
        return "another pod has its pod's name now"
    if pod.node and pod.node != claim.node:
        return f"its pod runs on node {pod.node}"
    if pod.host_network:
        return "its pod uses the host's network"
    return "its pod has ended" if pod.ended else ""


def pod_state(seen: lean.Pod) -> PodState:
    """Return a Pod as leaks are judged by it; addresses that aren't any are left out."""
    meta, spec, status = seen.metadata, seen.spec, seen.status
    addresses = [_address(one.ip) for one in status.pod_ips]
    return PodState(
        uid=meta.uid,
        node=spec.node_name,
        static=meta.annotations.config_hash,
        ended=status.phase in ("Succeeded", "Failed"),
        terminating=bool(meta.deletion_timestamp),
        host_network=spec.host_network,
        addresses=tuple(filter(None, addresses)),
    )


def _address(text: str) -> Address | None:
    try:
        return address(text)
    except ValueError:
        return None
