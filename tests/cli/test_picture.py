"""A pool's picture: every address once, neighbours beside each other, colours that say whose and how full."""

import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tortie.addressing.ranges import parse
from tortie.cli.ctl.picture import Owned, paint, place, svg, text

POOL = parse("10.1.0.0/16")
ONE = Owned(parse("10.1.0.0/26"), "a", tuple(parse("10.1.0.0/26").start + n for n in range(32)))
TWO = Owned(parse("10.1.0.64/26"), "b", ())


@pytest.mark.parametrize("edge", [1, 2, 4, 8, 64])
def test_the_curve_goes_through_every_cell_from_neighbour_to_neighbour(edge: int) -> None:
    way = [place(index, edge) for index in range(edge * edge)]
    assert set(way) == {(column, row) for column in range(edge) for row in range(edge)}
    assert all(abs(a - c) + abs(b - d) == 1 for (a, b), (c, d) in pairwise(way))


# Blocks, what is shown, cells along an edge, and the first cell's title.
ROWS = {
    "nothing yet": ((), "10.1.0.0/16", 32, "10.1.0.0/26: free"),
    "one block: its addresses": ((ONE,), "10.1.0.0/26", 8, "10.1.0.0/32: a, 1 of 1 in use"),
    "two blocks: the part that holds both": ((ONE, TWO), "10.1.0.0/25", 8, "10.1.0.0/31: a, 2 of 2 in use"),
    "far apart": (
        (ONE, Owned(parse("10.1.255.0/26"), "b", ())), "10.1.0.0/16", 32, "10.1.0.0/26: a, 32 of 64 in use",
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_what_is_shown(row: str) -> None:
    blocks, shown, edge, first = ROWS[row]
    drawn = paint(POOL, blocks, (), 32)
    assert (str(drawn.shown), drawn.edge, drawn.cells[0].title) == (shown, edge, first)


def test_a_pool_of_2_to_the_80_is_no_more_work() -> None:
    six = Owned(parse("fd00::/122"), "a", (parse("fd00::5/128").start,))
    drawn = paint(parse("fd00::/48"), [six], (), 32)
    assert sum(cell.used for cell in drawn.cells) == 1
    assert len(paint(parse("fd00::/48"), [], (), 32).cells) == 1024


@given(st.sets(st.integers(0, 255), max_size=20), st.integers(0, 5))
def test_every_address_in_use_is_in_one_cell(numbers: set[int], order: int) -> None:
    blocks = [Owned(parse(f"10.1.{n}.0/24"), f"node-{n % 3}", (parse(f"10.1.{n}.7/32").start,)) for n in numbers]
    drawn = paint(POOL, blocks, (), 1 << order)
    assert sum(cell.used for cell in drawn.cells) == len(numbers)
    assert sum(cell.range.size for cell in drawn.cells) == drawn.shown.size
    assert {node for cell in drawn.cells for node in cell.nodes} == {block.node for block in blocks}


def test_colours_tell_whose_and_how_full() -> None:
    full, half, empty, free, both, reserved = (
        paint(parse("10.1.0.0/26"), blocks, held, 1).cells[0].colour
        for blocks, held in (
            ([Owned(ONE.range, "a", tuple(range(ONE.range.start, ONE.range.last + 1)))], ()),
            ([ONE], ()),
            ([Owned(ONE.range, "a", ())], ()),
            ([], ()),
            ([Owned(parse("10.1.0.0/27"), "a", ()), Owned(parse("10.1.0.32/27"), "b", ())], ()),
            ([], (POOL,)),
        )
    )
    assert len({full, half, empty, free, both, reserved}) == 6


def test_the_document_has_a_title_for_each_cell_and_a_legend() -> None:
    drawn = paint(POOL, [ONE, TWO], (), 64)
    root = ET.fromstring(svg(drawn, "a < b", ["a", "b"]))
    titles = [one.text for one in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == [cell.title for cell in drawn.cells]
    assert {"a < b", "a", "b", "free"} <= {one.text for one in root.iter("{http://www.w3.org/2000/svg}text")}


def test_in_a_terminal_each_cell_is_two_columns() -> None:
    drawn = paint(POOL, [ONE, TWO], (), 32)
    first = text(drawn, "title", ["a", "b"]).splitlines()[1]
    assert first.count("  ") == drawn.edge
