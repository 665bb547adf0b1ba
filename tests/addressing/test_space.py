"""The buddy space agrees with a list of addresses, whatever is held and released in whatever order."""

from hypothesis import given
from hypothesis import strategies as st

from tortie.addressing.ranges import Range, merge, parse
from tortie.addressing.space import Space

WHOLE = parse("10.0.0.0/24")


@st.composite
def held_ranges(draw: st.DrawFn) -> Range:
    prefix = draw(st.integers(23, 32))
    start = draw(st.integers(WHOLE.start - 512, WHOLE.last + 256))
    return Range(4, start >> (32 - prefix) << (32 - prefix), prefix)


def free_addresses(held: list[Range]) -> set[int]:
    return {a for a in range(WHOLE.start, WHOLE.last + 1) if not any(h.start <= a <= h.last for h in held)}


def addresses(ranges: list[Range]) -> list[int]:
    return [a for r in ranges for a in range(r.start, r.last + 1)]


@given(st.lists(held_ranges(), max_size=12), st.data())
def test_free_is_what_nothing_holds(held: list[Range], data: st.DataObject) -> None:
    space = Space(WHOLE)
    for one in held:
        space.hold(one)
    released = data.draw(st.sets(st.sampled_from(range(len(held)))) if held else st.just(set()))
    for index in sorted(released):
        space.release(held[index])
    left = [h for i, h in enumerate(held) if i not in released]
    free = space.free_ranges()
    assert sorted(addresses(free)) == sorted(free_addresses(left))
    assert free == merge(free), "free ranges are maximal"


@given(st.lists(held_ranges(), max_size=8), st.integers(24, 32))
def test_blocks_are_free_distinct_and_complete(held: list[Range], prefix: int) -> None:
    space = Space(WHOLE)
    for one in held:
        space.hold(one)
    for _ in range(2):  # reading changes nothing
        blocks = list(space.blocks(prefix))
        assert len(set(addresses(blocks))) == len(addresses(blocks))
        assert set(addresses(blocks)) <= free_addresses(held)
        assert len(blocks) == space.count_blocks(prefix)


def test_a_large_pool_costs_what_is_held() -> None:
    space = Space(parse("fd00::/16"))
    for block, _ in zip(space.blocks(122), range(3), strict=False):
        assert block.prefix == 122
    assert len(space.free_ranges()) == 1


def test_blocks_come_lowest_first() -> None:
    space = Space(parse("10.0.0.0/16"))
    space.hold(parse("10.0.0.0/26"))
    space.hold(parse("10.0.0.128/26"))
    assert [str(b) for b, _ in zip(space.blocks(26), range(3), strict=False)] == [
        "10.0.0.64/26", "10.0.0.192/26", "10.0.1.0/26",
    ]  # fmt: skip
