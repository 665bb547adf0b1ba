"""Where a kind of object lives on the API server.

Belongs here: group, version and plural, and the paths made of them. Does not: what the objects hold.
"""

from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Resource:
    """One served kind, as `kubectl api-resources` lists it; the core group's name is empty."""

    group: str
    version: str
    plural: str
    namespaced: bool = False

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        """What objects of this kind carry in `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, name: str = "", *, namespace: str = "", subresource: str = "") -> str:
        """Return the path of one object, or without a name of the collection; no namespace means all of them."""
        if namespace and not self.namespaced:
            raise ValueError(f"namespace {namespace!r} given for a cluster-scoped kind @ {self}; leave it out")
        root = "apis" if self.group else "api"
        parts = [root, self.api_version, *(["namespaces", quote(namespace, safe="")] if namespace else []), self.plural]
        return "/" + "/".join(parts + [quote(part, safe="") for part in (name, subresource) if part])


def key_of(name: str, namespace: str = "") -> str:
    """Return the name under which a store keeps an object: `namespace/name`, or `name` when cluster-scoped."""
    return f"{namespace}/{name}" if namespace else name


def is_older(version: str, than: str) -> bool:
    """Whether one resource version precedes another of the same kind; what isn't a number precedes nothing.

    Resource versions of one kind are comparable as integers: one etcd numbers them (KEP-5504 makes it a promise).
    """
    return version.isdigit() and than.isdigit() and int(version) < int(than)
