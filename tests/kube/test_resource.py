"""Paths and keys."""

import pytest

from tortie.kube.resource import Resource, is_older, key_of

PODS = Resource("", "v1", "pods", namespaced=True)
POOLS = Resource("tortie.dev", "v1alpha1", "ippools")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param(PODS.path(), "/api/v1/pods", id="core, all namespaces"),
        pytest.param(PODS.path(namespace="a"), "/api/v1/namespaces/a/pods", id="core, one namespace"),
        pytest.param(PODS.path("p", namespace="a"), "/api/v1/namespaces/a/pods/p", id="one object"),
        pytest.param(POOLS.path("p"), "/apis/tortie.dev/v1alpha1/ippools/p", id="of a group"),
        pytest.param(POOLS.path("p", subresource="status"), "/apis/tortie.dev/v1alpha1/ippools/p/status", id="subresource"),
        pytest.param(POOLS.path("../x?y"), "/apis/tortie.dev/v1alpha1/ippools/..%2Fx%3Fy", id="a name can't leave its place"),
    ],
)
def test_path(path: str, expected: str) -> None:
    assert path == expected


def test_a_namespace_for_a_cluster_scoped_kind_is_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"cluster-scoped kind @ ippools\.tortie\.dev"):
        POOLS.path("p", namespace="a")


def test_keys() -> None:
    assert (key_of("p", "a"), key_of("n")) == ("a/p", "n")


@pytest.mark.parametrize(
    ("version", "than", "older"),
    [
        ("9", "10", True),
        ("10", "9", False),
        ("10", "10", False),
        ("", "10", False),
        ("x", "10", False),
        ("1", "", False),
    ],
)
def test_versions_are_compared_as_numbers(version: str, than: str, older: bool) -> None:
    assert is_older(version, than) is older
