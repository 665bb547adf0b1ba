"""A pool as a picture: a Hilbert curve through its addresses, so that neighbours in the range are neighbours in the picture.

Pure. Each cell is a range of addresses: whose it is, and how much of it is in use. As SVG, and for a terminal.
"""

import colorsys
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

import click

from tortie.addressing.ranges import BITS, Range

# Cells along an edge, at most: what a person can still tell apart, in a browser and in a terminal of 80 columns.
SVG_EDGE, TERMINAL_EDGE = 64, 32
_PIXELS = 10
_FREE, _RESERVED, _SHARED = "#eeeeee", "#555555", "#9a9a9a"


class Owned(NamedTuple):
    """A block: its range, its node, and which addresses of it are in use."""

    range: Range
    node: str
    used: tuple[int, ...]


class Cell(NamedTuple):
    """A part of the pool. `nodes` own something in it; `used` of its addresses are in use."""

    range: Range
    nodes: tuple[str, ...]
    used: int
    reserved: bool = False

    @property
    def colour(self) -> str:
        """The node's hue, the darker the fuller; grey where it is nobody's or several nodes'."""
        if not self.nodes:
            return _RESERVED if self.reserved else _FREE
        if len(self.nodes) > 1:
            return _SHARED
        return colour(self.nodes[0], self.used / self.range.size)

    @property
    def title(self) -> str:
        """What a person reads who points at it."""
        owner = ", ".join(self.nodes) or ("reserved" if self.reserved else "free")
        return f"{self.range}: {owner}" + (f", {self.used} of {self.range.size} in use" if self.nodes else "")


class Picture(NamedTuple):
    """The cells in the order of their addresses, `edge` along an edge, and the part of the pool that they show."""

    shown: Range
    edge: int
    cells: tuple[Cell, ...]


def paint(pool: Range, blocks: Sequence[Owned], reserved: Sequence[Range], edge: int) -> Picture:
    """Return the picture of a pool, or of the smallest part of it that holds all blocks.

    At most `edge` (a power of two) cells are along an edge; a cell is a single address where there are few enough.
    """
    shown = pool
    while blocks and (half := _half_with_all(shown, blocks)) is not None:
        shown = half
    order = min(edge.bit_length() - 1, (BITS[pool.family] - shown.prefix) // 2)
    first = Range(pool.family, shown.start, shown.prefix + 2 * order)
    nodes, used = _spread(blocks, shown, first.size)
    cells = []
    for index in range(4**order):
        part = first._replace(start=shown.start + index * first.size)
        kept = any(one.contains(part) for one in reserved)
        cells.append(Cell(part, tuple(sorted(nodes[index])), used[index], kept))
    return Picture(shown, 1 << order, tuple(cells))


def _half_with_all(whole: Range, blocks: Sequence[Owned]) -> Range | None:
    if whole.size == 1:
        return None
    return next((half for half in whole.halves() if all(half.contains(block.range) for block in blocks)), None)


def _spread(blocks: Iterable[Owned], shown: Range, size: int) -> tuple[dict[int, set[str]], dict[int, int]]:
    """Return nodes, and how many addresses are in use, by the index of a cell of `size` addresses."""
    nodes, used = defaultdict[int, set[str]](set), defaultdict[int, int](int)
    for block in blocks:
        for index in range((block.range.start - shown.start) // size, (block.range.last - shown.start) // size + 1):
            nodes[index].add(block.node)
        for value in block.used:
            used[(value - shown.start) // size] += 1
    return nodes, used


def place(index: int, edge: int) -> tuple[int, int]:
    """Return column and row of the cell with an index on the Hilbert curve of an edge (Hamilton, 'Compact Hilbert Indices')."""
    column = row = 0
    side = 1
    while side < edge:
        right, up = 1 & (index // 2), 1 & (index ^ (index // 2))
        if not up:
            if right:
                column, row = side - 1 - column, side - 1 - row
            column, row = row, column
        column, row = column + side * right, row + side * up
        index //= 4
        side *= 2
    return column, row


def colour(node: str, fullness: float) -> str:
    """Return a node's colour as #rrggbb: its own hue, light where nothing is in use, dark where all is."""
    hue = int.from_bytes(hashlib.sha256(node.encode()).digest()[:4], "big") / 2**32
    red, green, blue = colorsys.hls_to_rgb(hue, 0.85 - 0.5 * fullness, 0.65)
    return "#" + "".join(f"{round(255 * part):02x}" for part in (red, green, blue))


def svg(picture: Picture, title: str, nodes: Sequence[str]) -> str:
    """Return an SVG document: the cells, each with a title that a browser shows, and a legend of the nodes."""
    side, line = picture.edge * _PIXELS, 18
    height = max(side, line * (len(nodes) + 1)) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{side + 280}" height="{height}"'
        ' font-family="sans-serif" font-size="13">',
        f'<text x="10" y="20">{escape(title)}</text>',
    ]
    for index, cell in enumerate(picture.cells):
        column, row = place(index, picture.edge)
        parts.append(
            f'<rect x="{10 + column * _PIXELS}" y="{30 + row * _PIXELS}" width="{_PIXELS}" height="{_PIXELS}"'
            f' fill="{cell.colour}"><title>{escape(cell.title)}</title></rect>'
        )
    for number, (name, paint_) in enumerate(legend(nodes)):
        y = 30 + line * number
        parts.append(f'<rect x="{side + 30}" y="{y}" width="12" height="12" fill="{paint_}"/>')
        parts.append(f'<text x="{side + 50}" y="{y + 11}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def legend(nodes: Sequence[str]) -> list[tuple[str, str]]:
    """Return what each colour stands for."""
    return [
        *((node, colour(node, 0.5)) for node in nodes),
        ("several nodes", _SHARED),
        ("free", _FREE),
        ("reserved", _RESERVED),
    ]


def text(picture: Picture, title: str, nodes: Sequence[str]) -> str:
    """Return the picture for a terminal that shows colours: two columns a cell."""
    grid = {place(index, picture.edge): cell for index, cell in enumerate(picture.cells)}
    rows = ["".join(_block(grid[column, row].colour) for column in range(picture.edge)) for row in range(picture.edge)]
    return "\n".join([title, *rows, *(f"{_block(paint_)} {name}" for name, paint_ in legend(nodes))])


def _block(paint_: str) -> str:
    rgb = tuple(int(paint_[at : at + 2], 16) for at in (1, 3, 5))
    return click.style("  ", bg=(rgb[0], rgb[1], rgb[2]))
