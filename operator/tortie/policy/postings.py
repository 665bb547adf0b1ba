"""The two halves of an inverted index: what is selected, by its label pairs, and selectors, by a pair that they need."""

from collections.abc import Hashable, Iterator, Mapping
from typing import Generic, TypeVar

from tortie.policy.labels import Pair, Selector, anchors

T = TypeVar("T", bound=Hashable)


class Labelled(Generic[T]):
    """Things with labels. Dicts without values are ordered sets: what comes out doesn't depend on hashes."""

    __slots__ = ("_by_pair",)

    def __init__(self) -> None:
        self._by_pair: dict[Pair | None, dict[T, None]] = {}

    def add(self, one: T, labels: Mapping[str, str]) -> None:
        """Take a thing."""
        for pair in (None, *labels.items()):
            self._by_pair.setdefault(pair, {})[one] = None

    def discard(self, one: T, labels: Mapping[str, str]) -> None:
        """Forget a thing that was added with these labels."""
        for pair in (None, *labels.items()):
            _remove(self._by_pair, pair, one)

    def candidates(self, selector: Selector) -> Iterator[T]:
        """Yield each of what a selector may take, and some that it doesn't; it must be asked itself."""
        for pair in anchors(selector) or (None,):
            yield from self._by_pair.get(pair, ())

    def __bool__(self) -> bool:
        return bool(self._by_pair)


class Selecting(Generic[T]):
    """Things that select."""

    __slots__ = ("_by_pair",)

    def __init__(self) -> None:
        self._by_pair: dict[Pair | None, dict[T, None]] = {}

    def add(self, one: T, selector: Selector) -> None:
        """Take a thing."""
        for pair in anchors(selector) or (None,):
            self._by_pair.setdefault(pair, {})[one] = None

    def discard(self, one: T, selector: Selector) -> None:
        """Forget a thing that was added with this selector."""
        for pair in anchors(selector) or (None,):
            _remove(self._by_pair, pair, one)

    def candidates(self, labels: Mapping[str, str]) -> Iterator[T]:
        """Yield each of what may select these labels; one twice where it has two of a key's values: none has."""
        for pair in (None, *labels.items()):
            yield from self._by_pair.get(pair, ())

    def __bool__(self) -> bool:
        return bool(self._by_pair)

    def __iter__(self) -> Iterator[T]:
        return iter({one: None for listed in self._by_pair.values() for one in listed})


def _remove(by_pair: dict[Pair | None, dict[T, None]], pair: Pair | None, one: T) -> None:
    listed = by_pair[pair]
    del listed[one]
    if not listed:
        del by_pair[pair]
