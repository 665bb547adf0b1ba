"""Lists and watches as they come over the wire, decoded.

Belongs here: pages, watch lines, and what to do with one object that doesn't decode. Does not: state or I/O.
"""

from typing import Any, Generic, Protocol, TypeVar, Union

import msgspec

from tortie.kube.errors import Status
from tortie.kube.resource import key_of


class Metadata(Protocol):
    """The part of an object's metadata that streams need; a msgspec struct with `rename="camel"` has it."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def namespace(self) -> str: ...  # noqa: D102
    @property
    def uid(self) -> str: ...  # noqa: D102
    @property
    def resource_version(self) -> str: ...  # noqa: D102


class Object(Protocol):
    """An object of the API server, as a struct."""

    @property
    def metadata(self) -> Metadata: ...  # noqa: D102


T = TypeVar("T", bound=Object)


def key(item: Object) -> str:
    """Return the name under which a store keeps `item`."""
    return key_of(item.metadata.name, item.metadata.namespace)


class _Name(msgspec.Struct, rename="camel"):
    name: str = "?"
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""


class Named(msgspec.Struct):
    """As much of an object as any has: enough to say which one it is, or was."""

    metadata: _Name


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class Page(msgspec.Struct, Generic[T]):
    """One page of a list. `unread` holds what didn't decode: which object, and why."""

    version: str
    continue_: str
    items: list[T]
    unread: list[tuple[str, str]] = []


class _RawPage(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


class Added(msgspec.Struct, Generic[T], tag_field="type", tag="ADDED"):
    """An object is there, now or as the watch began."""

    object: T


class Modified(msgspec.Struct, Generic[T], tag_field="type", tag="MODIFIED"):
    """An object has changed."""

    object: T


class Deleted(msgspec.Struct, tag_field="type", tag="DELETED"):
    """An object is gone; read just enough to know which, so that no form of it can hide that."""

    object: Named


class Bookmark(msgspec.Struct, tag_field="type", tag="BOOKMARK"):
    """Everything up to this version has been sent."""

    object: Named


class Failure(msgspec.Struct, tag_field="type", tag="ERROR"):
    """The watch can't go on."""

    object: Status


class Unread(msgspec.Struct):
    """An event whose object doesn't have the declared form."""

    object: Named
    why: str


Event = Added[T] | Modified[T] | Deleted | Bookmark | Failure | Unread


class _RawEvent(msgspec.Struct):
    object: Named


class Codec(Generic[T]):
    """Decoders of one kind's pages and watch lines."""

    def __init__(self, kind: type[T]) -> None:
        class TypedPage(msgspec.Struct):
            metadata: _ListMeta
            items: list[kind] | None = None  # type: ignore[valid-type]

        # A tagged union is decoded in one pass, in half the time that reading the type first takes (2.1 µs a 2 KB pod).
        events = Union[Added[kind], Modified[kind], Deleted, Bookmark, Failure]  # type: ignore[valid-type] # noqa: UP007
        self._item: msgspec.json.Decoder[T] = msgspec.json.Decoder(kind)
        self._page: msgspec.json.Decoder[Any] = msgspec.json.Decoder(TypedPage)
        self._event: msgspec.json.Decoder[Any] = msgspec.json.Decoder(events)

    def page(self, body: bytes) -> Page[T]:
        """Decode one page; objects that don't decode are set apart. Raises msgspec.DecodeError if it is no list."""
        try:
            typed = self._page.decode(body)
            return Page(typed.metadata.resource_version, typed.metadata.continue_, typed.items or [])
        except msgspec.ValidationError:
            return self._page_one_by_one(body)

    def _page_one_by_one(self, body: bytes) -> Page[T]:
        raw = msgspec.json.decode(body, type=_RawPage)
        page: Page[T] = Page(raw.metadata.resource_version, raw.metadata.continue_, [])
        for item in raw.items or []:
            try:
                page.items.append(self._item.decode(item))
            except msgspec.ValidationError as error:
                page.unread.append((key(msgspec.json.decode(item, type=Named)), str(error)))
        return page

    def event(self, line: bytes) -> Event[T]:
        """Decode one line of a watch. Raises msgspec.DecodeError if it is no event at all."""
        try:
            event: Event[T] = self._event.decode(line)
        except msgspec.ValidationError as error:
            return Unread(msgspec.json.decode(line, type=_RawEvent).object, str(error))
        return event
