"""Policies on a real API server: the operator keeps the compiled objects as a fresh compilation makes them."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.deploy import install, wait
from tests.cluster.kubectl import Kubectl, Refused
from tests.controller.acting import API, Operators, active, blocks, node, pool, publish
from tests.controller.policies import CLUSTER_POLICIES, DEFINITION, Object, admits, app, condition, denies, namespace, pod
from tests.kube.watching import put_many
from tests.policy.compiling import Objects, fresh
from tortie.api.compiled import AddressSetSpec, NodePolicySpec, RuleSetSpec
from tortie.api.meta import LOG_DENIALS
from tortie.controller import policies
from tortie.controller.operator import Operator
from tortie.controller.settings import Settings
from tortie.kube.client import Client
from tortie.kube.errors import Gone
from tortie.policy import delivery
from tortie.policy.compiler import Changes, Compiler


@pytest.fixture
def shop(cluster: Kubectl) -> Iterator[Kubectl]:
    """A cluster with a pool, two nodes and a namespace; all of it, and the policies, are gone afterwards."""
    cluster.apply(pool(), node("a", zone="one"), node("b"), namespace("shop", team="x"))
    yield cluster
    cluster.run("delete", "pods,networkpolicies", "--all", "--all-namespaces", "--grace-period=0", "--force")
    cluster.run("delete", "namespace", "shop", "--wait=false")
    cluster.run("delete", "crd", CLUSTER_POLICIES, "--ignore-not-found")
    finalize(cluster, "shop")
    wait("the namespace is gone", lambda: "shop" not in cluster.run("get", "namespaces", "-o", "name"))


def finalize(cluster: Kubectl, name: str) -> None:
    """End a namespace: there is no controller that would."""
    body = cluster.get("namespace", name)
    body["spec"]["finalizers"] = []
    cluster.run("replace", "--raw", f"/api/v1/namespaces/{name}/finalize", "-f", "-", stdin=json.dumps(body))


def held(cluster: Kubectl) -> Objects:
    """The compiled objects as the API server has them."""
    found = Objects()
    for one in cluster.get("rulesets,addresssets,nodepolicies")["items"]:
        name, spec = one["metadata"]["name"], one["spec"]
        match one["kind"]:
            case "RuleSet":
                found.rule_sets[name] = msgspec.convert(spec, RuleSetSpec)
            case "AddressSet":
                found.address_sets[name] = msgspec.convert(spec, AddressSetSpec)
            case "NodePolicy":
                found.node_policies[name] = msgspec.convert(spec, NodePolicySpec)
    return found


def wanted(cluster: Kubectl) -> Objects:
    """What a fresh compilation makes of all that there is."""
    kinds = ["namespaces", "nodes", "pods", "networkpolicies"]
    if CLUSTER_POLICIES in cluster.run("get", "crds", "-o", "name"):
        kinds.append("clusternetworkpolicies")
    world = {kind: cluster.get(kind, "--all-namespaces")["items"] for kind in kinds}
    claimed = [
        {
            "name": block["metadata"]["name"],
            "node": block["spec"]["affinity"]["node"],
            "claims": {one["address"]: one["uid"] for one in block.get("status", {}).get("allocations", ())},
        }
        for block in blocks(cluster)
    ]
    return fresh({**world, "blocks": claimed})


def differences(cluster: Kubectl) -> list[object]:
    """Return what the API server has beside what it should have; nothing where it is right."""
    now, new = held(cluster), wanted(cluster)
    pairs: list[tuple[object, object]] = [
        (now.rule_sets, new.rule_sets),
        (now.sets(), new.sets()),
        (now.node_policies, new.node_policies),
    ]
    return [pair for pair in pairs if pair[0] != pair[1]]


def settle(cluster: Kubectl, *, rules: int) -> None:
    """Wait until the API server has what a fresh compilation makes, which is so many RuleSets."""
    try:
        wait("the compiled objects are right", lambda: not differences(cluster) and len(held(cluster).rule_sets) == rules)
    except TimeoutError:
        assert (differences(cluster), len(held(cluster).rule_sets)) == ([], rules)
        raise


def claim(cluster: Kubectl, where: str, *pods: str) -> list[str]:
    """Publish an address for each of these pods, as the agent of a node would; return them."""
    (block,) = (one for one in blocks(cluster, node=where) if one["spec"]["active"])
    first = block["spec"]["cidr"].partition("/")[0].rpartition(".")
    found = [cluster.get("pod", "-n", "shop", name)["metadata"] for name in pods]
    made = [
        {
            "address": f"{first[0]}.{int(first[2]) + n}",
            "sequence": n + 1,
            "namespace": "shop",
            "pod": meta["name"],
            "uid": meta["uid"],
        }
        for n, meta in enumerate(found)
    ]
    publish(cluster, block["metadata"]["name"], epoch=where, sequence=len(made), free=64 - len(made), allocations=made)
    return [str(one["address"]) for one in made]


def is_logged(cluster: Kubectl, said: str) -> bool:
    return any(spec.log for spec in held(cluster).rule_sets.values()) == (said == "true")


def members(cluster: Kubectl) -> set[str]:
    return {address for chunk in held(cluster).address_sets.values() for address in chunk.addresses}


def endpoints(cluster: Kubectl, name: str) -> list[str]:
    policy = held(cluster).node_policies.get(name, NodePolicySpec())
    return sorted(one.name for group in policy.groups for one in group.endpoints)


def versions(cluster: Kubectl) -> dict[str, str]:
    listed = cluster.get("rulesets,addresssets,nodepolicies")["items"]
    return {f"{one['kind']} {one['metadata']['name']}": one["metadata"]["resourceVersion"] for one in listed}


def test_create_change_and_delete_of_every_input(shop: Kubectl, operators: Operators) -> None:
    operators()
    wait("blocks", lambda: len(active(shop, "a")) == len(active(shop, "b")) == 1)
    shop.apply(pod("web-1", "a"), pod("db-1", "b"))
    wait("the pods are endpoints", lambda: endpoints(shop, "a") == ["web-1"] and endpoints(shop, "b") == ["db-1"])
    settle(shop, rules=0)
    shop.apply(admits("db", "db", "web"))
    settle(shop, rules=1)
    (web,), (_db,) = claim(shop, "a", "web-1"), claim(shop, "b", "db-1")
    wait("the address of the peer is known", lambda: members(shop) == {web})
    settle(shop, rules=1)
    shop.apply(admits("db", "db", "web", port=5432))
    wait("the port is another", lambda: "5432" in shop.run("get", "rulesets", "-o", "yaml"))
    shop.apply(admits("web", "web", "db"), pod("db-2", "a"))
    settle(shop, rules=2)
    shop.run("label", "pod", "-n", "shop", "web-1", "app=other", "--overwrite")
    wait("the peer is one no more", lambda: web not in members(shop))
    settle(shop, rules=1)  # nobody has the port that the other one names
    shop.apply(DEFINITION)
    shop.run("wait", "crd", CLUSTER_POLICIES, "--for=condition=Established")
    wait("policies are taken", lambda: "denies" in shop.apply(denies("denies", {"nodes": {"matchLabels": {"zone": "one"}}})))
    settle(shop, rules=2)
    shop.run("patch", "node", "a", "--subresource=status", "--type=merge", "-p", json.dumps(
        {"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}}
    ))  # fmt: skip
    wait("the node's address is a peer's", lambda: "192.0.2.1" in members(shop))
    shop.run("label", "node", "a", "zone=two", "--overwrite")
    wait("it is none any more", lambda: "192.0.2.1" not in members(shop))
    shop.apply(denies("denies", {"namespaces": {"matchLabels": {"team": "y"}}}))
    settle(shop, rules=2)
    shop.run("label", "namespace", "shop", "team=y", "--overwrite")
    wait("the namespace's pods are peers", lambda: web in members(shop))
    settle(shop, rules=2)
    for kind, name, said in (("namespace", "shop", "true"), ("namespace", "shop", "false"), ("networkpolicy", "db", "true")):
        shop.run("annotate", kind, "-n", "shop", name, f"{LOG_DENIALS}={said}", "--overwrite")
        wait("its denials are logged or not", partial(is_logged, shop, said))
        settle(shop, rules=2)
    shop.run("annotate", "networkpolicy", "-n", "shop", "db", f"{LOG_DENIALS}=yes", "--overwrite")
    wait("what is neither true nor false is said", lambda: "'yes', and not" in shop.run("get", "events", "-n", "shop"))
    shop.run("delete", "crd", CLUSTER_POLICIES)
    settle(shop, rules=1)
    shop.run("delete", "networkpolicies", "-n", "shop", "--all")
    settle(shop, rules=0)
    assert held(shop).address_sets == {}
    shop.run("delete", "pods", "-n", "shop", "--all", "--force")
    wait("no endpoints", lambda: endpoints(shop, "a") == endpoints(shop, "b") == [])
    shop.run("delete", "node", "b")
    wait("its NodePolicy is gone", lambda: set(held(shop).node_policies) == {"a"})


def test_after_a_restart_nothing_that_is_right_is_written(shop: Kubectl, operators: Operators) -> None:
    first = operators("--lease-duration", "3")
    wait("blocks", lambda: len(active(shop, "a")) == len(active(shop, "b")) == 1)
    shop.apply(pod("web-1", "a"), pod("db-1", "b"), admits("db", "db", "web"), admits("web", "web", "db"))
    settle(shop, rules=2)
    claim(shop, "a", "web-1")
    settle(shop, rules=2)
    first.kill()
    first.wait()
    before = versions(shop)
    shop.run("delete", "ruleset", min(held(shop).rule_sets))  # what is wrong is written
    shop.apply({"apiVersion": API, "kind": "RuleSet", "metadata": {"name": "left-behind"}, "spec": {"tier": "Admin"}})
    operators("--lease-duration", "3")
    settle(shop, rules=2)
    after = versions(shop)
    assert after.keys() == before.keys()
    assert [name for name in before if before[name] != after[name]] == [f"RuleSet {min(held(shop).rule_sets)}"]


def test_what_others_change_is_mended(shop: Kubectl, operators: Operators) -> None:
    operators()
    wait("blocks", lambda: len(active(shop, "a")) == 1)
    shop.apply(pod("web-1", "a"), pod("db-1", "b"), admits("db", "db", "web"))
    settle(shop, rules=1)
    claim(shop, "a", "web-1")
    settle(shop, rules=1)
    for kind in ("addresssets", "rulesets", "nodepolicies"):
        shop.run("delete", kind, "--all")
        settle(shop, rules=1)
    name = min(held(shop).rule_sets)
    shop.run("patch", "ruleset", name, "--type=merge", "-p", '{"spec":{"rules":[]},"metadata":{"labels":null}}')
    settle(shop, rules=1)
    wait("its labels are back", lambda: delivery.node_label("b") in shop.get("ruleset", name)["metadata"]["labels"])


def test_only_nodes_that_use_an_object_get_it_until_many_do(shop: Kubectl, operators: Operators) -> None:
    operators()
    many = [f"n{number}" for number in range(delivery.WIDE_ABOVE)]
    shop.apply(*map(node, many), admits("db", "db", "web"), pod("db-0", "a"), pod("web-0", "b"))
    settle(shop, rules=1)
    (name,) = held(shop).rule_sets

    def labels(kind: str) -> set[str]:
        return set(shop.get(kind)["items"][0]["metadata"].get("labels", {}))

    wait("for the one node that uses it", lambda: labels("rulesets") == labels("addresssets") == {delivery.node_label("a")})
    shop.apply(*(pod(f"db-{number}", where) for number, where in enumerate(many, 1)))
    wait("for all", lambda: labels("rulesets") == labels("addresssets") == {delivery.WIDE})
    settle(shop, rules=1)
    shop.run("delete", "pod", "-n", "shop", "--force", *(f"db-{number}" for number in range(1, 1 + len(many))))
    wait("for one again", lambda: labels("rulesets") == labels("addresssets") == {delivery.node_label("a")})
    assert set(held(shop).rule_sets) == {name}


def test_claims_that_can_t_be_are_ignored_with_an_event(shop: Kubectl, operators: Operators) -> None:
    operators()
    wait("blocks", lambda: len(active(shop, "a")) == len(active(shop, "b")) == 1)
    shop.apply(pod("db-1", "a"), pod("web-1", "b"), pod("web-2", "a", hostNetwork=True), pod("web-3", "a"))
    shop.apply(admits("db", "db", "web"))
    settle(shop, rules=1)
    (block,) = blocks(shop, node="a")
    base = block["spec"]["cidr"].rpartition(".")[0]
    uid = {name: shop.get("pod", "-n", "shop", name)["metadata"]["uid"] for name in ("db-1", "web-1", "web-2", "web-3")}
    rows = [("8.8.8.8", "web-3"), (f"{base}.1", "web-1"), (f"{base}.2", "web-2"), (f"{base}.3", "web-3")]
    allocations = [
        {"address": address, "sequence": number + 1, "namespace": "shop", "pod": name, "uid": uid[name]}
        for number, (address, name) in enumerate(rows)
    ]
    publish(shop, block["metadata"]["name"], epoch="a", sequence=4, free=60, allocations=allocations)
    wait("the one that fits is believed", lambda: members(shop) == {f"{base}.3"})
    for said in (
        "node a: 8.8.8.8 is not in the block; no policy counts it",
        f"{base}.1 is said to be of pod shop/web-1, which runs on node b",
        f"{base}.2 is said to be of pod shop/web-2, which uses its node's own addresses",
    ):
        wait(said, lambda said=said: said in shop.run("get", "events", "--field-selector=reason=ClaimIgnored"))  # type: ignore[misc]
    # The same addresses, said to be of pods that nobody knows: they belong to nobody's labels.
    for one in allocations:
        one["uid"] = "another"
    publish(shop, block["metadata"]["name"], epoch="a", sequence=5, free=60, allocations=allocations)
    wait("nobody has them", lambda: members(shop) == set())


def test_a_cluster_network_policy_that_can_t_be_kept_says_so(shop: Kubectl, operators: Operators) -> None:
    operators()
    shop.apply(DEFINITION)
    shop.run("wait", "crd", CLUSTER_POLICIES, "--for=condition=Established")
    wait("policies are taken", lambda: "names" in shop.apply(denies("names", {"domainNames": ["example.org"]})))
    wait("it is refused", lambda: condition(shop, "names", "Accepted").get("status") == "False")
    refused = condition(shop, "names", "Accepted")
    assert refused["reason"] == "NotSupported"
    assert "spec.egress[0]: a peer of kind 'domainNames' can't be kept; it denies everything" in refused["message"]
    wait("an Event", lambda: "domainNames" in shop.run("get", "events", "--field-selector=reason=PolicyNotRealized"))
    other = {"type": "Other", "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    patch = json.dumps({"status": {"conditions": [refused, other]}})
    shop.run("patch", "clusternetworkpolicy", "names", "--subresource=status", "--type=merge", "-p", patch)
    shop.apply(denies("names", {"namespaces": {}}))
    wait("it is accepted", lambda: condition(shop, "names", "Accepted").get("status") == "True")
    assert condition(shop, "names", "Other") == other, "what others say stays"


def test_an_object_that_can_t_be_written_holds_up_no_other(
    shop: Kubectl, operators: Operators, control_plane: ControlPlane
) -> None:
    """An admission rule of somebody else refuses one node's NodePolicy."""
    with refusing(shop, "nodepolicies", "object.metadata.name == 'a'"):
        operators()
        shop.apply(pod("db-1", "a"), pod("db-2", "b"), admits("db", "db", "web"))
        wait("the other node has its rules", lambda: endpoints(shop, "b") == ["db-2"] and len(held(shop).rule_sets) == 1)
        wait("it is said", lambda: "NodePolicy a can't be written" in control_plane.log("operator").read_text())
    wait("it is written when it may be", lambda: endpoints(shop, "a") == ["db-1"])
    settle(shop, rules=1)


@contextmanager
def refusing(cluster: Kubectl, plural: str, expression: str) -> Iterator[None]:
    """Have the API server refuse objects of this kind of which an expression holds."""
    rule = {
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "refusing"},
        "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": ["tortie.dev"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": [plural],
            }]},
            "validations": [{"expression": f"object.metadata.name != 'probe' && !({expression})", "message": "not here"}],
        },
    }  # fmt: skip
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "refusing"}, "spec": {"policyName": "refusing", "validationActions": ["Deny"]},
    }  # fmt: skip
    kind = {"nodepolicies": ("NodePolicy", {}), "addresssets": ("AddressSet", {"set": "probe", "chunk": 0})}[plural]
    probe = {"apiVersion": API, "kind": kind[0], "metadata": {"name": "probe"}, "spec": kind[1]}
    cluster.apply(rule, binding)
    try:
        wait("it refuses", lambda: refuses(cluster, probe))
        yield
    finally:
        cluster.run("delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", "refusing")


def refuses(cluster: Kubectl, body: Object) -> bool:
    try:
        cluster.run("create", "-f", "-", "--dry-run=server", stdin=json.dumps(body))
    except Refused as error:
        return "not here" in str(error)
    return False


def test_pods_come_and_go_in_hundreds(shop: Kubectl, operators: Operators) -> None:
    """A burst ends in what a fresh compilation makes."""
    operators()
    shop.apply(admits("db", "db", "web"), pod("db-0", "b"), *(pod(f"web-{number}", "a") for number in range(60)))
    wait("a block", lambda: len(active(shop, "a")) >= 1)
    claim(shop, "a", *(f"web-{number}" for number in range(60)))
    settle(shop, rules=1)
    shop.run("delete", "pods", "-n", "shop", "-l", "app=web", "--force")
    wait("no members", lambda: members(shop) == set())
    settle(shop, rules=1)


def test_an_address_that_deny_rules_name_is_confirmed_once_the_sets_hold_it(shop: Kubectl, operators: Operators) -> None:
    """While somebody's admission rule keeps a set from being written, nothing is confirmed."""
    operators()
    wait("blocks", lambda: len(active(shop, "a")) == 1)
    shop.apply(DEFINITION, pod("web-1", "a"))
    shop.run("wait", "crd", CLUSTER_POLICIES, "--for=condition=Established")
    wait("policies are taken", lambda: "denies" in shop.apply(denies("denies", app("web"))))

    def confirmed() -> list[tuple[bool, tuple[str, ...]]]:
        policy = held(shop).node_policies.get("a", NodePolicySpec())
        return [(group.confirm, one.confirmed) for group in policy.groups for one in group.endpoints]

    wait("the pod is marked", lambda: confirmed() == [(True, ())])
    with refusing(shop, "addresssets", "size(object.spec.addresses) > 0"):
        (address,) = claim(shop, "a", "web-1")
        shop.apply(pod("web-2", "a"))
        wait("the set isn't written, the NodePolicy is", lambda: confirmed() == [(True, ()), (True, ())])
        assert members(shop) == set()
    wait("it is confirmed", lambda: confirmed() == [(True, (address,)), (True, ())])
    assert members(shop) == {address}


class Deaf(Client):
    """A client whose watches of RuleSets give nothing once `deaf` is set, and are too old once `hears` is."""

    deaf: asyncio.Event
    hears: asyncio.Event

    @asynccontextmanager
    async def watch(self, path: str, *, idle: float, **query: str) -> AsyncIterator[AsyncIterator[bytes]]:
        async with super().watch(path, idle=idle, **query) as chunks:
            yield self._until_deaf(chunks) if path.endswith("/rulesets") else chunks

    async def _until_deaf(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            if self.deaf.is_set() and not self.hears.is_set():
                await self.hears.wait()
                raise Gone("too old resource version", "WATCH rulesets")
            yield chunk


@asynccontextmanager
async def operating(client: Client) -> AsyncIterator[None]:
    """Run an operator in this process; it ends with the block, and not before."""
    running = asyncio.create_task(Operator(client, Settings(), lambda: True).run())
    yield
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_deletion_that_only_a_new_list_shows_is_mended(control_plane: ControlPlane, shop: Kubectl) -> None:
    """The answer of a write was newer than what the watch had shown; then the object went, and the watch with it."""
    async with Deaf.connect(str(control_plane.kubeconfig)) as client:
        client.deaf, client.hears = asyncio.Event(), asyncio.Event()
        async with operating(client):
            shop.apply(pod("web-1", "a"), pod("db-1", "b"), admits("db", "db", "web", port=80))
            await asyncio.to_thread(settle, shop, rules=1)
            (name,) = held(shop).rule_sets
            client.deaf.set()
            shop.apply(admits("db", "db", "web", port=5432))
            await asyncio.to_thread(wait, "it is another", lambda: "5432" in shop.run("get", "ruleset", name, "-o", "yaml"))
            shop.run("delete", "ruleset", name)
            client.hears.set()
            await asyncio.to_thread(settle, shop, rules=1)


async def test_policies_after_an_etcd_was_restored_from_a_backup() -> None:
    """What was written since is gone, and its versions with it: nothing is written for ever at versions that never were.

    The backup is far behind all that the operator saw: a server whose versions have caught up can't be told from before.
    """
    with ControlPlane() as plane:
        cluster = Kubectl(plane.kubeconfig)
        install(cluster)
        cluster.apply(pool(), node("a"), node("b"), namespace("shop"), pod("db-1", "a"), admits("db", "db", "web", port=80))
        async with Client.connect(str(plane.kubeconfig)) as client:
            async with operating(client):
                await asyncio.to_thread(settle, cluster, rules=1)
            await asyncio.to_thread(with_storage_away, plane, shutil.copytree)
            await put_many(client, "shop", [f"later-{number}" for number in range(1_000)])
            async with operating(client):
                for port in range(81, 90):
                    cluster.apply(admits("db", "db", "web", port=port))
                    await asyncio.to_thread(settle, cluster, rules=1)
                await asyncio.to_thread(with_storage_away, plane, put_back)
                assert "port: 80" in cluster.run("get", "networkpolicy", "db", "-n", "shop", "-o", "yaml")
                cluster.apply(admits("db", "db", "web", port=443))
                await asyncio.to_thread(settle, cluster, rules=1)


def with_storage_away(plane: ControlPlane, do: Callable[[Path, Path], object]) -> None:
    for part in ("kube-apiserver", "etcd"):
        plane.stop(part)
    do(plane.folder / "etcd", plane.folder / "backup")
    for part in ("etcd", "kube-apiserver"):
        plane.start(part)
    plane.wait_ready()


def put_back(etcd: Path, backup: Path) -> None:
    shutil.rmtree(etcd)
    backup.rename(etcd)


async def test_a_mistake_of_ours_in_compiling_is_recovered_from(
    control_plane: ControlPlane, shop: Kubectl, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is published stays and nodes get blocks meanwhile; then all is compiled from the beginning."""
    fails, real = False, Compiler.take

    def take(self: Compiler) -> Changes:
        made = real(self)  # so what is lost is lost
        if fails:
            raise IndexError("odd")
        return made

    monkeypatch.setattr(Compiler, "take", take)
    monkeypatch.setattr(policies, "ANEW", 0.5)

    async def during(does: Callable[..., object], *args: object, **options: object) -> None:
        await asyncio.to_thread(does, *args, **options)

    async with Client.connect(str(control_plane.kubeconfig)) as client, operating(client):
        shop.apply(pod("web-1", "a"), pod("db-1", "b"), admits("db", "db", "web"))
        await during(settle, shop, rules=1)
        before, fails = versions(shop), True
        shop.apply(admits("web", "web", "db"), node("c"), pod("db-2", "c"))
        shop.run("delete", "networkpolicy", "-n", "shop", "db")
        await during(wait, "it is said, twice", lambda: caplog.text.count("policies can't be compiled") > 1)
        await during(wait, "the new node has a block", lambda: len(active(shop, "c")) == 1)
        assert versions(shop) == before
        fails = False
        await during(settle, shop, rules=1)
        assert endpoints(shop, "c") == ["db-2"]


def test_a_kind_that_comes_and_goes_and_comes(shop: Kubectl, operators: Operators) -> None:
    operators()
    for _ in range(3):
        shop.apply(DEFINITION)
        shop.run("delete", "crd", CLUSTER_POLICIES)
    shop.apply(pod("db-1", "a"), admits("db", "db", "web"))
    settle(shop, rules=1)
    shop.apply(DEFINITION)
    shop.run("wait", "crd", CLUSTER_POLICIES, "--for=condition=Established")
    wait("policies are taken", lambda: "denies" in shop.apply(denies("denies", app("web"))))
    settle(shop, rules=2)
