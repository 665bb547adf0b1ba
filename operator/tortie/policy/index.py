"""From labels to what selects them: pods in groups of equal labels, and the selectors that take each group.

A selector is looked for among those that need one of a group's label pairs, in the scopes of its namespace, so an event
costs what it changes, not what exists. Equal selectors are one `Match`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tortie.policy.labels import EVERYTHING, Pair, Selector, matches
from tortie.policy.policies import PodPeer
from tortie.policy.postings import Labelled, Selecting

# What a group's pods call their ports: name, protocol, number.
PodPort = tuple[str, str, int]
Labels = tuple[Pair, ...]


class Group:
    """Pods of one namespace with equal labels and equal named ports: no selector tells them apart."""

    __slots__ = ("key", "labels", "matches", "members", "namespace", "ports")

    def __init__(self, namespace: str, labels: Labels, ports: tuple[PodPort, ...]) -> None:
        self.key = namespace, labels, ports
        self.namespace, self.labels, self.ports = namespace, dict(labels), ports
        self.members: dict[Any, None] = {}  # the compiler's pods
        self.matches: dict[Match, None] = {}


class Match:
    """One selector of pods, and the groups that it takes; `users` keep it, whatever they are."""

    __slots__ = ("groups", "peer", "users")

    def __init__(self, peer: PodPeer) -> None:
        self.peer = peer
        self.groups: dict[Group, None] = {}
        self.users: dict[Any, None] = {}


class _Scope:
    """The selectors that begin with the same choice of namespaces, and the namespaces that it takes now."""

    __slots__ = ("matches", "namespaces")

    def __init__(self) -> None:
        self.namespaces: dict[str, None] = {}
        self.matches: Selecting[Match] = Selecting()


class Index:
    """All groups and all selectors. The order in which it is told makes no difference to what it holds.

    `on_change` is told of each group that comes under a match that has users (True), or goes.
    """

    def __init__(self, on_change: Callable[[Match, Group, bool], None]) -> None:
        self._on_change = on_change
        self._groups: dict[tuple[str, Labels, tuple[PodPort, ...]], Group] = {}
        self._matches: dict[PodPeer, Match] = {}
        self._groups_in: dict[str, Labelled[Group]] = {}
        self._labels: dict[str, Mapping[str, str]] = {}  # of namespaces
        self._namespaces: Labelled[str] = Labelled()
        self._fixed: dict[str, _Scope] = {}
        self._scopes: dict[Selector, _Scope] = {}
        self._scopes_by_labels: Selecting[Selector] = Selecting()
        self._scopes_of: dict[str, dict[_Scope, None]] = {}

    def group(self, namespace: str, labels: Labels, ports: tuple[PodPort, ...]) -> Group:
        """Return the group of such pods, made where there was none."""
        key = namespace, labels, ports
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(*key)
            self._groups_in.setdefault(namespace, Labelled()).add(group, group.labels)
            for scope in self._scopes_of.get(namespace, ()):
                for match in scope.matches.candidates(group.labels):
                    self._consider(match, group)
        return group

    def leave(self, group: Group) -> None:
        """Forget a group that has no pods any more."""
        del self._groups[group.key]
        named = self._groups_in[group.namespace]
        named.discard(group, group.labels)
        if not named:
            del self._groups_in[group.namespace]
        for match in list(group.matches):
            self._part(match, group)

    def match(self, peer: PodPeer) -> Match:
        """Return the match of a selector, made where there was none."""
        match = self._matches.get(peer)
        if match is None:
            match = self._matches[peer] = Match(peer)
            scope = self._scope(peer)
            scope.matches.add(match, peer.pods)
            for namespace in scope.namespaces:
                self._gather(match, namespace)
        return match

    def drop(self, match: Match) -> None:
        """Forget a match that nobody uses any more."""
        if match.users or self._matches.get(match.peer) is not match:
            return
        peer = match.peer
        del self._matches[peer]
        for group in match.groups:
            del group.matches[match]
        scope = self._scope(peer)
        scope.matches.discard(match, peer.pods)
        if scope.matches:
            return
        if peer.namespace is not None:
            del self._fixed[peer.namespace]
        else:
            del self._scopes[peer.namespaces]
            self._scopes_by_labels.discard(peer.namespaces, peer.namespaces)
        for namespace in scope.namespaces:
            self._unscope(namespace, scope)

    def knows(self, namespace: str) -> bool:
        """Whether a namespace's labels are known."""
        return namespace in self._labels

    def groups_in(self, namespace: str) -> Iterable[Group]:
        """Return the groups of a namespace."""
        named = self._groups_in.get(namespace)
        return list(named.candidates(EVERYTHING)) if named else ()

    def put_namespace(self, name: str, labels: Mapping[str, str]) -> None:
        """Take a namespace's labels, new or changed."""
        old = self._labels.get(name)
        if old == labels:
            return
        if old is not None:
            self._namespaces.discard(name, old)
        self._labels[name] = labels
        self._namespaces.add(name, labels)
        now = {one: None for one in self._scopes_by_labels.candidates(labels) if matches(one, labels)}
        before = [] if old is None else [s for s in self._scopes_by_labels.candidates(old) if s not in now]
        for selector in before:
            self._move(self._scopes[selector], name, here=False)
        for selector in now:
            self._move(self._scopes[selector], name, here=True)

    def drop_namespace(self, name: str) -> None:
        """Forget a namespace: no selector of namespaces takes it."""
        labels = self._labels.pop(name, None)
        if labels is not None:
            self._namespaces.discard(name, labels)
            for selector in list(self._scopes_by_labels.candidates(labels)):
                self._move(self._scopes[selector], name, here=False)

    def _scope(self, peer: PodPeer) -> _Scope:
        if peer.namespace is not None:
            scope = self._fixed.get(peer.namespace)
            if scope is None:
                scope = self._fixed[peer.namespace] = _Scope()
                self._enter(peer.namespace, scope)
            return scope
        scope = self._scopes.get(peer.namespaces)
        if scope is None:
            scope = self._scopes[peer.namespaces] = _Scope()
            self._scopes_by_labels.add(peer.namespaces, peer.namespaces)
            for name in self._namespaces.candidates(peer.namespaces):
                if matches(peer.namespaces, self._labels[name]):
                    self._enter(name, scope)
        return scope

    def _enter(self, namespace: str, scope: _Scope) -> None:
        scope.namespaces[namespace] = None
        self._scopes_of.setdefault(namespace, {})[scope] = None

    def _unscope(self, namespace: str, scope: _Scope) -> None:
        scopes = self._scopes_of[namespace]
        del scopes[scope]
        if not scopes:
            del self._scopes_of[namespace]

    def _move(self, scope: _Scope, namespace: str, *, here: bool) -> None:
        """Let a namespace come under a selector of namespaces, or go."""
        if here == (namespace in scope.namespaces):
            return
        if here:
            self._enter(namespace, scope)
            for match in scope.matches:
                self._gather(match, namespace)
            return
        del scope.namespaces[namespace]
        self._unscope(namespace, scope)
        for group in self.groups_in(namespace):
            for match in [one for one in group.matches if self._scope_of(one) is scope]:
                self._part(match, group)

    def _scope_of(self, match: Match) -> _Scope:
        peer = match.peer
        return self._fixed[peer.namespace] if peer.namespace is not None else self._scopes[peer.namespaces]

    def _gather(self, match: Match, namespace: str) -> None:
        named = self._groups_in.get(namespace)
        for group in list(named.candidates(match.peer.pods)) if named else ():
            self._consider(match, group)

    def _consider(self, match: Match, group: Group) -> None:
        if group not in match.groups and matches(match.peer.pods, group.labels):
            match.groups[group] = group.matches[match] = None
            if match.users:
                self._on_change(match, group, True)

    def _part(self, match: Match, group: Group) -> None:
        del match.groups[group]
        del group.matches[match]
        if match.users:
            self._on_change(match, group, False)
