"""Pages and watch lines, well-formed and not."""

import msgspec
import pytest

from tests.kube.watching import ConfigMap, Metadata
from tortie.kube.wire import Added, Bookmark, Codec, Deleted, Failure, Modified, Unread

CODEC = Codec(ConfigMap)
GOOD = b'{"metadata":{"name":"a","namespace":"n","uid":"u","resourceVersion":"7"},"data":{"k":"v"},"more":[1,2]}'
BAD = b'{"metadata":{"name":"b","namespace":"n","resourceVersion":"8"},"data":{"k":5}}'
ITEM = ConfigMap(Metadata("a", "n", "u", "7"), {"k": "v"})


def test_added_and_modified_are_typed() -> None:
    assert CODEC.event(b'{"type":"ADDED","object":' + GOOD + b"}") == Added(ITEM)
    assert CODEC.event(b'{"type":"MODIFIED","object":' + GOOD + b"}") == Modified(ITEM)


def test_the_type_may_stand_behind_the_object() -> None:
    assert CODEC.event(b'{"object":' + GOOD + b',"type":"ADDED"}') == Added(ITEM)


def test_a_bookmark_holds_only_a_version() -> None:
    event = CODEC.event(b'{"type":"BOOKMARK","object":{"kind":"ConfigMap","metadata":{"resourceVersion":"9"}}}')
    assert isinstance(event, Bookmark)
    assert event.object.metadata.resource_version == "9"


def test_an_error_holds_a_status() -> None:
    event = CODEC.event(b'{"type":"ERROR","object":{"kind":"Status","metadata":{},"code":410,"reason":"Expired"}}')
    assert isinstance(event, Failure)
    assert event.object.code == 410


def test_undecodable_object_is_named_with_its_field() -> None:
    event = CODEC.event(b'{"type":"MODIFIED","object":' + BAD + b"}")
    assert isinstance(event, Unread)
    assert (event.object.metadata.name, event.object.metadata.resource_version) == ("b", "8")
    assert event.why == "Expected `str`, got `int` - at `$.object.data[...]`"


def test_a_deletion_is_read_whatever_form_the_object_has() -> None:
    event = CODEC.event(b'{"type":"DELETED","object":' + BAD + b"}")
    assert isinstance(event, Deleted)
    assert event.object.metadata.name == "b"


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b'{"type":"SURPRISE"}', b'"ADDED"', b"\xff"])
def test_what_is_no_event_is_refused(line: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        CODEC.event(line)


def test_page() -> None:
    page = CODEC.page(b'{"metadata":{"resourceVersion":"12","continue":"more"},"items":[' + GOOD + b"]}")
    assert (page.version, page.continue_, page.items, page.unread) == ("12", "more", [ITEM], [])


def test_undecodable_objects_of_a_page_are_set_apart() -> None:
    page = CODEC.page(b'{"metadata":{"resourceVersion":"12"},"items":[' + BAD + b"," + GOOD + b"]}")
    assert page.items == [ITEM]
    assert page.unread == [("n/b", "Expected `str`, got `int` - at `$.data[...]`")]


def test_an_empty_page_may_have_no_items() -> None:
    assert CODEC.page(b'{"metadata":{"resourceVersion":"12"},"items":null}').items == []
