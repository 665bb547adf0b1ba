"""Whatever stands in a manifest, tortiectl answers or says what is wrong with it: it never breaks."""

import copy
import json
from collections.abc import Iterator
from typing import Any

from click.testing import CliRunner
from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.policy.clusters import CLUSTERS
from tests.policy.oracle import Cluster
from tortie.cli.ctl.main import main

KINDS = {
    "pods": ("v1", "Pod"),
    "namespaces": ("v1", "Namespace"),
    "nodes": ("v1", "Node"),
    "networkpolicies": ("networking.k8s.io/v1", "NetworkPolicy"),
    "clusternetworkpolicies": ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy"),
}
WRONG: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5),
    st.lists(st.none() | st.text(max_size=3), max_size=2),
    st.dictionaries(st.text(max_size=3), st.none() | st.integers(), max_size=2),
    st.sampled_from([{}, {"matchLabels": {}}, {"namespaces": {}}, {"range": {"start": 1, "end": 2}}, 2**70, "::/0"]),
)  # fmt: skip


def manifests(cluster: Cluster) -> list[dict[str, Any]]:
    return [
        {"apiVersion": version, "kind": kind, **one} for plural, (version, kind) in KINDS.items() for one in cluster[plural]
    ]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to each value that lies in another."""
    if path:
        yield path
    listed = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in listed:
        yield from places(one, (*path, key))


@given(CLUSTERS, st.data())
@settings(max_examples=60)
def test_nothing_breaks(cluster: Cluster, data: st.DataObject) -> None:
    listed = copy.deepcopy(manifests(cluster))
    for _ in range(data.draw(st.integers(0, 2))):
        *way, last = data.draw(st.sampled_from(list(places(listed))))
        into: Any = listed
        for key in way:
            into = into[key]
        into[last] = data.draw(WRONG)
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": listed})
    for command in ("lint", "matrix --port 80"):
        result = CliRunner().invoke(main, ["policy", *command.split(), "-f", "-"], input=text)
        assert result.exception is None or isinstance(result.exception, SystemExit), text
        assert result.exit_code in (0, 1, 3)
        if result.exit_code == 1:
            assert "document 1" in result.stderr
    event(f"exit status {result.exit_code}")


def test_a_document_that_holds_itself() -> None:
    text = "{apiVersion: v1, kind: Pod, metadata: &a {name: p, labels: *a}}"
    result = CliRunner().invoke(main, ["policy", "lint", "-f", "-"], input=text)
    assert (result.exit_code, "document 1" in result.stderr) == (1, True), result.exception
