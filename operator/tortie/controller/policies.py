"""Policies on the API server: what concerns them goes to the compiler, what it makes is published, and people are told.

Belongs here: the kinds that policies are compiled from, and Events and conditions on them.
Does not: what a policy means (`tortie.policy`), nor the compiled objects on the API server (`publication`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

from tortie.api import lean, policy_input
from tortie.api.compiled import NodePolicy
from tortie.api.meta import API_VERSION
from tortie.controller import metrics
from tortie.controller.optional import OptionalKind
from tortie.controller.publication import Publication
from tortie.kube.client import ApiError, Client
from tortie.kube.errors import Conflict, NotFound, NotLeading, TooManyRequests, Unreachable
from tortie.kube.events import EventPoster, Reference
from tortie.kube.resource import Resource, key_of
from tortie.kube.stream import Stream
from tortie.kube.writer import Writer, WriterSettings
from tortie.policy import facts
from tortie.policy.compiler import Compiler
from tortie.policy.policies import Policy, cluster_network_policy, logs, network_policy

_log = logging.getLogger(__name__)

NAMESPACES = Resource("", "v1", "namespaces")
NETWORK_POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", namespaced=True)
CLUSTER_POLICIES = Resource("policy.networking.k8s.io", "v1alpha2", "clusternetworkpolicies")
# Events of one burst are compiled together after this many seconds.
SETTLE = 0.01
# Seconds until all is compiled from the beginning, after a mistake of ours in compiling it.
ANEW = 30.0
# Part of a policy can't be kept: it uses what isn't known here. What holds in its place is said with it.
POLICY_NOT_REALIZED = "PolicyNotRealized"
# A node's agent can't enforce what a policy was compiled to.
POLICY_NOT_ENFORCED = "PolicyNotEnforced"
# An agent says of an address what can't be; it isn't believed.
CLAIM_IGNORED = "ClaimIgnored"
# The condition of a ClusterNetworkPolicy, and its reasons.
ACCEPTED, ALL_OF_IT, NOT_SUPPORTED = "Accepted", "Accepted", "NotSupported"
APPLY = "application/apply-patch+yaml"  # server-side apply: others' conditions stay
MANAGER = "tortie"
_EXPECTED = (Conflict, NotFound, NotLeading, TooManyRequests, Unreachable)


class Known(NamedTuple):
    """What others watch, and policies are told of."""

    pods: Mapping[str, policy_input.Pod]  # by namespace/name
    nodes: Mapping[str, lean.Node]
    blocks: Mapping[str, lean.Block]


class Policies:
    """Compiles what it is told of. `holds`: whether the lease is ours."""

    def __init__(self, client: Client, holds: Callable[[], bool], events: EventPoster, known: Known) -> None:
        self._client, self._events, self._known = client, events, known
        self._compiler = Compiler()
        self._changed = asyncio.Event()
        self._told: dict[tuple[str, str, str], tuple[str, ...]] = {}  # problems, by policy
        self._publication = Publication(client, holds, self._on_node_policy)
        self._conditions = Writer(holds, self._condition_done, 4, settings=WriterSettings(retry=True))
        self._network = Stream(client, NETWORK_POLICIES.path(), policy_input.NetworkPolicy, self._on_network_policy)
        self._cluster = OptionalKind(client, CLUSTER_POLICIES, policy_input.ClusterNetworkPolicy, self._on_cluster_policy)
        self._namespaces = Stream(client, NAMESPACES.path(), policy_input.Namespace, self._on_namespace)
        self.streams: tuple[Stream[Any], ...] = (
            self._namespaces,
            self._network,
            self._cluster.definitions,
            *self._publication.streams,
        )
        self.node_policies = self._publication.node_policies

    def pending(self) -> int:
        """Return how many writes wait or are under way."""
        return len(self._publication.writer) + len(self._conditions)

    async def run(self, known: Callable[[], Awaitable[None]]) -> None:
        """Compile and publish for ever, once all streams have told what there is; `known()` waits for those of others."""
        async with self._publication.writer, self._conditions, asyncio.TaskGroup() as tasks:
            for stream in self.streams:
                tasks.create_task(stream.run())
            tasks.create_task(self._cluster.run())
            await known()
            for stream in self.streams:
                await stream.synced.wait()
            await self._cluster.synced.wait()
            self._changed.set()
            whole = True
            while True:
                await self._changed.wait()
                await asyncio.sleep(SETTLE)
                self._changed.clear()
                try:
                    with metrics.compilation_measured():
                        changes = self._compiler.take()
                    self._publication.publish(changes, whole=whole)
                    whole = False
                except Exception:
                    _log.exception(
                        "policies can't be compiled: what is published stays, and nodes get their blocks; all of it is "
                        "compiled anew in %g s; this is a mistake in the program, please report it",
                        ANEW,
                    )
                    await asyncio.sleep(ANEW)
                    self._begin_anew()
                    whole = True

    def _begin_anew(self) -> None:
        """Forget what was compiled, and take in all that there is."""
        self._compiler = Compiler()
        cluster = self._cluster.stream.store if self._cluster.stream else {}
        told: tuple[tuple[Mapping[str, Any], Callable[[Any, Any], None]], ...] = (
            (self._namespaces.store, self._on_namespace),
            (self._known.nodes, self.on_node),
            (self._known.pods, self.on_pod),
            (self._known.blocks, self.on_block),
            (self._network.store, self._on_network_policy),
            (cluster, self._on_cluster_policy),
        )
        for store, tell in told:
            for one in store.values():
                tell(None, one)

    # What there is

    def on_pod(self, old: policy_input.Pod | None, new: policy_input.Pod | None) -> None:
        """Take in a pod's change."""
        with self._taking(old or new):
            if new is not None:
                self._compiler.put_pod(facts.pod_facts(new))
            elif old is not None:
                self._compiler.drop_pod(old.metadata.namespace, old.metadata.name)

    def on_node(self, old: lean.Node | None, new: lean.Node | None) -> None:
        """Take in a Node's change."""
        with self._taking(old or new):
            if new is not None:
                self._compiler.put_node(new.metadata.name, new.metadata.labels, facts.node_addresses(new))
            elif old is not None:
                self._compiler.drop_node(old.metadata.name)

    def on_block(self, old: lean.Block | None, new: lean.Block | None) -> None:
        """Take in what a block publishes, whose spec was found readable."""
        with self._taking(old or new):
            if new is not None:
                claims, lies = facts.claims(new, lambda namespace, name: self._known.pods.get(key_of(name, namespace)))
                self._compiler.put_block(new.metadata.name, new.spec.affinity.node, claims)
                for lie in lies:
                    about = Reference(API_VERSION, "IPAMBlock", new.metadata.name, new.metadata.uid)
                    said = f"node {new.spec.affinity.node}: {lie}; no policy counts it. Look at what its agent logs"
                    self._events.post(about, "Warning", CLAIM_IGNORED, said)
            elif old is not None:
                self._compiler.put_block(old.metadata.name, old.spec.affinity.node, ())

    def _on_namespace(self, old: policy_input.Namespace | None, new: policy_input.Namespace | None) -> None:
        with self._taking(old or new):
            if new is not None:
                meta = new.metadata
                log, remarks = logs(meta.annotations)
                self._compiler.put_namespace(meta.name, meta.labels, log=log)
                if old is None or old.metadata.annotations != meta.annotations:
                    for remark in remarks:
                        about = Reference("v1", "Namespace", meta.name, meta.uid)
                        self._events.post(about, "Warning", POLICY_NOT_REALIZED, remark)
            elif old is not None:
                self._compiler.drop_namespace(old.metadata.name)

    def _on_network_policy(self, old: policy_input.NetworkPolicy | None, new: policy_input.NetworkPolicy | None) -> None:
        with self._taking(old or new):
            if new is not None:
                self._put_policy(network_policy(new), new.metadata.uid)
            elif old is not None:
                self._drop_policy(("NetworkPolicy", old.metadata.namespace, old.metadata.name))

    def _on_cluster_policy(
        self, old: policy_input.ClusterNetworkPolicy | None, new: policy_input.ClusterNetworkPolicy | None
    ) -> None:
        with self._taking(old or new):
            if new is not None:
                policy = cluster_network_policy(new)
                self._put_policy(policy, new.metadata.uid)
                self._say_accepted(new, policy)
            elif old is not None:
                self._drop_policy(("ClusterNetworkPolicy", "", old.metadata.name))

    @contextmanager
    def _taking(self, seen: Any) -> Iterator[None]:
        """Compile soon; a mistake in how one object is taken in doesn't end what else the operator does."""
        try:
            yield
        except Exception:
            name = key_of(seen.metadata.name, seen.metadata.namespace)
            _log.exception("%s: policies can't take it in; this is a mistake in the program, please report it", name)
        self._changed.set()

    def _put_policy(self, policy: Policy, uid: str) -> None:
        self._compiler.put_policy(policy)
        told = policy.problems + policy.remarks
        if told and self._told.get(policy.key) != told:
            for problem in told:
                self._events.post(_reference(policy.key, uid), "Warning", POLICY_NOT_REALIZED, problem)
        self._told[policy.key] = told

    def _drop_policy(self, key: tuple[str, str, str]) -> None:
        self._compiler.drop_policy(key)
        self._told.pop(key, None)

    # What people are told

    def _say_accepted(self, seen: policy_input.ClusterNetworkPolicy, policy: Policy) -> None:
        """Apply the condition where it isn't true: the one status of others' objects that is written."""
        meta = seen.metadata
        status, reason = ("False", NOT_SUPPORTED) if policy.problems else ("True", ALL_OF_IT)
        said = "; ".join(policy.problems)[:4096] or "all of it is compiled for the nodes that it concerns"
        old = next((one for one in seen.status.conditions or () if one.type == ACCEPTED), None)
        if old and (old.status, old.reason, old.message, old.observed_generation) == (status, reason, said, meta.generation):
            return
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        since = old.last_transition_time if old and old.status == status else now
        body = {
            "apiVersion": CLUSTER_POLICIES.api_version, "kind": "ClusterNetworkPolicy", "metadata": {"name": meta.name},
            "status": {"conditions": [{
                "type": ACCEPTED, "status": status, "reason": reason, "message": said,
                "lastTransitionTime": since, "observedGeneration": meta.generation,
            }]},
        }  # fmt: skip
        path, params = CLUSTER_POLICIES.path(meta.name, subresource="status"), {"fieldManager": MANAGER, "force": "true"}
        self._conditions.submit(
            ("condition", meta.name), lambda: self._client.request("PATCH", path, body, params=params, content=APPLY)
        )

    def _condition_done(self, key: Hashable, error: ApiError | None) -> None:
        metrics.count_write("condition", error)
        if error is not None and not isinstance(error, _EXPECTED):
            _log.error(
                "the condition of ClusterNetworkPolicy %s can't be written: %s",
                key[1] if isinstance(key, tuple) else key,
                error,
            )

    def _on_node_policy(self, old: NodePolicy | None, new: NodePolicy | None) -> None:
        """Tell the policies of a RuleSet that a node can't enforce it."""
        known = old.status.errors if old is not None else ()
        for error in new.status.errors if new is not None else ():
            if error in known:
                continue
            assert new is not None
            said = f"node {new.metadata.name} can't enforce it: {error.message}"
            for about in self._policies_of(error.rule_set):
                self._events.post(about, "Warning", POLICY_NOT_ENFORCED, said)

    def _policies_of(self, rule_set: str) -> list[Reference]:
        found = []
        cluster = self._cluster.stream.store if self._cluster.stream else {}
        for said in self._publication.policies_of(rule_set):
            kind, _, name = said.partition(" ")
            seen: Any = (self._network.store if kind == "NetworkPolicy" else cluster).get(name)
            if seen is not None:
                found.append(_reference((kind, seen.metadata.namespace, seen.metadata.name), seen.metadata.uid))
        return found


def _reference(key: tuple[str, str, str], uid: str) -> Reference:
    kind, namespace, name = key
    resource = NETWORK_POLICIES if kind == "NetworkPolicy" else CLUSTER_POLICIES
    return Reference(resource.api_version, kind, name, uid, namespace)
