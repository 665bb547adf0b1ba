"""Where Calico's objects are read: a cluster's API server, or manifests in files."""

import json
from typing import NamedTuple

import click

from tortie.api.calico_losses import CALICO_GROUPS, Object, group_of
from tortie.cli.ctl.cluster import NODES, list_all, list_path
from tortie.cli.ctl.files import read
from tortie.kube.client import Client
from tortie.kube.errors import NotFound
from tortie.kube.resource import Resource

# Calico's own order: a cluster that serves both keeps its objects in the first, and the second is a view of them
# (projectcalico/calico libcalico-go/lib/backend/k8s, UsingV3CRDs).
_APIS = (("crd.projectcalico.org", "v1"), ("projectcalico.org", "v3"))
# They are many, and say nothing that the translation heeds; a profile is a view of a namespace.
_UNREAD = frozenset({"blockaffinities", "ipamhandles", "caliconodestatuses", "clusterinformations", "profiles"})
_POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", namespaced=True)
_POLICY_GROUP = "policy.networking.k8s.io"


class Source(NamedTuple):
    """Objects in Calico's form or Kubernetes', each with its kind and apiVersion, and where they were read."""

    where: str
    objects: list[Object]


async def from_cluster(client: Client) -> Source:
    """Return what a cluster has of Calico, and what Calico enforces for Kubernetes; raises ApiError, ClickException."""
    for group, version in _APIS:
        kinds = await _served(client, f"/apis/{group}/{version}")
        if "ippools" in kinds:
            break
    else:
        raise click.ClickException(_NONE.format("neither crd.projectcalico.org/v1 nor projectcalico.org/v3 has IPPools"))
    objects = list[Object]()
    for plural, kind in sorted(kinds.items()):
        if plural not in _UNREAD:
            objects += _typed(await list_all(client, Resource(group, version, plural)), f"{group}/{version}", kind)
    if not objects:
        raise click.ClickException(_NONE.format(f"{group}/{version} is served and empty"))
    objects += _typed(await list_all(client, _POLICIES), _POLICIES.api_version, "NetworkPolicy")
    objects += _typed(await list_all(client, NODES), NODES.api_version, "Node")
    return Source(f"{group}/{version}", objects + await _cluster_policies(client))


_NONE = (
    "this cluster has no Calico objects ({}): is it the right one? --context chooses another cluster,"
    " and -f reads manifests from a file or a folder"
)


async def _served(client: Client, path: str) -> dict[str, str]:
    """Return the kinds by plural that an API version serves; empty where it isn't served."""
    try:
        listed = json.loads(await client.get(path))
    except NotFound:
        return {}
    return {one["name"]: one["kind"] for one in listed["resources"] if "/" not in one["name"] and "list" in one["verbs"]}


async def _cluster_policies(client: Client) -> list[Object]:
    """Return the policies for whole clusters, in the version that the server prefers."""
    try:
        group = json.loads(await client.get(f"/apis/{_POLICY_GROUP}"))
    except NotFound:
        return []
    version, found = group["preferredVersion"]["groupVersion"], list[Object]()
    for plural, kind in (await _served(client, f"/apis/{version}")).items():
        found += _typed(await list_path(client, f"/apis/{version}/{plural}"), version, kind)
    return found


def _typed(items: list[Object], version: str, kind: str) -> list[Object]:
    """Return items of a list with their type, which built-in lists leave out."""
    return [{"apiVersion": version, "kind": kind, **item} for item in items]


def from_files(path: str) -> Source:
    """Return the objects of a file, of every manifest in a folder, or of standard input (-); raises ClickException."""
    objects = [one for _, one in read(path)]
    if not any(group_of(one) in CALICO_GROUPS for one in objects):
        raise click.ClickException(
            f"{path} holds no Calico objects (apiVersion projectcalico.org/v3 or crd.projectcalico.org/v1):"
            " calicoctl get ippools -o yaml writes some"
        )
    return Source(path, objects)
